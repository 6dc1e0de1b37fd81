"""Prints the calls of a sample on standard output: a table for people, or one JSON object for programs."""

import json
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from virnucpro_assets.cli.console import console
from virnucpro_assets.cli.words import counted
from virnucpro_core.errors import VirnucproError
from virnucpro_core.results.finished import first_calls
from virnucpro_core.results.folder import CONTIGS, REPORT, RUN
from virnucpro_core.results.record_calls import shown_score

SHOWN_RECORDS = 20
MOST_COLUMNS = 1_000_000
# Columns that contigs.tsv has with a calibration.
CALIBRATED = ("probability", "fdr")
# Columns of contigs.tsv, with their titles. A narrow terminal drops the last ones first.
COLUMNS = {
    "record_id": "record",
    "call": "call",
    "score": "score",
    "probability": "probability",
    "fdr": "fdr",
    "reason": "reason",
    "length": "length",
    "chunks": "scored/chunks",
    "chunks_open": "open",
    "frames": "frames",
}
# Shown only if a row has one. contigs.tsv has `chunks_open` with open frames.
OPTIONAL = (*CALIBRATED, "chunks_open", "reason")
# The order in which they are shown.
ORDER = ("record_id", "length", "call", "score", *CALIBRATED, "chunks", "chunks_open", "frames", "reason")


def print_calls(out: Path) -> None:
    """Print the calls of the first records in `out`, as wide as the terminal; in a pipe or file nothing is cut."""
    shown_on = console()
    rows = first_calls(out, SHOWN_RECORDS)
    shown = [name for name in COLUMNS if name not in OPTIONAL or any(row.get(name) for row in rows)]
    widest = shown_on.options.update(max_width=MOST_COLUMNS)
    width = shown_on.width if shown_on.is_terminal else MOST_COLUMNS
    while len(shown) > 3 and shown_on.measure(_table(rows, shown), options=widest).maximum > width:
        shown.pop()
    table = _table(rows, shown)
    if not shown_on.is_terminal:
        shown_on = console(width=shown_on.measure(table, options=widest).maximum)
    shown_on.print(table)
    records = read_counts(out)["records"]
    if records > len(rows):
        shown_on.print(f"... and {records - len(rows):,} more in {CONTIGS}")


def print_json(sample: str, name: str, out: Path, seconds: float) -> None:
    """Print one line of JSON: where the sample's results are, and the counts of its calls.

    name: under which a person knows the sample.
    """
    facts = read_run(out)
    shown: dict[str, Any] = {
        "sample": sample,
        "name": name or sample,
        "out": str(out.resolve()),
        "report": str((out / REPORT).resolve()),
        "note": facts["note"],
        "settings": facts["settings"],
        "counts": {
            k: facts["counts"][k] for k in ("records", "calls", "bases", "reasons", "chunks", "frames")
        },
        **{name: facts[name] for name in ("open_frames", "frames_note") if name in facts},
        "seconds": round(seconds, 1),
    }
    print(json.dumps(shown), flush=True)


def print_failure(sample: str, name: str, out: Path, error: VirnucproError) -> None:
    """Print one line of JSON for a sample that has no results, with the error and its exit code."""
    shown = {"sample": sample, "name": name, "out": str(out.resolve())}
    print(json.dumps(shown | {"error": str(error), "exit_code": error.exit_code}), flush=True)


def calls_in_words(out: Path) -> str:
    """The counts in one line: `6 records: 4 virus, 2 others, 0 no_call`."""
    counts = read_counts(out)
    calls = ", ".join(f"{counts['calls'].get(call, 0):,} {call}" for call in ("virus", "others", "no_call"))
    return f"{counted(counts['records'], 'record')}: {calls}"


def read_run(out: Path) -> dict[str, Any]:
    """The content of `run.json`."""
    return dict(json.loads((out / RUN).read_bytes()))


def read_counts(out: Path) -> dict[str, Any]:
    """The counts in `run.json`: `records`, and `calls` by name."""
    return dict(read_run(out)["counts"])


def _table(rows: list[dict[str, str]], shown: list[str]) -> Table:
    """An id or a reason that is too long goes on in the next line: a cut id could look like another one."""
    table = Table(box=None, pad_edge=False)
    names = [name for name in ORDER if name in shown]
    for name in names:
        table.add_column(COLUMNS[name], overflow="fold", no_wrap=name not in ("record_id", "reason"))
    for row in rows:
        cells = {
            **row,
            "score": shown_score(float(row["score"])) if row["score"] else "",
            "chunks": f"{row['chunks_scored']}/{row['chunks']}",
        }
        cells |= {name: f"{float(row[name]):.3g}" for name in CALIBRATED if row.get(name)}
        style = "bold" if row["call"] == "virus" else ""
        table.add_row(*(Text(cells[name]) for name in names), style=style)
    return table
