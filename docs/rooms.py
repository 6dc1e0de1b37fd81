"""Draws the picture of the rooms in architecture.md from the imports of the code: it cannot show what is not so.

`make architecture` runs it. A room is a folder of one of the two packages, or a module beside the folders. An arrow
says that a module of one room imports a module of the other. Arrows that follow from others are left out: where A
uses B and B uses C, A may use C too. A room's level is the longest way down from it.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("virnucpro_core", "virnucpro_assets")
BEGIN, END = "<!-- rooms: written by docs/rooms.py -->\n", "<!-- end of rooms -->"
# Names that are kept for users and lead into a room; they are no rooms.
DOORS = {("virnucpro_assets", "queue")}

Room = tuple[str, str]


def room_of(module: str) -> Room | None:
    """`virnucpro_core.files.locks` -> ("virnucpro_core", "files"); None for what is in no room of ours."""
    package, *parts = module.split(".")
    if package not in PACKAGES or not parts:
        return None
    if not ((ROOT / package / parts[0]).is_dir() or (ROOT / package / f"{parts[0]}.py").is_file()):
        return None  # a name of the package itself, such as __version__
    return package, parts[0]


def imported(file: Path) -> Iterator[str]:
    """Modules that the file imports anywhere, also inside of functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows() -> dict[Room, set[Room]]:
    """Room -> rooms that it uses, of both packages. The package's own __init__.py, its public face, is no room."""
    found: dict[Room, set[Room]] = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            relative = file.relative_to(ROOT).with_suffix("")
            room = room_of(".".join(relative.parts))
            if room is None or room in DOORS or relative.parts[1] == "__init__":
                continue
            used = {other for name in imported(file) if (other := room_of(name)) and other not in DOORS}
            found.setdefault(room, set()).update(used - {room})
    return found


def levels(uses: dict[Room, set[Room]]) -> dict[Room, int]:
    """Room -> length of the longest way down from it. Raises ValueError naming rooms in a circle."""
    found: dict[Room, int] = {}
    while len(found) < len(uses):
        ready = {room for room in uses.keys() - found.keys() if uses[room] <= found.keys()}
        if not ready:
            circle = ", ".join(sorted(f"{package}/{name}" for package, name in uses.keys() - found.keys()))
            raise ValueError(f"these rooms import each other in a circle, or what is above it: {circle}")
        found |= {room: 1 + max((found[other] for other in uses[room]), default=-1) for room in ready}
    return found


def reduced(uses: dict[Room, set[Room]]) -> dict[Room, set[Room]]:
    """The arrows that do not follow from others."""
    below: dict[Room, set[Room]] = {}
    for room in sorted(uses, key=levels(uses).__getitem__):
        below[room] = uses[room].union(*(below[other] for other in uses[room]))
    return {
        room: {a for a in used if not any(a in below[b] for b in used if b != a)}
        for room, used in uses.items()
    }


def purpose(room: Room) -> str:
    """The first sentence of the room's docstring."""
    folder = ROOT / room[0] / room[1]
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=\.)\s|\n\n", " ".join(said.split("\n")), maxsplit=1)[0]


def drawing() -> str:
    """A Mermaid diagram of the rooms, and a table of their levels."""
    uses = arrows()
    level, lines = levels(uses), ["```mermaid", "flowchart TD"]
    for package in reversed(PACKAGES):
        lines.append(f"  subgraph {package}")
        for room in sorted((r for r in uses if r[0] == package), key=lambda r: (-level[r], r)):
            lines.append(f"    {_node(room)}[{room[1]}]")
        lines.append("  end")
    for room, used in sorted(reduced(uses).items(), key=lambda item: (-level[item[0]], item[0])):
        lines += [f"  {_node(room)} --> {_node(other)}" for other in sorted(used)]
    lines += ["```", "", "| level | room | what it is about |", "|---:|---|---|"]
    for room in sorted(uses, key=lambda r: (-level[r], r)):
        name = room[1] if (ROOT / room[0] / room[1]).is_dir() else f"{room[1]}.py"
        lines.append(f"| {level[room]} | `{room[0]}/{name}` | {purpose(room)} |")
    return "\n".join(lines) + "\n"


def _node(room: Room) -> str:
    return f"{room[0].removeprefix('virnucpro_')}_{room[1]}"


def page(text: str) -> str:
    """The page with the present drawing in it."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{PAGE.name} lacks the marks {BEGIN.strip()} and {END}")
    return f"{before}{BEGIN}{drawing()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}: {max(levels(arrows()).values()) + 1} levels\n")
