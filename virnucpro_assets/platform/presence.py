"""Finds runs whose process has died, and ends processes whose parent has died.

Each run holds the lock on its own lock file while it works. The operating system releases the lock when the process
ends, however it ends. So a run is dead if Dagster's record says that it is in progress and no process holds its lock.
Such a run would block the queue forever. It is marked as failed; or as canceled if a user has terminated it, because
Dagster would retry a failed run. This module knows nothing about samples.
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
    """Hold the run's lock until this process ends. If a Dagster code server started it, end when that server ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.join,), daemon=True).start()
    _HELD.enter_context(
        locked(_lock(home, run_id), busy=f"another process is working on run {run_id}", wait=True)
    )


def end_with_input(take: Callable[[bytes], None]) -> None:
    """Pass each line of standard input to `take`, and end this process when standard input is closed.

    The parent process holds the other end of the pipe, so this process ends when the parent does.
    """

    def read() -> None:
        with os.fdopen(0, "rb", closefd=False) as stream:
            for line in stream:
                take(line)

    threading.Thread(target=_end_after, args=(read,), daemon=True).start()


def mark_dead_runs(instance: dg.DagsterInstance, home: Path) -> list[str]:
    """Mark runs as ended that started more than UNLOCKED_SECONDS ago and have no process. Returns their ids.

    Does nothing if the instance's launcher checks its runs, as those for Ray and Kubernetes do. Dagster's run
    monitoring then finds dead runs.
    """
    if instance.run_launcher.supports_check_run_worker_health:
        return []
    records = own_records(instance, dg.RunsFilter(statuses=WORKING))
    settled = time.time() - UNLOCKED_SECONDS  # a run takes its lock shortly after it is recorded as started
    return _mark(instance, home, [r.dagster_run for r in records if (r.start_time or 0.0) < settled])


@contextlib.contextmanager
def hold_driver(home: Path) -> Iterator[str]:
    """Yield a new driver name for this process, and hold that driver's lock until the block ends."""
    driver = f"{DRIVER}{uuid.uuid4()}"
    with locked(_driver_lock(home, driver), busy=f"{driver} is running"):
        yield driver
    _driver_lock(home, driver).unlink(missing_ok=True)


def mark_orphans(instance: dg.DagsterInstance, home: Path) -> list[str]:
    """Mark runs as failed whose driver has died and whose own lock is free. Returns their ids.

    This needs no waiting time. A run takes its own lock shortly after it is recorded as started, but its driver holds
    the driver's lock during all of this.
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
        if run.status is dg.DagsterRunStatus.CANCELING:  # it was killed before it could report that
            instance.report_run_canceled(run, "The process of this run ended after the run was terminated.")
            continue
        instance.report_run_failed(
            run, "The process of this run has died: it was killed, or the machine stopped."
        )
    for lock in (home / "locks" / "runs").glob("*.lock"):
        if not is_locked(lock):
            lock.unlink(missing_ok=True)
    return [run.run_id for run in dead]


def _end_mirrors(runs: set[str]) -> None:
    """End the `tail -F` processes that Dagster started to show the output of these runs.

    Dagster first starts `tail`, then a process that ends it. If the run is killed in between, `tail` never ends. The
    run id is a part of the path that `tail` follows.
    """
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # the process has ended, or belongs to another user
            words = process.cmdline()
            if words[:1] == ["tail"] and not runs.isdisjoint(Path(words[-1]).parts):
                process.terminate()


def _driver_lock(home: Path, driver: str) -> Path:
    return home / "locks" / "drivers" / f"{Path(driver).name}.lock"


def _lock(home: Path, run_id: str) -> Path:
    return home / "locks" / "runs" / f"{run_id}.lock"


def _end_after(wait: Callable[[], object]) -> None:
    """Terminate this process when `wait` returns, and kill it after GRACE_SECONDS more."""
    wait()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
