"""Whether the process of a run is still there, and its end when what started it is gone.

A run holds a lock file of its own for as long as it works: the lock vanishes with the process, however that
dies. A run whose record says that it works and whose lock nobody holds is dead; while it is in progress on
record it would keep its place in the queue for ever, so it is marked as failed, and as canceled if somebody has
terminated it: a failed one would be tried again. Knows nothing of samples.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import dagster as dg
import psutil

from virnucpro_assets.platform.ownership import is_of_home, own_records, own_runs
from virnucpro_assets.platform.tags import DRIVER, DRIVER_TAG
from virnucpro_core.files.locks import is_locked, locked

GRACE_SECONDS = 20.0
UNLOCKED_SECONDS = 60.0
IN_PROGRESS = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_HELD = contextlib.ExitStack()
WORKING = IN_PROGRESS[2:]


def hold_presence(home: Path, run_id: str) -> None:
    """Hold the run's lock until this process ends; end with Dagster's code server where that started it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.join,), daemon=True).start()
    _HELD.enter_context(locked(_lock(home, run_id), busy=f"run {run_id} is worked on", wait=True))


def end_with_input(take: Callable[[bytes], None]) -> None:
    """Hand each line of standard input to `take`, and end this process when there are no more.

    The other end of that pipe is held by whoever started the process.
    """

    def read() -> None:
        with os.fdopen(0, "rb", closefd=False) as stream:
            for line in stream:
                take(line)

    threading.Thread(target=_end_after, args=(read,), daemon=True).start()


def mark_dead_runs(instance: dg.DagsterInstance, home: Path) -> list[str]:
    """Mark as ended what works on record for longer than UNLOCKED_SECONDS and has no process. Their ids.

    Where the instance's launcher watches over its runs, as those for Ray and Kubernetes do, Dagster's monitoring
    finds the dead, and nothing is marked here.
    """
    if instance.run_launcher.supports_check_run_worker_health:
        return []
    records = own_records(instance, dg.RunsFilter(statuses=WORKING))
    settled = time.time() - UNLOCKED_SECONDS  # a run holds its lock moments after it is recorded as started
    return _mark(instance, home, [r.dagster_run for r in records if (r.start_time or 0.0) < settled])


@contextlib.contextmanager
def hold_driver(home: Path) -> Iterator[str]:
    """A new name for this process as a driver of runs, whose lock it holds until the block ends."""
    driver = f"{DRIVER}{uuid.uuid4()}"
    with locked(_driver_lock(home, driver), busy=f"{driver} is at work"):
        yield driver
    _driver_lock(home, driver).unlink(missing_ok=True)


def mark_orphans(instance: dg.DagsterInstance, home: Path) -> list[str]:
    """Mark as failed, at once, the runs whose driver is gone and whose own lock nobody holds. Their ids.

    A run is recorded as started a moment before it holds its lock; its driver holds one from before to after.
    """
    runs = own_runs(instance, dg.RunsFilter(statuses=IN_PROGRESS))
    drivers = ((run, run.tags.get(DRIVER_TAG, "")) for run in runs)
    orphans = [
        run
        for run, driver in drivers
        if driver.startswith(DRIVER) and not is_locked(_driver_lock(home, driver))
    ]
    return _mark(instance, home, orphans)


def _mark(instance: dg.DagsterInstance, home: Path, runs: Sequence[dg.DagsterRun]) -> list[str]:
    dead = [run for run in runs if is_of_home(run, home) and not is_locked(_lock(home, run.run_id))]
    if dead:
        _end_mirrors({run.run_id for run in dead})
    for run in dead:
        if run.status is dg.DagsterRunStatus.CANCELING:  # and was killed before it said so
            instance.report_run_canceled(run, "The process of this run ended after the run was terminated.")
            continue
        instance.report_run_failed(
            run, "The process of this run is gone: it was killed, or the machine stopped."
        )
    for lock in (home / "locks" / "runs").glob("*.lock"):
        if not is_locked(lock):
            lock.unlink(missing_ok=True)
    return [run.run_id for run in dead]


def _end_mirrors(runs: set[str]) -> None:
    """End each `tail -F` by which Dagster shows what these runs print; the run is a part of the file's path.

    Dagster starts it, then a process that watches over it: a run that is killed in between leaves it behind for ever.
    """
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has ended, or is somebody else's
            words = process.cmdline()
            if words[:1] == ["tail"] and not runs.isdisjoint(Path(words[-1]).parts):
                process.terminate()


def _driver_lock(home: Path, driver: str) -> Path:
    return home / "locks" / "drivers" / f"{Path(driver).name}.lock"


def _lock(home: Path, run_id: str) -> Path:
    return home / "locks" / "runs" / f"{run_id}.lock"


def _end_after(wait: Callable[[], object]) -> None:
    """Ask this process to end once `wait` returns; insist after GRACE_SECONDS."""
    wait()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
