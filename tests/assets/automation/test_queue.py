"""The queue with the shipped configuration: whose turn it is, what is stopped stays stopped."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import SubmitRunContext
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from tests.assets.automation.test_sensors import requested
from tests.assets.conftest import NAME, run
from virnucpro_assets.automation.nightly import NIGHTLY, TRIES, missing_partitions
from virnucpro_assets.automation.queue import set_priority
from virnucpro_assets.definitions import defs
from virnucpro_assets.graph.partitions import SAMPLES, lane_key
from virnucpro_assets.graph.retention import nightly_clean_up
from virnucpro_assets.platform.environment import time_zone
from virnucpro_assets.platform.instance import CONFIG
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.platform.tags import DEVICE_TAG, LAYER_TAG, PRIORITY_TAG, RANGE_TAGS, keys_in, keys_tags
from virnucpro_core.files.locks import locked
from virnucpro_core.samples import sample as registry
from virnucpro_core.samples.sample import Sample, register


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance with the configuration that a new home gets."""
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path / "home"))
    with dg.instance_for_test(overrides=yaml.safe_load(CONFIG.read_text())) as instance:
        yield instance


def submit(
    instance: dg.DagsterInstance, job: str, key: str | None, tags: dict[str, str] | None = None
) -> str:
    """A run of the sample or lane, or of what `tags` say, into the queue as from the UI or the automation. Its id."""
    definition = defs.resolve_job_def(job)
    kind = definition.partitions_def
    assert kind is not None
    made = instance.create_run_for_job(
        definition,
        tags=dict(definition.tags) | dict(kind.get_tags_for_partition_key(key) if key else {}) | (tags or {}),
        remote_job_origin=RemoteRepositoryOrigin(
            RegisteredCodeLocationOrigin("here"), "__repository__"
        ).get_job_origin(job),
    )
    instance.run_coordinator.submit_run(SubmitRunContext(made, Mock()))  # type: ignore[union-attr]
    return made.run_id


def turn(instance: dg.DagsterInstance) -> list[str]:
    """Ids of the runs that the daemon would start now, in order."""
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    config = instance.get_concurrency_config()
    return [r.run_id for r in daemon._get_runs_to_dequeue(instance, config, fixed_iteration_time=None)]


def three_samples(platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """`large`, and two small ones."""
    monkeypatch.setattr(registry, "SMALL_BYTES", 100)
    for name, bases in (("large", 200), ("early", 20), ("late", 20)):
        file = platform.folder / f"{name}.fa"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f">{name}\n{'ACGT' * (bases // 4)}\n")
        register(platform.folder, name, [file], platform.sample_settings())
    instance.add_dynamic_partitions(str(SAMPLES.name), ["large", "early", "late"])


