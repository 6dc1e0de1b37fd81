"""Small samples that arrive together: runs of several, layer by layer; what they lose begins anew, each alone."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.assets.automation.test_sensors import ASSETS, requested
from tests.assets.graph.test_each import failures_of, samples_of
from virnucpro_assets.automation.groups import (
    GROUP,
    GROUP_SAMPLES,
    WILL_RETRY,
    backlog,
    follow_group,
    group_request,
    groups,
)
from virnucpro_assets.definitions import defs
from virnucpro_assets.graph.partitions import SAMPLES
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.platform.tags import DEVICE_TAG, driver_tags, keys_in, samples_in
from virnucpro_assets.running.runs import QUIET


def executed(
    request: dg.RunRequest, instance: dg.DagsterInstance, platform: Platform
) -> dg.ExecuteInProcessResult:
    """The run that a daemon makes of the request."""
    assert request.job_name is not None
    return defs.resolve_job_def(request.job_name).execute_in_process(
        instance=instance,
        resources={"platform": platform},
        run_config=QUIET,
        tags=dict(request.tags),
        raise_on_error=False,
    )


def test_only_what_shares_a_model_load_to_advantage_is_grouped(
    platform: Platform, instance: dg.DagsterInstance, genomes: Path
) -> None:
    samples = samples_of(genomes, platform, instance)
    assert groups(samples, [0, 0, 0]) == []
    assert sorted(n for _, share in groups(samples, [0, 0]) for n in share) == ["first", "poison", "second"]
    many = groups(samples * GROUP_SAMPLES, [0, 0])
    assert {rank for rank, _ in many} == {0, 1}
    assert max(len(share) for _, share in many) == GROUP_SAMPLES


def test_a_rank_that_is_behind_is_given_less(
    platform: Platform, instance: dg.DagsterInstance, genomes: Path
) -> None:
    samples = samples_of(genomes, platform, instance)
    names = [s.name for s in samples]
    job = defs.resolve_job_def("lane")
    for ended in (False, True):
        run = instance.create_run_for_job(job, tags=dict(group_request("lane", names, 1, names).tags))
        if ended:
            instance.report_run_canceled(run)
    assert backlog(instance, 2) == [0, 3]
    assert {rank: len(share) for rank, share in groups(samples * 10, [0, 20])} == {0: 25, 1: 5}
    assert backlog(instance, 1) == [0]


def test_a_group_goes_through_the_graph_and_leaves_the_poison_to_the_automation(
    platform: Platform, instance: dg.DagsterInstance, genomes: Path
) -> None:
    names = [s.name for s in samples_of(genomes, platform, instance)]
    before = dg.evaluate_automation_conditions(defs, instance)
    request: dg.RunRequest | None = group_request("sequences", names, 1, names)
    jobs = []
    while request is not None:
        assert request.tags[DEVICE_TAG] == "1"
        jobs.append((request.job_name, samples_in(request.tags)))
        result = executed(request, instance, platform)
        assert result.success
        if request.job_name == "sequences":
            # What a tick sees before the run is followed: nothing that it should begin.
            before = dg.evaluate_automation_conditions(defs, instance, cursor=before.cursor)
            assert requested(before) == {}
            assert set(failures_of(instance, result)) == {"poison"}
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        request = follow_group(instance, platform, run)
        assert request is None or (request.run_key or "").startswith(run.run_id)
    assert jobs == [("sequences", names), ("lane", ["first", "second"]), ("results", ["first", "second"])]
    assert instance.get_materialized_partitions(dg.AssetKey("consensus")) == {"first", "second"}
    after = dg.evaluate_automation_conditions(defs, instance, cursor=before.cursor)
    assert requested(after) == {"chunks": {"poison"}, "translations": {"poison"}}
    assert instance.get_materialized_partitions(dg.AssetKey("inbox")) == {*names}
    assert len(ASSETS) == 7


@pytest.mark.parametrize(
    ("tags", "handed"),
    [({}, {"first", "second"}), ({WILL_RETRY: "true"}, set()), ({"virnucpro/driver": "x"}, set())],
)
def test_the_samples_of_a_group_that_failed_begin_anew_unless_the_daemon_tries_again(
    platform: Platform,
    instance: dg.DagsterInstance,
    genomes: Path,
    tags: dict[str, str],
    handed: set[str],
) -> None:
    samples_of(genomes, platform, instance)
    names = ["first", "second", "removed"]
    instance.add_dynamic_partitions(str(SAMPLES.name), ["removed"])
    request = group_request("lane", names, 0, instance.get_dynamic_partitions(str(SAMPLES.name)))
    instance.delete_dynamic_partition(str(SAMPLES.name), "removed")
    assert len(keys_in(request.tags)) == 6
    run = instance.create_run_for_job(
        defs.resolve_job_def("lane"), tags=dict(request.tags) | driver_tags(GROUP) | tags
    )
    instance.report_run_failed(run)
    failed = instance.get_run_by_id(run.run_id)
    assert failed is not None
    assert follow_group(instance, platform, failed) is None
    assert instance.get_materialized_partitions(dg.AssetKey("inbox")) == handed


def test_the_daemon_accepts_what_the_sensor_requests(
    platform: Platform, instance: dg.DagsterInstance, genomes: Path
) -> None:
    names = [s.name for s in samples_of(genomes, platform, instance)]
    sensor = defs.resolve_sensor_def("group_done")

    def tick(cursor: str | None) -> Any:
        context = dg.build_sensor_context(
            instance=instance,
            cursor=cursor,
            repository_def=defs.get_repository_def(),
            resources={"platform": platform},
        )
        return sensor.evaluate_tick(context)

    begun = tick(None)
    assert executed(group_request("sequences", names, 1, names), instance, platform).success
    [request] = tick(begun.cursor).run_requests
    assert (request.job_name, samples_in(request.tags)) == ("lane", ["first", "second"])
