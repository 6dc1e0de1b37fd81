"""A run is as alive as its process: who dies leaves no run in progress, who lost its parent ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import psutil
import pytest

from tests.assets.conftest import run
from tests.support import ROOT
from virnucpro_assets.definitions import defs
from virnucpro_assets.platform import presence
from virnucpro_assets.platform.presence import hold_driver, hold_presence, mark_dead_runs, mark_orphans
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.platform.tags import driver_tags
from virnucpro_core.files.locks import is_locked
from virnucpro_core.samples.sample import Sample

ORPHAN = """
import multiprocessing, sys, time
from pathlib import Path
from virnucpro_assets.platform.presence import hold_presence

def work(home, started):
    hold_presence(Path(home), "r")
    started.set()
    time.sleep(300)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    child = context.Process(target=work, args=(sys.argv[1], started))
    child.start()
    assert started.wait(60)
    print(child.pid, flush=True)
    time.sleep(300)
"""


def started_run(instance: dg.DagsterInstance, tags: dict[str, str]) -> str:
    """A run on record as started, without a process."""
    job = defs.resolve_job_def("results")
    run = instance.create_run_for_job(job, tags=dict(job.tags) | tags)
    instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job_name=job.name), run_id=run.run_id
    )
    return run.run_id


def status(instance: dg.DagsterInstance, run: str) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run)
    assert found is not None
    return found.status


def test_runs_without_a_process_are_marked_and_the_living_and_the_young_are_not(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, alive = started_run(instance, {}), started_run(instance, {})
    hold_presence(tmp_path, alive)
    assert mark_dead_runs(instance, tmp_path) == []
    monkeypatch.setattr(presence, "UNLOCKED_SECONDS", -1.0)
    assert mark_dead_runs(instance, tmp_path) == [dead]
    assert status(instance, dead) == dg.DagsterRunStatus.FAILURE
    assert status(instance, alive) == dg.DagsterRunStatus.STARTED


def test_a_terminated_run_without_a_process_is_canceled_and_not_tried_again(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    job = defs.resolve_job_def("results")
    run = instance.create_run_for_job(job, tags=dict(job.tags))
    instance.report_run_canceling(run)
    assert mark_dead_runs(instance, tmp_path) == [run.run_id]
    assert status(instance, run.run_id) == dg.DagsterRunStatus.CANCELED


def test_nothing_is_marked_where_the_launcher_watches_over_its_runs(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = started_run(instance, {})
    monkeypatch.setattr(presence, "UNLOCKED_SECONDS", -1.0)
    monkeypatch.setattr(type(instance.run_launcher), "supports_check_run_worker_health", True)
    assert mark_dead_runs(instance, tmp_path) == []
    assert status(instance, elsewhere) == dg.DagsterRunStatus.STARTED


def test_what_a_killed_driver_left_is_marked_at_once_and_only_that(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Not what a living driver is just starting, nor what a dead one's worker still ends, nor anybody else's."""
    with hold_driver(tmp_path) as gone:
        orphan, ending = (started_run(instance, driver_tags(gone)) for _ in range(2))
        hold_presence(tmp_path, ending)
        assert mark_orphans(instance, tmp_path) == []
    with hold_driver(tmp_path) as alive:
        assert alive != gone
        starting = started_run(instance, driver_tags(alive))
        others = [started_run(instance, tags) for tags in ({}, driver_tags("inbox group"))]
        assert mark_orphans(instance, tmp_path) == [orphan]
        assert {status(instance, run) for run in (starting, ending, *others)} == {dg.DagsterRunStatus.STARTED}
    assert mark_orphans(instance, tmp_path) == [starting]


def test_what_mirrors_the_output_of_a_dead_run_ends_with_it(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Dagster leaves it, where the run is killed before it has it watched."""
    dead, alive = (started_run(instance, driver_tags("predict-a")) for _ in range(2))
    hold_presence(tmp_path, alive)
    mirrors = {}
    for run_id in (dead, alive):
        output = tmp_path / "storage" / run_id / "compute_logs" / "x.err"
        output.parent.mkdir(parents=True)
        output.touch()
        mirrors[run_id] = subprocess.Popen(["tail", "-F", "-c", "+0", str(output)])
    try:
        assert mark_orphans(instance, tmp_path) == [dead]
        assert mirrors[dead].wait(10) == -signal.SIGTERM
        assert mirrors[alive].poll() is None
    finally:
        for mirror in mirrors.values():
            mirror.kill()
            mirror.wait()


def test_a_run_of_the_graph_holds_its_lock(
    sample: Sample, instance: dg.DagsterInstance, platform: Platform
) -> None:
    run_id = run("sequences", sample.name, instance, platform).run_id
    assert is_locked(platform.folder / "locks" / "runs" / f"{run_id}.lock")


def test_a_run_worker_ends_with_the_server_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "orphan.py").write_text(ORPHAN)
    with subprocess.Popen(
        [sys.executable, "orphan.py", str(tmp_path)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT)},
    ) as server:
        assert server.stdout is not None
        worker = psutil.Process(int(server.stdout.readline()))
        server.kill()
    _, alive = psutil.wait_procs([worker], timeout=15)
    assert alive == []
    assert not is_locked(tmp_path / "locks" / "runs" / "r.lock")


def test_a_worker_ends_when_its_driver_is_gone_even_while_it_is_still_starting(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    worker = subprocess.Popen(
        [sys.executable, "-m", "virnucpro_assets.running.worker", "gpu-0"],
        stdin=reader,
        env=dict(os.environ)
        | {
            "VIRNUCPRO_HOME": str(tmp_path),
            "DAGSTER_HOME": "",
            "PYTHONPATH": str(ROOT),
        },
    )
    os.close(reader)
    os.close(writer)
    assert worker.wait(60) in (-signal.SIGTERM, 130)


def test_what_a_loader_worker_imports_of_its_lane_brings_neither_dagster_nor_torch() -> None:
    """A spawned process imports its parent's main module again; the loader worker then brings torch alone."""
    look = (
        "import sys, virnucpro_assets.running.worker; print(sorted({'dagster', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
