"""Collect the rows of `summary.tsv` and `index.html`, from the samples of a home or from a folder of results.

Reads `run.json` and the telemetry of each sample, and no table.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from virnucpro_core.engine.telemetry import read_progress
from virnucpro_core.errors import VirnucproError
from virnucpro_core.files.digests import sha256_once
from virnucpro_core.files.publish import publish
from virnucpro_core.pipeline.overview import Overview, overview
from virnucpro_core.results.batch import REPORTS, BatchRow, discard_reports, write_batch
from virnucpro_core.results.delivery import (
    OutTakenError,
    check_pages_of_folder,
    check_pages_out,
    discard_own,
    only_writer,
)
from virnucpro_core.results.folder import NAME, REPORT, RUN
from virnucpro_core.samples.sample import is_registered, open_sample

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
DAMAGED = "its results are damaged or incomplete; predict the sample again"


def write_summary(
    home: Path,
    names: Sequence[str],
    out: Path,
    *,
    force: bool = False,
    on_discard: Callable[[Path], None] = lambda _: None,
) -> list[BatchRow]:
    """Write the pages of these samples of the home to `out`, with a copy of each report in `out`/reports.

    A sample without results gets a row with its state. Earlier copies of reports to which no row leads are deleted, and
    `on_discard` is called with each. Raises UsageError for an unknown name, and for what must not be replaced in `out`
    unless `force`; StoreError for the disk.
    """
    states = [overview(home, name) for name in names]
    with only_writer(out):
        check_pages_out(out, names, force=force)
        rows = [_with_report(home, _of_home(home, state), out / REPORTS) for state in states]
        write_batch(out, rows)
        for file in discard_reports(out, [row.sample for row in rows if row.report]):
            on_discard(file)
    return rows


def rows_of_home(home: Path, names: Sequence[str]) -> list[BatchRow]:
    """Rows of these samples, whose addresses lead to `NAME/` and the report in it. Copies and hashes nothing.

    Raises UsageError for an unknown name.
    """
    rows = [_of_home(home, overview(home, name)) for name in names]
    return [
        replace(row, folder=f"{row.sample}/", report=f"{row.sample}/{REPORT}") if row.facts else row
        for row in rows
    ]


def write_summary_of_folder(
    home: Path,
    out: Path,
    failures: Mapping[str, VirnucproError],
    *,
    force: bool = False,
    on_discard: Callable[[Path], None] = lambda _: None,
) -> list[BatchRow]:
    """Write the pages of all samples whose results are in subfolders of `out`, and of those that have just failed.

    Samples have the names under which a person knows them; if two have the same one, the names that the home gave them.
    failures: by the names that a person knows; a folder that holds another sample's results shows these. With `force`,
    copies of reports of other samples, and results of one sample in `out` itself, are deleted, and `on_discard` is
    called with each. Raises what `write_summary` raises.
    """
    with only_writer(out):
        check_pages_of_folder(out, failures, force=force)
        for file in discard_own(out) if force else ():
            on_discard(file)
        rows = [_of_folder(home, file) for file in sorted(out.glob(f"*/{RUN}"))]
        times = Counter(row.sample for row in rows)
        rows = [
            replace(row, sample=row.facts["sample"]) if times[row.sample] > 1 and row.facts else row
            for row in rows
        ]
        failed = [
            BatchRow(name, "failed", reason=str(error))
            for name, error in failures.items()
            if not (isinstance(error, OutTakenError) and (out / name / RUN).exists())
        ]
        names = {row.sample for row in failed}
        rows = sorted([row for row in rows if row.sample not in names] + failed, key=lambda row: row.sample)
        write_batch(out, rows)
        shown = {name for row in rows for name in (row.sample, row.facts.get("sample", ""))}
        for file in discard_reports(out, shown):
            on_discard(file)
    return rows


def _of_home(home: Path, state: Overview) -> BatchRow:
    """The row of a sample of the home, without addresses."""
    name = state.name
    if state.state != "called":
        return BatchRow(name, state.state, seconds=_seconds(home, name, {}), reason=state.reason)
    try:
        facts = _facts(open_sample(home, name).results / RUN)
    except _UNREADABLE:
        return BatchRow(name, "damaged", reason=DAMAGED)
    return BatchRow(name, "called", facts, _seconds(home, name, facts))


def _with_report(home: Path, row: BatchRow, reports: Path) -> BatchRow:
    """The row with a copy of the sample's report in `reports`, if that is whole."""
    if not row.facts:
        return row
    report = open_sample(home, row.sample).results / REPORT
    try:
        whole = sha256_once(report) == row.facts["files"][REPORT]["sha256"]
    except OSError:
        whole = False
    if not whole:
        return BatchRow(row.sample, "damaged", reason=DAMAGED)
    target = reports / f"{row.sample}.html"
    with publish(target) as temporary:
        shutil.copyfile(report, temporary)
    return replace(row, report=f"{REPORTS}/{quote(target.name)}")


def _of_folder(home: Path, file: Path) -> BatchRow:
    folder = file.parent.name
    try:
        facts = _facts(file)
    except _UNREADABLE:
        return BatchRow(folder, "damaged", reason=DAMAGED)
    seconds = _seconds(home, str(facts["sample"]), facts)
    name = str(facts.get(NAME, facts["sample"]))
    return BatchRow(name, "called", facts, seconds, report=f"./{quote(folder)}/{REPORT}")


def _facts(file: Path) -> dict[str, Any]:
    """The content of a `run.json`, with all that the pages need. Raises one of _UNREADABLE."""
    facts: dict[str, Any] = json.loads(file.read_bytes())
    counts = facts["counts"]
    sum(counts["calls"].values()) + sum(counts["bases"].values()) + counts["records"]
    facts["settings"].get("chunk_size"), facts["versions"].items(), facts["files"][REPORT]["sha256"]
    facts["sample"], facts["profile"], facts["cutoff"], facts["note"], facts["digests"]["sample"]
    return facts


def _seconds(home: Path, name: str, facts: dict[str, Any]) -> float | None:
    """How long the lanes of the sample computed in their last runs, added up; None if the home does not know it.

    facts: the results, which must be of the sample's present files; {} for any.
    """
    try:
        if not is_registered(home, name):
            return None
        sample = open_sample(home, name)
    except VirnucproError:
        return None
    if facts and sample.content != facts["digests"]["sample"]:
        return None
    found = []
    for file in (sample.folder / "telemetry").glob("*.jsonl"):
        with suppress(*_UNREADABLE):
            found.append(progress.seconds if (progress := read_progress(file)) else 0.0)
    return sum(found) if found else None
