"""Shows the progress of a prediction on standard error, then the calls on standard output.

On a terminal there is one bar for each lane and encoder. In a file, a pipe, with NO_COLOR, or in a terminal
that cannot redraw (TERM=dumb), there are lines.
"""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from virnucpro_assets.cli.calls_table import calls_in_words, print_calls, print_json, read_run
from virnucpro_assets.cli.console import console
from virnucpro_assets.cli.said import Said
from virnucpro_assets.cli.words import counted
from virnucpro_assets.platform.escapes import shows_escapes
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.running.predict import FINISHED, Watch, predict
from virnucpro_assets.running.workers import Crew
from virnucpro_core.engine.telemetry import Progress as LaneProgress
from virnucpro_core.engine.telemetry import read_summary
from virnucpro_core.errors import VirnucproError, printable, shown_name
from virnucpro_core.pipeline.retention import was_released
from virnucpro_core.results.folder import REGIONS_BED, REPORT
from virnucpro_core.samples.products import CHUNKS, PRODUCTS
from virnucpro_core.samples.sample import Sample
from virnucpro_core.sequences.chunks import Chunks

if TYPE_CHECKING:
    from virnucpro_core.results.delivery import Target

LINE_SECONDS = 10.0
DEMO_PROFILE = "demo"
NO_MEANING = "demo profile: the scores carry no biological meaning"


class _Quiet:
    """Shows nothing."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def print(self, line: str) -> None:
        pass

    def lanes(self, sample: Sample, states: list[LaneProgress]) -> None:
        pass


class _Bars(_Quiet):
    """For a terminal: one bar per lane and encoder, redrawn in place."""

    def __init__(self, console: Console, *, named: bool) -> None:
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
        self._progress.console.print(Text(printable(line)))

    def lanes(self, sample: Sample, states: list[LaneProgress]) -> None:
        for state in states:
            key = (sample.name, state.product, state.rank)
            if key not in self._tasks:
                title = _title(sample, state, named=self._named)
                self._tasks[key] = self._progress.add_task(title, total=state.total)
            self._progress.update(self._tasks[key], completed=state.done, total=state.total)


class _Lines(_Quiet):
    """For a log file or a pipe: one line when something changes, at most every LINE_SECONDS."""

    def __init__(self, *, named: bool) -> None:
        self._named = named
        self._last = 0.0
        self._ended: set[tuple[str, str, int]] = set()

    def print(self, line: str) -> None:
        print(printable(line), file=sys.stderr, flush=True)

    def lanes(self, sample: Sample, states: list[LaneProgress]) -> None:
        due = time.monotonic() - self._last >= LINE_SECONDS
        for state in states:
            key = (sample.name, state.product, state.rank)
            if key in self._ended or not (due or state.ended):
                continue
            title = _title(sample, state, named=self._named)
            self.print(f"  {title}: {state.done:,} of {counted(state.total, 'frame')}, {_tail(state)}")
            self._last = time.monotonic()
            if state.ended:
                self._ended.add(key)


def show_predictions(
    samples: Sequence[Sample],
    platform: Platform,
    target: Callable[[Sample], "Target"],
    said: Said,
    crew: Crew | None = None,
) -> dict[str, VirnucproError]:
    """Predict, show progress, copy results to `target(sample)` and print the calls. Returns the failed samples' errors.

    crew: workers that were started already.
    """
    from virnucpro_core.results.delivery import deliver_to

    several = len(samples) > 1
    view = _view(said, named=several)
    shown = _Verbose(view.print) if said.verbose else None
    began, start = dict[str, float](), time.monotonic()
    called: list[str] = []
    finished: set[str] = set()
    last: list[Sample] = []

    def begin(sample: Sample) -> None:
        if began.setdefault(sample.name, now := time.monotonic()) == now:
            view.print(f"{sample.name}: {', '.join(shown_name(f.path) for f in sample.inputs)}")

    def layer(sample: Sample, what: str) -> None:
        if several and what == FINISHED:  # `done` says it, in the one line of this sample
            finished.add(sample.name)
            return
        begin(sample)
        line = what if what == FINISHED else f"{what} ..."
        view.print(f"  {sample.name}: {line}" if several else f"  {line}")

    def lanes(sample: Sample, states: list[LaneProgress]) -> None:
        view.lanes(sample, states)
        if shown is not None:
            shown.lanes(sample, states)

    def done(sample: Sample) -> None:
        deliver_to(target(sample), sample)
        out = target(sample).out
        called.append(sample.name)
        if several:
            place = f"{len(called):,} of {len(samples):,}"
            known = ", nothing to compute" if sample.name in finished else ""
            view.print(f"{place}: {sample.name}: {calls_in_words(out)}; {out}{known}")
            if said.as_json:
                seconds = time.monotonic() - began.get(sample.name, start)
                print_json(sample.name, target(sample).name, out, seconds)
        else:
            last.append(sample)  # printed below, after its bars are complete

    with view:
        if not several:
            begin(samples[0])
        failures = predict(samples, platform, Watch(layer, lanes, done), crew)
    for sample in last:
        seconds = time.monotonic() - began.get(sample.name, start)
        _print_results(sample, target(sample), seconds, said, _view(said, named=False))
    if called and several and any(s.settings.profile == DEMO_PROFILE for s in samples):
        said.note(NO_MEANING)
    return failures


class _Verbose:
    """Says once of each lane how it computed: device, precision, kernel, speed."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: set[tuple[str, str, int]] = set()

    def lanes(self, sample: Sample, states: list[LaneProgress]) -> None:
        for state in states:
            key = (sample.name, state.product, state.rank)
            if not state.ended or key in self._said:
                continue
            self._said.add(key)
            with suppress(FileNotFoundError):
                summary = read_summary(sample.telemetry(state.product, state.rank))
                if summary is not None:
                    self._say(
                        f"  {_title(sample, state, named=True)}: {summary.device}, {summary.precision}, "
                        f"attention {summary.attention}, {counted(summary.batches, 'batch')}, "
                        f"{summary.tokens_per_second:,.0f} tokens/s, {summary.packing_efficiency:.0%} of each batch "
                        f"filled, {summary.seconds:.1f} s"
                    )


