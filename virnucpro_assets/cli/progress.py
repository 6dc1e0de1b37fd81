"""Shows the progress of a prediction: the layers, a bar with the time left for each lane, then the calls."""

import csv
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from virnucpro_assets.cli.words import counted
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.running.predict import Watch, predict
from virnucpro_core.engine.telemetry import Progress as LaneProgress
from virnucpro_core.errors import VirnucproError, printable
from virnucpro_core.pipeline.retention import was_released
from virnucpro_core.results.delivery import deliver
from virnucpro_core.results.folder import CONTIGS, REPORT, RUN
from virnucpro_core.samples.products import CHUNKS, PRODUCTS
from virnucpro_core.samples.sample import Sample
from virnucpro_core.sequences.chunks import Chunks

SHOWN_RECORDS = 20
LINE_SECONDS = 10.0
MOST_COLUMNS = 1_000_000
console = Console(highlight=False)


def show_predictions(
    samples: Sequence[Sample], platform: Platform, out: Callable[[Sample], Path]
) -> dict[str, VirnucproError]:
    """Predict, show progress, copy results to `out(sample)` and print the calls. Returns the failed samples' errors."""
    several = len(samples) > 1
    view = _Bars(named=several) if sys.stdout.isatty() else _Lines(named=several)
    began: dict[str, float] = {}
    last: list[Sample] = []

    def begin(sample: Sample) -> None:
        if began.setdefault(sample.name, now := time.monotonic()) == now:
            view.print(f"{sample.name}: {', '.join(printable(f.path.name) for f in sample.inputs)}")

    def layer(sample: Sample, what: str) -> None:
        begin(sample)
        view.layer(f"{sample.name}: {what}" if several else what)

    def done(sample: Sample, together: bool) -> None:  # noqa: FBT001 - as Watch calls it
        deliver(sample.results, out(sample))
        if together:
            view.print(f"{sample.name}: {_counts(_read_counts(out(sample)))}; {out(sample)}")
        elif several:
            print_calls(sample, out(sample), time.monotonic() - began[sample.name])
        else:
            last.append(sample)  # printed below, after its bars are complete

    with view:
        if not several:
            begin(samples[0])
        failures = predict(samples, platform, Watch(layer, view.lanes, done))
    for sample in last:
        print_calls(sample, out(sample), time.monotonic() - began[sample.name])
    return failures


class _Bars:
    """For a terminal: one bar per lane and encoder, redrawn in place."""

    def __init__(self, *, named: bool) -> None:
        self._named = named
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("frames, left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[tuple[str, str, int], TaskID] = {}

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def print(self, line: str) -> None:
        self._progress.console.print(Text(line))

    def layer(self, name: str) -> None:
        self.print(f"  {name} ...")

    def lanes(self, sample: Sample, states: list[LaneProgress]) -> None:
        for state in states:
            key = (sample.name, state.product, state.rank)
            if key not in self._tasks:
                title = f"{sample.name}: {_title(state)}" if self._named else _title(state)
                self._tasks[key] = self._progress.add_task(title, total=state.total)
            self._progress.update(self._tasks[key], completed=state.done, total=state.total)


class _Lines:
    """For a log file or a pipe: one line when something changes, at most every LINE_SECONDS."""

    def __init__(self, *, named: bool) -> None:
        self._named = named
        self._last = 0.0
        self._ended: set[tuple[str, str, int]] = set()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def print(self, line: str) -> None:
        print(line, flush=True)

    def layer(self, name: str) -> None:
        self.print(f"  {name} ...")

    def lanes(self, sample: Sample, states: list[LaneProgress]) -> None:
        due = time.monotonic() - self._last >= LINE_SECONDS
        for state in states:
            key = (sample.name, state.product, state.rank)
            if key in self._ended or not (due or state.ended):
                continue
            left = state.seconds_left
            tail = "loading the model" if left is None else f"about {left:,.0f} s left"
            if state.ended:
                tail = f"done ({state.resumed:,} were done before)" if state.resumed else "done"
            name = f"{sample.name}: " if self._named else ""
            print(f"  {name}{_title(state)}: {state.done:,} of {state.total:,} frames, {tail}", flush=True)
            self._last = time.monotonic()
            if state.ended:
                self._ended.add(key)


def print_calls(sample: Sample, out: Path, seconds: float) -> None:
    """Print the calls of the first records from `contigs.tsv`, the counts, and the path of the report."""
    rows = _first_rows(out / CONTIGS)
    more = ("probability", "fdr") if rows and "probability" in rows[0] else ()
    titles = ("record", "length", "call", "score", *more, "scored/chunks", "frames", "reason")
    table = Table(*titles, box=None, pad_edge=False)
    for row in rows:
        score = f"{float(row['score']):.3f}" if row["score"] else ""
        chunks = f"{row['chunks_scored']}/{row['chunks']}"
        found = [f"{float(row[name]):.3g}" if row[name] else "" for name in more]
        cells = (
            row["record_id"],
            row["length"],
            row["call"],
            score,
            *found,
            chunks,
            row["frames"],
            row["reason"],
        )
        table.add_row(*map(Text, cells), style="bold" if row["call"] == "virus" else "")
    _print_table(table)
    counts = _read_counts(out)
    if counts["records"] > SHOWN_RECORDS:
        console.print(f"... and {counts['records'] - SHOWN_RECORDS:,} more in {CONTIGS}")
    console.print(f"{_counts(counts)}; {seconds:.0f} s")
    uracils = 0 if was_released(sample, CHUNKS) else Chunks.open(sample.chunks).attrs["uracils"]
    if uracils:
        console.print(f"letters U read as T: {uracils:,}")
    if sample.settings.profile == "demo":
        console.print("demo profile: the scores carry no biological meaning")
    console.print(Text(f"report: {(out / REPORT).resolve()}"), soft_wrap=True)


def _first_rows(contigs: Path) -> list[dict[str, str]]:
    """The first SHOWN_RECORDS rows. A sample may have millions of records."""
    with contigs.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return list(itertools.islice(rows, SHOWN_RECORDS))


def _print_table(table: Table) -> None:
    """Print the table as wide as the terminal. In a pipe or file it is as wide as needed, so that no id is cut."""
    if console.is_terminal:
        console.print(table)
        return
    whole = console.measure(table, options=console.options.update(max_width=MOST_COLUMNS)).maximum
    Console(highlight=False, width=whole).print(table)


def _read_counts(out: Path) -> dict[str, Any]:
    """The counts in `run.json`: `records`, and `calls` by name."""
    return dict(json.loads((out / RUN).read_bytes())["counts"])


def _counts(counts: dict[str, Any]) -> str:
    calls = ", ".join(f"{counts['calls'].get(call, 0):,} {call}" for call in ("virus", "others", "no_call"))
    return f"{counted(counts['records'], 'record')}: {calls}"


def _title(state: LaneProgress) -> str:
    return f"lane {state.rank}, {PRODUCTS[state.product].label}"
