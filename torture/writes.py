"""Every write, sync, rename, mkdir and open of a prediction fails once, in turn; then the same run is made again.

After each fault: one line with a place and the system's reason, or an undisturbed result; whatever can be seen on
disk is byte for byte what an undisturbed run leaves; no temporary name; and the run without the fault ends with
exactly the undisturbed run's files.
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
    """Call number `at` fails with `error`; if it `lasts`, so does every later one."""

    error: str
    lasts: bool
    at: int

    def __str__(self) -> str:
        return f"{self.error}{' from' if self.lasts else ' at'} call {self.at}"


@campaign("fail every write", share=5)
def fail_every_write(task: Task) -> Sequence[Row]:
    return [run_sweep(task.folder, seconds=task.seconds)]


def run_sweep(folder: Path, *, stride: int = 1, seconds: float = 3600.0) -> Row:
    """`sweep` in a process of its own that has the switch loaded; every `stride`-th call."""
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
    """Strike every `stride`-th call of a run with every error, as long as the time lasts."""
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
    """How many calls an undisturbed run makes that could fail with each error."""
    counts = {}
    for error, number in ERRORS.items():
        switch.arm(0, number)
        pipeline.run()
        counts[error] = switch.disarm()
        shutil.rmtree(pipeline.home)
    return counts


def _faults(counts: dict[str, int], stride: int) -> Iterator[Fault]:
    """All faults: every call in one way, the ways in turns, then every call in its next way, and so on."""
    for turn, at in itertools.product(range(len(KINDS)), range(1, max(counts.values()) + 1)):
        error, lasts = KINDS[(at + turn) % len(KINDS)]
        if at <= counts[error] and (at + turn) % stride == 0:
            yield Fault(error, lasts, at)


def _strike(
    switch: Switch, pipeline: Pipeline, fault: Fault, expected: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """(column of the table, what was found) for everything that is not as it should be."""
    number = ERRORS[fault.error]
    switch.arm(fault.at, number, lasts=fault.lasts)
    try:
        pipeline.run()
    except BaseException as error:  # noqa: BLE001 - what a person would see, whatever it is
        switch.disarm()
        reason, text = os.strerror(number), str(error)
        told = reason in text or "could not be read" in text
        if not (is_one_line(error) and told and str(pipeline.home) in text):
            yield "tracebacks", f"{type(error).__name__}: {text[:300]!r}"
    else:
        switch.disarm()
    seen = pipeline.products() if pipeline.home.exists() else {}
    yield from (("wrong", f"{name} is half made") for name in seen if seen[name] != expected.get(name))
    yield from (("wrong", f"litter {name}") for name in pipeline.litter())
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