def _view(said: Said, *, named: bool) -> _Quiet:
    if said.quiet:
        return _Quiet()
    if shows_escapes(sys.stderr):
        return _Bars(console(stderr=True), named=named)
    return _Lines(named=named)


def _print_results(sample: Sample, target: "Target", seconds: float, said: Said, view: _Quiet) -> None:
    """Print the table or the JSON of a sample on standard output, and the counts and notes on standard error."""
    out = target.out
    if said.as_json:
        print_json(sample.name, target.name, out, seconds)
    elif not said.quiet:
        print_calls(out)
    view.print(f"{calls_in_words(out)}; {seconds:.0f} s")
    facts = read_run(out)
    counts = facts["counts"]
    if counts.get("regions"):
        candidates = counted(counts["provirus_candidates"], "provirus candidate")
        view.print(f"{counted(counts['regions'], 'viral region')}, {candidates}: {REGIONS_BED}")
    if opened := facts.get("open_frames"):
        scored, records = counts["chunks_scored"], counted(opened["records"], "record")
        chunks = f"{opened['chunks']:,} of {counted(scored, 'scored chunk')} have no stop-free frame"
        view.print(f"open frames: {chunks}; {records} would have no call without them")
    if facts.get("frames_note"):
        view.print(f"note: {facts['frames_note']}")
    uracils = 0 if was_released(sample, CHUNKS) else Chunks.open(sample.chunks).attrs["uracils"]
    if uracils:
        view.print(f"letters U read as T: {uracils:,}")
    if sample.settings.profile == DEMO_PROFILE:
        view.print(NO_MEANING)
    view.print(f"report: {(out / REPORT).resolve()}")


def _tail(state: LaneProgress) -> str:
    if state.ended and state.done < state.total:
        return "stopped"
    if state.ended:
        return f"done ({state.resumed:,} were done before)" if state.resumed else "done"
    return "loading the model" if state.seconds_left is None else f"about {state.seconds_left:,.0f} s left"


def _title(sample: Sample, state: LaneProgress, *, named: bool) -> str:
    title = f"lane {state.rank}, {PRODUCTS[state.product].label}"
    return f"{sample.name}: {title}" if named else title
