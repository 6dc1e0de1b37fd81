"""`virnucpro predict`: a sample layer by layer through the graph; every lane is a process of its own.

The layers are runs on the Dagster instance. What is done already is found by the manifests, so the same
command resumes whatever stopped it.
"""

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virnucpro_assets.resources import Platform, export
from virnucpro_assets.startup import lasting_imports
from virnucpro_assets.tags import driver_tags
from virnucpro_core.durable import locked, publish, sweep
from virnucpro_core.errors import DeviceLostError, UsageError, VirnucproError
from virnucpro_core.lanes import DNABERT, ESM
from virnucpro_core.registry import Sample
from virnucpro_core.results import RUN
from virnucpro_core.retention import open_layers
from virnucpro_core.telemetry import Progress, read_progress

POLL_SECONDS = 0.2
GRACE_SECONDS = 20.0
RESTARTS, RESTART_SECONDS = 3, 2.0
LANE = "virnucpro_assets.lane"
log = logging.getLogger(__name__)


class RunFailedError(VirnucproError):
    """A run of the graph ended without its product. exit_code 2: refused input; 3: resumable."""

    def __init__(self, what: str, *, where: str, exit_code: int) -> None:
        self.exit_code = exit_code
        remedy = "" if exit_code == 2 else "run the same command again: what is finished is kept"
        super().__init__(what, where=where, remedy=remedy)


@dataclass(frozen=True, slots=True)
class Watch:
    """What the driver tells while it works: the layer that begins, and how far the lanes are."""

    layer: Callable[[str], None]
    lanes: Callable[[list[Progress]], None]


def predict(sample: Sample, platform: Platform, watch: Watch) -> None:
    """Bring the sample to its results folder. Raises RunFailedError; KeyboardInterrupt leaves everything resumable."""
    export(platform)
    with lasting_imports():  # the definitions read what was exported
        from virnucpro_assets.instance import database_errors, open_instance
        from virnucpro_assets.partitions import SAMPLES
        from virnucpro_assets.presence import mark_dead_runs, mark_tagged_runs
        from virnucpro_assets.runs import run_job

    with locked(sample.lock("driver"), busy=f"sample {sample.name!r} is being predicted by another process"):
        if platform.sample(sample.name) != sample:
            raise UsageError(
                f"sample {sample.name!r} was given other settings by another process just now",
                where=sample.folder,
                remedy="run the command again",
            )
        layers = open_layers(sample, platform.profile_of(sample.settings))
        with database_errors(), open_instance() as instance:
            mark_tagged_runs(instance, platform.folder, driver_tags(sample.name))
            mark_dead_runs(instance, platform.folder)
            instance.add_dynamic_partitions(str(SAMPLES.name), [sample.name])
        if not layers:
            watch.layer("results are whole and intermediates were released: nothing to compute")
        if "sequences" in layers:
            watch.layer("reading and translating")
            _expect(run_job("sequences", sample.name, sample.name), sample.name)
        if "lane" in layers:
            watch.layer("embedding")
            _run_lanes(sample, platform, watch)
        if "results" in layers:
            watch.layer("writing results")
            _expect(run_job("results", sample.name, sample.name), sample.name)
        with (
            open_instance() as instance
        ):  # orphans of an earlier driver that were still ending at the beginning
            mark_tagged_runs(instance, platform.folder, driver_tags(sample.name))


def deliver(sample: Sample, out: Path) -> None:
    """Copy the results to the user's folder, each file whole, `run.json` last; other files there are left alone."""
    sweep(out)
    files = sorted(sample.results.iterdir(), key=lambda f: f.name == RUN)
    with suppress(FileNotFoundError):
        (out / RUN).unlink()
    for file in files:
        if file.is_file() and not file.name.startswith("."):
            publish(out / file.name, lambda temporary, source=file: _copy(source, temporary))  # type: ignore[misc]


