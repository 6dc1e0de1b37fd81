"""Predict a folder of small samples, and kill or stop the driver or kill a worker at a random moment.

If a worker dies, the samples that it worked on are run one by one; only time is lost. In all other cases the same
command resumes. In the end every byte must be the same as after an undisturbed run.
"""

import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil

from torture.pipeline import write_reads
from torture.site import Site, Started, role
from torture.table import Row, Task, campaign

SAMPLES, RECORDS = 8, 4
TIMEOUT = 300.0
POLL_SECONDS = 0.02
STRIKES = ("kill a worker", "kill the driver", "kill all", "SIGTERM", "SIGINT")
WEIGHTS = (4, 2, 1, 1, 1)
# Allowed exit codes of each strike, with the allowed numbers of lines on standard error. A strike can come too late.
ENDS = {
    "kill a worker": {0: (0, 1)},
    "kill the driver": {-signal.SIGKILL: (0,), 0: (0,)},
    "kill all": {-signal.SIGKILL: (0, 1, 2), 0: (0,)},
    "SIGTERM": {130: (1,), 0: (0,)},
    "SIGINT": {130: (1,), 0: (0,)},
    "": {0: (0,)},
}


@campaign("folder", share=2)
def folder(task: Task) -> Sequence[Row]:
    """Predict the folder again and again until the time is used up."""
    return folder_points(task, most=10**9)


def folder_points(task: Task, *, most: int) -> Sequence[Row]:
    """Run the campaign with at least one and at most `most` points."""
    began, draw = time.monotonic(), random.Random(task.seed)
    alone = Site(task.folder / "undisturbed")
    _begin(alone)
    run = alone.start(file="in")
    if run.process.wait(TIMEOUT):
        raise RuntimeError(f"the undisturbed run fails: {run.errors()}")
    reference, usual = alone.content(), time.monotonic() - began
    row, struck = Row("folder of small samples"), Counter[str]()
    while not row.points or (row.points < most and time.monotonic() < began + task.seconds):
        site = Site(task.folder / "struck")
        _begin(site, alone.home / "dagster")
        _one_prediction(site, draw, row, struck, usual)
        found = site.content()
        problems = [
            f"{n} differs" for n in reference.keys() | found.keys() if reference.get(n) != found.get(n)
        ]
        problems += site.left()
        row.wrong += len(problems)
        row.findings += problems
    row.seconds = time.monotonic() - began
    row.note = ", ".join(f"{what} ({count})" for what, count in sorted(struck.items()))
    return (row,)


def _begin(site: Site, instance: Path | None = None) -> None:
    site.begin(instance)
    (site.folder / "in").mkdir()
    for number in range(SAMPLES):
        write_reads(site.folder / "in" / f"s{number}.fa", records=RECORDS, seed=number)


def _one_prediction(site: Site, draw: random.Random, row: Row, struck: Counter[str], usual: float) -> None:
    """Run one prediction to its end, with one or two strikes."""
    kept: dict[Path, tuple[int, int]] = {}
    for number in range(3):
        run = site.start(file="in", number=number)
        what = _strike(site, run, draw, usual) if number < 2 else ""
        if what:
            row.points += 1
            struck[what] += 1
        code, errors = run.process.wait(TIMEOUT), run.errors()
        row.tracebacks += any("Traceback" in line for line in errors)
        if code not in ENDS[what] or len(errors) not in ENDS[what][code]:
            row.wrong += 1
            row.findings.append(f"{what or 'undisturbed'}: exit {code}, {errors[:3]}")
        now = site.finished_shards()
        redone = [path for path, status in kept.items() if now.get(path) != status]
        row.lost += len(redone)
        row.findings += [f"finished shard redone: {path}" for path in redone]
        kept = now
        if code == 0:
            return


def _strike(site: Site, run: Started, draw: random.Random, usual: float) -> str:
    """Strike the run. Returns what was done, "" if the run had ended or there was no such process."""
    [what] = draw.choices(STRIKES, WEIGHTS)
    moment = time.monotonic() + draw.uniform(0.0, usual)
    while run.process.poll() is None and time.monotonic() < moment:
        time.sleep(POLL_SECONDS)
    workers = [p for p in site.platform.processes() if role(p) in ("lane", "host")]
    if run.process.poll() is not None or (what == "kill a worker" and not workers):
        return ""
    if what in ("SIGTERM", "SIGINT"):
        run.process.send_signal(getattr(signal, what))
    if what in ("kill the driver", "kill all"):
        run.process.kill()
    doomed = {"kill a worker": [draw.choice(workers)] if workers else [], "kill all": workers}.get(what, [])
    for worker in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    return what
