"""The table of results and the registry of campaigns: how often each tried, and what was lost, wrong or a traceback."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

HEAD = (
    "| campaign | points | lost | wrong | tracebacks | time |  | run |",
    "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
)
BEGIN, END = "<!-- figures: written by make torture -->", "<!-- end of figures -->"


@dataclass(slots=True)
class Row:
    """The results of one campaign. `points`: number of faults that it caused; the next three must be 0.

    lost: records, samples or finished shards that were missing afterwards; wrong: bytes that differ from those of an
    undisturbed run, or a process, lock or temporary file that was left; tracebacks: shown to the user.
    `findings` has one line for each of them; `origin` is the command, commit, day and load of the row.
    """

    name: str
    points: int = 0
    lost: int = 0
    wrong: int = 0
    tracebacks: int = 0
    seconds: float = 0.0
    note: str = ""
    origin: str = ""
    findings: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return self.points > 0 and not (self.lost or self.wrong or self.tracebacks)


@dataclass(frozen=True, slots=True)
class Task:
    """The arguments of a campaign: an empty folder, its time in seconds, and the seed of its random choices."""

    folder: Path
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign in the registry. `share`: its weight when the total time is divided among the campaigns."""

    name: str
    share: float
    run: Callable[[Task], Iterable[Row]]


CAMPAIGNS: dict[str, Campaign] = {}


def campaign(name: str, *, share: float) -> Callable[[Callable[[Task], Iterable[Row]]], Campaign]:
    """Register a function as a campaign; `torture/__main__.py` imports the modules and runs them in order."""

    def register(run: Callable[[Task], Iterable[Row]]) -> Campaign:
        CAMPAIGNS[name] = Campaign(name, share, run)
        return CAMPAIGNS[name]

    return register


def shown(rows: Sequence[Row]) -> str:
    """The rows as a markdown table."""
    return "\n".join([*HEAD, *map(_cells, rows)])


def _cells(row: Row) -> str:
    counts = (f"{row.points:,}", str(row.lost), str(row.wrong), str(row.tracebacks))
    return _line((row.name, *counts, f"{row.seconds:,.0f} s", row.note, row.origin))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def as_json(rows: Sequence[Row], *, seed: int) -> str:
    """The rows as one line of JSON."""
    return json.dumps({"seed": seed, "clean": all(r.clean for r in rows), "rows": [asdict(r) for r in rows]})


def write_figures(document: Path, rows: Sequence[Row], heading: str) -> None:
    """Replace the rows of the same campaigns in the table between the document's two marks.

    Text outside the marks, and rows of campaigns that did not run now, are not changed.
    """
    text = document.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN, 1)
    old, after = rest.split(END, 1)
    known = {line.split(" | ")[0]: line for line in old.splitlines() if line.startswith("| ")}
    kept = {name: line for name, line in known.items() if line not in HEAD}
    lines = kept | {f"| {row.name}": _cells(row) for row in rows}
    table = "\n".join([*HEAD, *lines.values()])
    document.write_text(f"{before}{BEGIN}\n{heading}\n\n{table}\n{END}{after}", encoding="utf-8")
