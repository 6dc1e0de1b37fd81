"""Write the pages across samples: `summary.tsv`, `index.html` and the sections for MultiQC, all in one folder.

Columns: docs/outputs.md. The page loads nothing from outside and has no script; names are escaped.
"""

import csv
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virnucpro_core.errors import UsageError, printable
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.files.publish import publish_bytes
from virnucpro_core.results.multiqc import CALLS_FILE, GENERAL_FILE, write_multiqc
from virnucpro_core.results.page import page_environment, page_policy, template_text
from virnucpro_core.results.record_calls import CALLS

SUMMARY = "summary.tsv"
INDEX = "index.html"
REPORTS = "reports"
COLUMNS = (
    "sample",
    "state",
    "records",
    "bases",
    *CALLS,
    *(f"{call}_fraction" for call in CALLS),
    *(f"{call}_bases" for call in CALLS),
    "chunks",
    "chunks_scored",
    "chunks_virus",
    "regions",
    "region_bases",
    "provirus_candidates",
    "profile",
    "chunk_size",
    "cutoff",
    "settings",
    "versions",
    "seconds",
    "reason",
    "files",
)
_HEADER = "\t".join(COLUMNS)
# What each file of ours contains near its beginning or its end; a file of this name without it is somebody else's. The
# keys of the JSON files are sorted, so their `id` comes after the samples: it is near the end.
_MARKS = {
    SUMMARY: b"sample\tstate\trecords\tbases\t",
    INDEX: b'name="generator" content="VirNucPro"',
    CALLS_FILE: b'\n "id": "virnucpro_calls",\n',
    GENERAL_FILE: b'\n "id": "virnucpro_general",\n',
}
# The files across samples, and the folder of the reports' copies.
ACROSS = (*_MARKS, REPORTS)
_MARK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One sample. state: `called`, or how far it is, or `failed`; `reason` says why there are no results.

    facts: the content of its `run.json`, {} without results. seconds: how long its lanes computed, None if unknown.
    report: address of its report, relative to the folder of the pages; "" for none. folder: address of all its files,
    "" if the page does not lead there.
    """

    sample: str
    state: str
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    report: str = ""
    reason: str = ""
    folder: str = ""

    def cells(self) -> dict[str, str]:
        """The values of all COLUMNS as text; empty where there are no results."""
        found = {"sample": printable(self.sample), "state": self.state, "reason": printable(self.reason)}
        if self.seconds is not None:
            found["seconds"] = f"{self.seconds:.1f}"
        if self.facts:
            found |= _cells_of(self.facts)
        return {name: found.get(name, "") for name in COLUMNS}


def pages_across(out: Path) -> list[Path]:
    """All files across samples that may be written in `out`, but for the reports' copies."""
    return [out / name for name in _MARKS]


def check_batch_out(out: Path, *, force: bool = False) -> None:
    """Raises UsageError if a file in `out` that would be replaced is not of VirNucPro, unless `force`."""
    reports = {f"{REPORTS}/{file.name}": _MARKS[INDEX] for file in (out / REPORTS).glob("*.html")}
    for name, mark in (_MARKS | reports).items():
        if (out / name).exists() and not force and not _holds(out / name, mark):
            raise UsageError(
                f"holds {name}, which was not written by VirNucPro",
                where=out,
                remedy="give another --out, or --force to replace it",
            )


def own_reports(out: Path) -> list[Path]:
    """The copies of reports in `out`/reports that VirNucPro wrote."""
    return sorted(file for file in (out / REPORTS).glob("*.html") if _holds(file, _MARKS[INDEX]))


def check_none_lost(out: Path, names: Collection[str], *, page: bool, force: bool = False) -> None:
    """Raises UsageError if pages of these samples would take the place of pages that show others, unless `force`.

    Without it the reports of those others would stay in `out`/reports, and be sent along. page: the samples that
    `summary.tsv` shows with results count too; else only the copies of reports do.
    """
    if force:
        return
    earlier = {printable(file.stem) for file in own_reports(out)}
    if page and _holds(out / SUMMARY, _MARKS[SUMMARY]):
        with (out / SUMMARY).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
        earlier |= {row["sample"] for row in rows if row["state"] == "called"}
    if lost := sorted(earlier - {printable(name) for name in names}):
        more = f" and of {len(lost) - 1:,} more" if len(lost) > 1 else ""
        what = f"holds a page or report of sample '{lost[0]}'{more}, which the new page would not show"
        remedy = f"give another --out, or --force to replace the pages and delete such reports in {REPORTS}/"
        raise UsageError(what, where=out, remedy=remedy)


def discard_reports(out: Path, names: Collection[str]) -> list[Path]:
    """Delete the copies of reports of other samples, but for files that others wrote. Returns what was deleted."""
    gone = [file for file in own_reports(out) if file.stem not in names]
    with disk_errors(out / REPORTS):
        for file in gone:
            file.unlink()
    return gone