def test_small_samples_go_before_a_large_one_and_a_priority_before_all(
    platform: Platform, shipped: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_samples(platform, shipped, monkeypatch)
    large, early, late = (submit(shipped, "lane", lane_key(n, 0)) for n in ("large", "early", "late"))
    other_rank = submit(shipped, "lane", lane_key("large", 1))
    assert turn(shipped) == [early, other_rank]  # a lane a rank; the large sample has the idle one
    assert set_priority(shipped, [platform.sample("late")], 5) == 1
    assert turn(shipped) == [late, other_rank]
    asked = submit(shipped, "lane", lane_key("large", 0), {PRIORITY_TAG: "7"})
    again = submit(shipped, "lane", lane_key("late", 1))
    assert turn(shipped) == [asked, again]
    assert large not in turn(shipped)


def test_reading_many_samples_leaves_room_for_the_lanes(
    platform: Platform, shipped: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_samples(platform, shipped, monkeypatch)
    reading = [submit(shipped, "sequences", "early") for _ in range(30)]
    lane = submit(shipped, "lane", lane_key("late", 0))
    assert turn(shipped) == [*reading[:4], lane]
    assert shipped.get_run_by_id(reading[0]).tags[LAYER_TAG] == "sample"  # type: ignore[union-attr]


def test_a_run_of_another_project_waits_as_it_came(
    platform: Platform, shipped: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_samples(platform, shipped, monkeypatch)

    @dg.job(partitions_def=dg.StaticPartitionsDefinition(["early"]))
    def other() -> None:
        pass

    tags = {"dagster/partition": "early"}
    origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("there"), "__repository__")
    run = shipped.create_run_for_job(other, tags=tags, remote_job_origin=origin.get_job_origin("other"))
    before = dict(run.tags)
    shipped.run_coordinator.submit_run(SubmitRunContext(run, Mock()))  # type: ignore[union-attr]
    found = shipped.get_run_by_id(run.run_id)
    assert found is not None
    assert dict(found.tags) == before
    assert turn(shipped) == [run.run_id]


def test_what_waits_works_or_fails_every_night_is_not_asked_for_again(
    sample: Sample, instance: dg.DagsterInstance, platform: Platform
) -> None:
    def asked() -> list[str]:
        return missing_partitions(instance, platform)["sequences"]

    def tried(event: dg.DagsterEventType, *, by_night: bool, **more: str) -> dg.DagsterRun:
        job = defs.resolve_job_def("sequences")
        tags = dict(job.tags) | dict(SAMPLES.get_tags_for_partition_key(NAME)) | more
        tags |= {"dagster/schedule_name": "nightly_sequences"} if by_night else {}
        made = instance.create_run_for_job(job, tags=tags)
        instance.report_dagster_event(dg.DagsterEvent(event.value, job_name="sequences"), run_id=made.run_id)
        return made

    assert asked() == [NAME]
    waiting = tried(dg.DagsterEventType.RUN_STARTING, by_night=False)
    assert asked() == []
    instance.report_run_failed(waiting)
    assert asked() == [NAME]
    instance.add_dynamic_partitions(str(SAMPLES.name), ["other"])
    job = defs.resolve_job_def("sequences")
    batched = instance.create_run_for_job(
        job, tags=dict(job.tags) | keys_tags([NAME, "other"], [NAME, "other"])
    )
    assert asked() == []
    instance.report_run_failed(batched)
    with locked(sample.lock("driver"), busy="busy"):
        assert asked() == []
    for _ in range(TRIES):
        assert asked() == [NAME]
        tried(dg.DagsterEventType.RUN_FAILURE, by_night=True)
        tried(dg.DagsterEventType.RUN_FAILURE, by_night=True, **{"dagster/parent_run_id": "x"})
    assert asked() == []
    tried(dg.DagsterEventType.RUN_FAILURE, by_night=False)
    assert asked() == [NAME]


def test_a_stopped_sample_is_left_alone_until_it_is_asked_for(
    sample: Sample, instance: dg.DagsterInstance, platform: Platform
) -> None:
    result = dg.evaluate_automation_conditions(defs, instance)
    instance.report_runless_asset_event(dg.AssetMaterialization("inbox", partition=NAME))
    result = dg.evaluate_automation_conditions(defs, instance, cursor=result.cursor)
    assert requested(result) == {"chunks": {NAME}, "translations": {NAME}}
    job = defs.resolve_job_def("sequences")
    tags = dict(job.tags) | dict(SAMPLES.get_tags_for_partition_key(NAME))
    stopped = instance.create_run_for_job(job, tags=tags)
    instance.report_run_canceled(stopped)
    for _ in range(2):
        result = dg.evaluate_automation_conditions(defs, instance, cursor=result.cursor)
        assert requested(result) == {}
    assert not any(missing_partitions(instance, platform).values())
    run("sequences", NAME, instance, platform)  # asked for: the rest follows by itself
    result = dg.evaluate_automation_conditions(defs, instance, cursor=result.cursor)
    assert set(requested(result)["esm_embeddings"]) == {f"0|{NAME}", f"1|{NAME}"}
    assert missing_partitions(instance, platform)["lane"]


def test_a_stopped_run_of_several_leaves_its_samples_alone(
    sample: Sample, instance: dg.DagsterInstance, platform: Platform
) -> None:
    assert missing_partitions(instance, platform)["sequences"] == [NAME]
    instance.add_dynamic_partitions(str(SAMPLES.name), ["other"])
    job = defs.resolve_job_def("sequences")
    tags = dict(job.tags) | keys_tags([NAME, "other"], [NAME, "other"])
    stopped = instance.create_run_for_job(job, tags=tags)
    instance.report_run_canceled(stopped)
    assert not any(missing_partitions(instance, platform).values())


def test_nights_are_those_of_this_machine() -> None:
    assert {schedule.execution_timezone for schedule in (*NIGHTLY, nightly_clean_up)} == {time_zone()}


def test_runs_of_several_and_of_one_lane_share_the_rank_s_place_in_the_queue(
    platform: Platform, shipped: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_samples(platform, shipped, monkeypatch)
    tags = dict(zip(RANGE_TAGS, ("0|early", "0|late"), strict=True))
    backfill = submit(shipped, "lane", None, tags)  # as a backfill in the web UI asks for it
    group = submit(
        shipped, "lane", None, keys_tags(["0|early", "1|early"], ["early", "late"]) | {DEVICE_TAG: "1"}
    )
    lane, other = (submit(shipped, "lane", lane_key("early", rank)) for rank in (0, 1))
    assert set(turn(shipped)) == {backfill, group}
    found = shipped.get_run_by_id(backfill)
    assert found is not None
    assert (keys_in(found.tags), found.tags[DEVICE_TAG]) == (["0|early", "0|late"], "0")
    reading = submit(shipped, "sequences", None, dict(zip(RANGE_TAGS, ("large", "late"), strict=True)))
    found = shipped.get_run_by_id(reading)
    assert found is not None
    assert (keys_in(found.tags), found.tags[LAYER_TAG]) == (["large", "early", "late"], "sample")
    assert {lane, other}.isdisjoint(turn(shipped))