def _run_lanes(sample: Sample, platform: Platform, watch: Watch) -> None:
    for rank in range(platform.gpus):
        for product in (DNABERT, ESM):
            sample.telemetry(product, rank).unlink(missing_ok=True)
    logs = sample.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    lanes_of = [
        Worker([LANE, sample.name, str(rank)], f"lane {rank}|{sample.name}", logs / f"lane-{rank}")
        for rank in range(platform.gpus)
    ]
    with at_work(lanes_of) as lanes:
        while any([lane.goes_on() for lane in lanes]):  # noqa: C419 - every lane is looked after
            watch.lanes(list(_progress(sample, platform.gpus)))
            time.sleep(POLL_SECONDS)
        watch.lanes(list(_progress(sample, platform.gpus)))
        failed = [(rank, lane) for rank, lane in enumerate(lanes) if lane.process.returncode]
    for rank, lane in failed:
        code = lane.process.returncode
        raise RunFailedError(
            lane.last_words(), where=f"lane {rank}|{sample.name}", exit_code=2 if code == 2 else 3
        )


class Worker:
    """A lane's or a batch's process, and the next where its device was lost: at most RESTARTS times, later each time.

    words: the module and its arguments; log: what it says goes to files of this name, `.out` and `.err`.
    """

    def __init__(self, words: Sequence[str], name: str, log: Path) -> None:
        self.words, self.name, self.log = [sys.executable, "-m", *words], name, log
        self.restarts = 0
        self._due: float | None = None
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Begin; nothing runs before this."""
        self.process = self._start("wb")

    def goes_on(self) -> bool:
        """Whether the lane is at work, or will be again."""
        code = self.process.poll()
        if code is None:
            return True
        if code != DeviceLostError.exit_code or self.restarts >= RESTARTS:
            return False
        if self._due is None:
            wait = RESTART_SECONDS * 2**self.restarts
            self._due = time.monotonic() + wait
            log.warning("%s: started anew in %.0f s: %s", self.name, wait, self.said()[-1])
        elif time.monotonic() >= self._due:
            self.close()
            self.restarts, self._due = self.restarts + 1, None
            self.process = self._start("ab")
        return True

    def said(self) -> list[str]:
        """Lines on its standard output."""
        text = self.log.with_suffix(".out").read_text(encoding="utf-8", errors="replace")
        return text.strip().splitlines()

    def last_words(self) -> str:
        """What it said last; where it was killed or said nothing, how it ended and where its log is."""
        code, said = self.process.returncode, self.said()
        if said and code >= 0:
            return said[-1]
        how = (
            f"was ended by signal {-code} ({signal.strsignal(-code)})"
            if code < 0
            else f"ended with code {code}"
        )
        return f"{how}; its log is {self.log.with_suffix('.err')}"

    def close(self) -> None:
        """Let go of its standard input: a process that is still there ends."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _start(self, mode: str) -> "subprocess.Popen[bytes]":
        with self.log.with_suffix(".out").open(mode) as out, self.log.with_suffix(".err").open(mode) as err:
            return subprocess.Popen(
                self.words,
                stdin=subprocess.PIPE,  # it ends with us, however we end
                stdout=out,
                stderr=err,
                start_new_session=True,  # an interrupt at the terminal reaches the driver, which ends them in order
            )


@contextmanager
def at_work(workers: Sequence[Worker]) -> Iterator[Sequence[Worker]]:
    """The workers, started; whatever ends the block ends them, gently at first."""
    begun: list[Worker] = []
    try:
        for worker in workers:
            worker.start()
            begun.append(worker)
        yield workers
    finally:
        _end([worker.process for worker in begun])
        for worker in begun:
            worker.close()


def _end(lanes: Sequence["subprocess.Popen[bytes]"]) -> None:
    for lane in lanes:
        if lane.poll() is None:
            lane.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for lane in lanes:
        with suppress(subprocess.TimeoutExpired):
            lane.wait(max(0.0, deadline - time.monotonic()))
        if lane.poll() is None:
            lane.kill()
            lane.wait()


def _progress(sample: Sample, gpus: int) -> Iterator[Progress]:
    for rank in range(gpus):
        for product in (DNABERT, ESM):
            state = read_progress(sample.telemetry(product, rank))
            if state is not None:
                yield state


def _expect(outcome: Any, sample: str) -> None:
    if outcome.failure:
        raise RunFailedError(outcome.failure, where=sample, exit_code=outcome.exit_code)


def _copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())
