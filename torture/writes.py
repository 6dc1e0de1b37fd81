"""Make every write, sync, rename, mkdir and open of a prediction fail once, one at a time; then run it again.

After each fault there must be one line with a place and the system's reason, or a complete result. Every file on disk
must be byte for byte that of an undisturbed run, and no temporary file may be left. The second run, without the fault,
must end with exactly the files of an undisturbed run.
"""

import faulthandler
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torture.faults import ERRORS, Switch, build, environment
from torture.lines import is_one_line
from torture.pipeline import Pipeline, write_reads
from torture.table import Row, Task, campaign

HANG_SECONDS = 60.0
KINDS = [(error, False) for error in ERRORS] + [("ENOSPC", True)]


@dataclass(frozen=True, slots=True)
class Fault:
    """Call number `at` fails with `error`; if it `lasts`, all later calls fail too."""

    error: str
    lasts: bool
    at: int

    def __str__(self) -> str:
        return f"{self.error}{' from' if self.lasts else ' at'} call {self.at}"


@campaign("fail every write", share=5)
def fail_every_write(task: Task) -> Sequence[Row]:
    return [run_sweep(task.folder, seconds=task.seconds)]


def run_sweep(folder: Path, *, stride: int = 1, seconds: float = 3600.0) -> Row:
    """Run `sweep` in a process of its own that has the fault switch loaded; every `stride`-th call fails."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(folder), str(stride), str(seconds)],
        env=environment(build(folder)) | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def sweep(folder: Path, stride: int, seconds: float) -> Row:
    """Make every `stride`-th call of a run fail with every error, one at a time, until the time is used up."""
    started = time.monotonic()
    row = Row("fail every write")
    pipeline = Pipeline(folder.resolve() / "home", write_reads(folder / "reads.fa", records=16))
    pipeline.run()
    expected = pipeline.products()
    shutil.rmtree(pipeline.home)
    switch = Switch(pipeline.home)
    counts = _counts(switch, pipeline)
    for fault in _faults(counts, stride):
        if time.monotonic() - started > seconds:
            break
        row.points += 1
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        for kind, found in _strike(switch, pipeline, fault, expected):
            setattr(row, kind, getattr(row, kind) + 1)
            row.findings.append(f"{fault}: {found}")
        faulthandler.cancel_dump_traceback_later()
    row.seconds = time.monotonic() - started
    calls = max(counts.values())
    row.note = f"{calls} calls, each failed in {row.points / calls:.1f} of {len(KINDS)} ways"
    return row


def _counts(switch: Switch, pipeline: Pipeline) -> dict[str, int]:
    """For each error, the number of calls of an undisturbed run that could fail with it."""
    counts = {}
    for error, number in ERRORS.items():
        switch.arm(0, number)
        pipeline.run()
        counts[error] = switch.disarm()
        shutil.rmtree(pipeline.home)
    return counts


def _faults(counts: dict[str, int], stride: int) -> Iterator[Fault]:
    """All faults. Each round makes every call fail in one of the ways of KINDS; the next round takes the next way."""
    for turn, at in itertools.product(range(len(KINDS)), range(1, max(counts.values()) + 1)):
        error, lasts = KINDS[(at + turn) % len(KINDS)]
        if at <= counts[error] and (at + turn) % stride == 0:
            yield Fault(error, lasts, at)


def _strike(
    switch: Switch, pipeline: Pipeline, fault: Fault, expected: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """Run with one fault, then without. Yields (column of the table, finding) for every problem."""
    number = ERRORS[fault.error]
    switch.arm(fault.at, number, lasts=fault.lasts)
    try:
        pipeline.run()
    except BaseException as error:  # noqa: BLE001 - any error that the user would see
        switch.disarm()
        reason, text = os.strerror(number), str(error)
        has_reason = reason in text or "could not be read" in text
        if not (is_one_line(error) and has_reason and str(pipeline.home) in text):
            yield "tracebacks", f"{type(error).__name__}: {text[:300]!r}"
    else:
        switch.disarm()
    seen = pipeline.products() if pipeline.home.exists() else {}
    yield from (("wrong", f"{name} is incomplete") for name in seen if seen[name] != expected.get(name))
    yield from (("wrong", f"temporary file {name}") for name in pipeline.litter())
    try:
        pipeline.run()
    except Exception as error:  # noqa: BLE001
        yield "lost", f"the rerun fails: {error}"
    again = pipeline.products()
    yield from (("lost", f"{name} after the rerun") for name in expected.keys() - again.keys())
    yield from (("wrong", f"{name} after the rerun") for name in again if again[name] != expected.get(name))
    shutil.rmtree(pipeline.home)


if __name__ == "__main__":
    sys.stdout.write(
        json.dumps(asdict(sweep(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))) + "\n"
    )