def write_batch(out: Path, rows: Sequence[BatchRow]) -> None:
    """Publish the four files in `out`. The same rows give the same bytes. Raises StoreError for disk errors."""
    publish_bytes(out / SUMMARY, batch_table(rows).encode())
    write_multiqc(out, {row.sample: row.facts["counts"] for row in rows if row.facts})
    publish_bytes(out / INDEX, batch_page(rows).encode())


def batch_table(rows: Sequence[BatchRow]) -> str:
    """The text of `summary.tsv`: a line for each sample below COLUMNS."""
    return "\n".join([_HEADER, *("\t".join(row.cells().values()) for row in rows)]) + "\n"


def _cells_of(facts: dict[str, Any]) -> dict[str, str]:
    counts, settings = facts["counts"], facts["settings"]
    records = counts["records"]
    numbers = {
        "records": records,
        "bases": sum(counts["bases"].values()),
        **{call: counts["calls"].get(call, 0) for call in CALLS},
        **{f"{call}_fraction": _fraction(counts["calls"].get(call, 0), records) for call in CALLS},
        **{f"{call}_bases": counts["bases"].get(call, 0) for call in CALLS},
        # Results of version 0.1.0 have no regions.
        **{
            name: counts.get(name, "")
            for name in COLUMNS
            if name.startswith(("chunks", "region", "provirus"))
        },
        "profile": facts["profile"],
        "chunk_size": settings.get("chunk_size", ""),
        "cutoff": facts["cutoff"],
    }
    texts = {name: json.dumps(facts[name], sort_keys=True) for name in ("settings", "versions")}
    texts["files"] = json.dumps([file["name"] for file in facts.get("inputs", [])], ensure_ascii=False)
    return {name: printable(str(value)) for name, value in (numbers | texts).items()}


def _fraction(part: int, whole: int) -> str:
    return f"{part / whole:.6f}" if whole else ""


def batch_page(
    rows: Sequence[BatchRow],
    *,
    heading: str = "",
    table: str = SUMMARY,
    others: Sequence[tuple[str, str]] = (),
) -> str:
    """The HTML of `index.html`.

    heading: what the samples have in common. table: address of `batch_table`. others: (text, address) of other pages.
    """
    style = template_text("report.css")
    counts = [row.facts["counts"] for row in rows if row.facts]
    totals = {call: sum(c["calls"].get(call, 0) for c in counts) for call in CALLS}
    return (
        page_environment()
        .get_template("index.html.j2")
        .render(
            policy=page_policy(style),
            style=style,
            heading=printable(heading),
            table=table,
            others=[(printable(text), address) for text, address in others],
            rows=[_shown(row) for row in rows],
            called=len(counts),
            records=sum(totals.values()),
            bases=sum(sum(c["bases"].values()) for c in counts),
            totals=totals,
            regions=sum(c.get("regions", 0) for c in counts),
            candidates=sum(c.get("provirus_candidates", 0) for c in counts),
            note=next((row.facts["note"] for row in rows if row.facts.get("note")), ""),
        )
    )


def _shown(row: BatchRow) -> dict[str, Any]:
    """What a line of the page shows of a sample."""
    counts, opened = row.facts.get("counts", {}), row.facts.get("open_frames", {})
    calls = {call: counts["calls"].get(call, 0) for call in CALLS} if counts else {}
    parts, x = [], 0.0
    for call, number in calls.items():
        width = 100 * number / max(counts["records"], 1)
        parts.append({"kind": call, "x": round(x, 3), "width": round(width, 3)})
        x += width
    return {
        "sample": printable(row.sample),
        "state": row.state,
        "report": row.report,
        "folder": row.folder,
        "reason": printable(row.reason),
        "seconds": "" if row.seconds is None else f"{row.seconds:,.0f}",
        "counts": counts,
        "bases": sum(counts["bases"].values()) if counts else 0,
        "calls": calls,
        "parts": parts,
        "percent": f"{100 * calls['virus'] / max(counts['records'], 1):.1f}" if counts else "",
        "profile": row.facts.get("profile", ""),
        "chunk_size": row.facts.get("settings", {}).get("chunk_size", ""),
        "cutoff": row.facts.get("cutoff", ""),
        "min_open": opened.get("min_open", 0),
        "open_chunks": opened.get("chunks", 0),
    }


def _holds(path: Path, mark: bytes) -> bool:
    """Whether the first or the last bytes of the file contain the mark. Reads no more, however large the file is."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        if mark in stream.read(_MARK_BYTES):
            return True
        stream.seek(max(0, size - _MARK_BYTES))
        return mark in stream.read(_MARK_BYTES)
