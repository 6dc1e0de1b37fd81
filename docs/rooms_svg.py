"""The rooms of docs/rooms.py as a drawing for the documentation site: Mermaid would be fetched from a server."""

import importlib.util
from pathlib import Path
from types import ModuleType

WIDTH, ROW, BOX_WIDTH, BOX_HEIGHT = 860, 74, 104, 30
CLASSES = {"virnucpro_core": "core", "virnucpro_assets": "assets"}


def drawing() -> str:
    """An SVG element: a row for each level, the highest on top; an arrow to each room that is used directly."""
    rooms = _rooms()
    uses = rooms.arrows()
    level = rooms.levels(uses)
    top = max(level.values())
    place: dict[tuple[str, str], tuple[float, float]] = {}
    for height in range(top + 1):
        row = sorted(room for room in uses if level[room] == height)
        step = WIDTH / len(row)
        shift = (
            step / 5 if height % 2 and len(row) == 1 else 0
        )  # so that long arrows do not run through boxes
        for k, room in enumerate(row):
            place[room] = (step * (k + 0.5) + shift, (top - height) * ROW + 24)
    parts = [
        f'<svg class="rooms" viewBox="0 0 {WIDTH} {top * ROW + 48}" role="img"'
        ' aria-label="The rooms by level; the table below lists them">'
    ]
    for room, used in sorted(rooms.reduced(uses).items()):
        for other in sorted(used):
            (x, y), (to_x, to_y) = place[room], place[other]
            y, to_y = y + BOX_HEIGHT / 2, to_y - BOX_HEIGHT / 2
            middle = (y + to_y) / 2
            parts.append(
                f'<path d="M{x:.0f} {y:.0f}C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y:.0f}"/>'
            )
    for room, (x, y) in place.items():
        parts.append(
            f'<g class="{CLASSES[room[0]]}"><rect x="{x - BOX_WIDTH / 2:.0f}" y="{y - BOX_HEIGHT / 2:.0f}"'
            f' width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5"/><text x="{x:.0f}" y="{y + 5:.0f}">{room[1]}</text></g>'
        )
    return "".join([*parts, "</svg>"])


def _rooms() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rooms", Path(__file__).with_name("rooms.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
