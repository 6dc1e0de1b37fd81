"""An instance may be shared: runs of other projects, and of other homes, are neither counted nor touched."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

from virnucpro_assets.automation.queue import set_priority
from virnucpro_assets.automation.sensors import backlog
from virnucpro_assets.cli.metrics import count_own
from virnucpro_assets.definitions import defs
from virnucpro_assets.platform import presence
from virnucpro_assets.platform.history import latest_run, samples_under_way, was_cancelled
from virnucpro_assets.platform.ownership import is_own, own_runs
from virnucpro_assets.platform.presence import mark_dead_runs, mark_orphans
from virnucpro_assets.platform.tags import DRIVER, HOME_TAG, PRIORITY_TAG, driver_tags
from virnucpro_assets.running.runs import latest_failures
from virnucpro_core.samples.sample import Sample

NAME = "genomes"
STARTED, FAILURE = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE


@dg.op
def other_op() -> None:
    pass


@dg.job(name="batch")  # as one of ours is called, with a configuration of its own
def other_job() -> None:
    other_op()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "UNLOCKED_SECONDS", -1.0)


def create(
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    status: dg.DagsterRunStatus,
    tags: dict[str, str] | None = None,
    module: str = "",
) -> str:
    """A run on record, in this status, without a process."""
    pointer = ModuleCodePointer(module, "defs", None)
    origin = JobPythonOrigin(job.name, RepositoryPythonOrigin("python", pointer, None, None, None))
    run = instance.create_run_for_job(
        job, tags=dict(job.tags) | (tags or {}), job_code_origin=origin if module else None
    )
    kind = {
        STARTED: dg.DagsterEventType.RUN_START,
        FAILURE: dg.DagsterEventType.RUN_FAILURE,
        dg.DagsterRunStatus.CANCELED: dg.DagsterEventType.RUN_CANCELED,
    }[status]
    event = dg.DagsterEvent(kind.value, job_name=job.name)
    instance.report_dagster_event(event, run_id=run.run_id)
    return run.run_id


def others(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> list[str]:
    """Two runs of another project, whose partition is called as a sample of ours."""
    tags = {"dagster/partition": NAME, "dagster/partition/sample": NAME}
    return [
        create(instance, other_job, status, tags),
        create(instance, other_job, status, tags, "other.defs"),
    ]


def statuses(instance: dg.DagsterInstance, runs: list[str]) -> set[dg.DagsterRunStatus]:
    return {run.status for run in instance.get_runs(dg.RunsFilter(run_ids=runs))}


def test_runs_of_another_project_are_not_marked_as_dead(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    foreign = others(instance, STARTED)
    own = [
        create(instance, defs.resolve_job_def("results"), STARTED),
        create(instance, other_job, STARTED, module="virnucpro_assets.definitions"),  # from an asset's page
        create(instance, other_job, STARTED, driver_tags(NAME)),  # of an earlier version
    ]
    assert set(mark_dead_runs(instance, tmp_path)) == set(own)
    assert mark_orphans(instance, tmp_path) == []
    assert statuses(instance, foreign) == {STARTED}


def test_runs_of_another_home_are_not_marked_as_dead(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    job = defs.resolve_job_def("results")
    here, there = (
        create(instance, job, STARTED, driver_tags(f"{DRIVER}gone") | {HOME_TAG: str(tmp_path / name)})
        for name in ("here", "there")
    )
    assert mark_orphans(instance, tmp_path / "here") == [here]
    assert mark_dead_runs(instance, tmp_path / "here") == []
    assert statuses(instance, [there]) == {STARTED}


def test_nothing_that_lists_runs_takes_those_of_another_project(
    instance: dg.DagsterInstance, tmp_path: Path, sample: Sample
) -> None:
    for status in (STARTED, FAILURE, dg.DagsterRunStatus.CANCELED):
        others(instance, status)
    assert own_runs(instance, dg.RunsFilter()) == []
    assert latest_run(instance, NAME) is None
    assert not was_cancelled(instance, NAME)
    assert samples_under_way(instance) == set()
    assert backlog(instance, 2) == [0, 0]
    assert latest_failures(instance, [NAME]) == {}
    assert [count_own(instance, status) for status in dg.DagsterRunStatus] == [0] * len(dg.DagsterRunStatus)
    assert set_priority(instance, [sample], 3) == 0
    assert not any(PRIORITY_TAG in run.tags for run in instance.get_runs())
    own = create(instance, defs.resolve_job_def("results"), FAILURE, {"dagster/partition": NAME})
    others(instance, FAILURE)
    latest = latest_run(instance, NAME)
    assert latest is not None
    assert latest.dagster_run.run_id == own
    assert set(latest_failures(instance, [NAME])) == {NAME}
    assert count_own(instance, FAILURE) == 1


def test_ours_are_found_behind_many_of_others(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("virnucpro_assets.platform.ownership.PAGE", 2)
    own = [create(instance, defs.resolve_job_def("results"), FAILURE) for _ in range(3)]
    for _ in range(3):
        others(instance, FAILURE)
    assert [run.run_id for run in own_runs(instance, dg.RunsFilter(), limit=2)] == [own[2], own[1]]
    assert all(is_own(run) for run in own_runs(instance, dg.RunsFilter()))


def test_every_job_marks_its_runs() -> None:
    jobs = [job for job in defs.get_repository_def().get_all_jobs() if not job.name.startswith("__")]
    jobs = [job for job in jobs if job.name != "batch"]  # what starts it gives it a tag
    assert {job.name for job in jobs} >= {"sequences", "lane", "results", "clean_up"}
    for job in jobs:
        with dg.instance_for_test() as instance:
            assert is_own(instance.create_run_for_job(job, tags=job.tags)), job.name
