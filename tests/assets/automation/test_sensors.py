"""What runs by itself: slow files through the sensor, news down the graph, the nightly mending."""

import json
import os
import time
from pathlib import Path
from unittest import mock

import dagster as dg
import pytest
from dagster._core.definitions.declarative_automation.automation_condition_evaluator import (
    get_automation_tick_settle_delay_seconds,
)

from tests.assets.conftest import NAME, run
from virnucpro_assets.automation.nightly import missing_partitions
from virnucpro_assets.automation.sensors import inbox_sensor
from virnucpro_assets.definitions import defs
from virnucpro_assets.graph.partitions import SAMPLES, lane_key
from virnucpro_assets.platform.environment import SETTLE, export
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.platform.tags import DRIVER_TAG
from virnucpro_core.samples.sample import Sample, open_sample, register

ASSETS = (
    "chunks",
    "translations",
    "dnabert_embeddings",
    "esm_embeddings",
    "merged_features",
    "predictions",
    "consensus",
)


class Sensor:
    """The inbox sensor as the daemon calls it: the cursor and the partitions live on between the ticks."""

    def __init__(
        self, instance: dg.DagsterInstance, platform: Platform, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.instance, self.platform, self.cursor = instance, platform, None
        self.now = time.time()
        monkeypatch.setattr("virnucpro_assets.automation.sensors.time.time", lambda: self.now)

    def tick(self, seconds: float = 0.0) -> dg.SensorResult:
        self.now += seconds
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"platform": self.platform}
        )
        result = inbox_sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for request in result.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)  # type: ignore[arg-type]
        return result

    def samples(self) -> list[str]:
        return sorted(self.instance.get_dynamic_partitions(str(SAMPLES.name)))


@pytest.fixture
def sensor(instance: dg.DagsterInstance, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Sensor:
    platform.inbox.mkdir(parents=True)
    return Sensor(instance, platform, monkeypatch)


def test_a_file_that_arrives_slowly_becomes_one_sample_when_it_is_whole(
    sensor: Sensor, genomes: Path
) -> None:
    text = genomes.read_bytes()
    file = sensor.platform.inbox / "slow.fa"
    for part in range(4):
        file.write_bytes(text[: len(text) * (part + 1) // 4])
        os.utime(file, ns=(part, part))
        assert sensor.tick(20).asset_events == []
    assert sensor.samples() == []
    result = sensor.tick(sensor.platform.inbox_stable_seconds)
    assert sensor.samples() == ["slow"]
    (event,) = result.asset_events
    assert event.partition == "slow"
    sample = open_sample(sensor.platform.folder, "slow")
    assert event.metadata["sha256"].value == sample.content
    assert sample.settings == sensor.platform.sample_settings()
    assert sensor.tick(1000).asset_events == []


def test_the_same_data_is_not_run_twice_and_another_file_of_the_name_gets_a_name_of_its_own(
    sensor: Sensor, genomes: Path
) -> None:
    inbox = sensor.platform.inbox
    (inbox / "s.fa").write_bytes(genomes.read_bytes())
    sensor.tick()
    sensor.tick(100)
    (inbox / "copy.fa").write_bytes(genomes.read_bytes())
    sensor.tick()
    sensor.tick(100)
    assert sensor.samples() == ["s"]
    (inbox / "s.fasta").write_bytes(b">other\nACGTACGT\n")
    sensor.tick()
    sensor.tick(100)
    names = sensor.samples()
    assert len(names) == 2
    assert names[1].startswith("s-")


def test_a_sensor_that_died_after_registering_reports_the_sample_at_the_next_tick(
    sensor: Sensor, genomes: Path
) -> None:
    file = sensor.platform.inbox / "s.fa"
    file.write_bytes(genomes.read_bytes())
    register(sensor.platform.folder, "s", [file], sensor.platform.sample_settings())
    sensor.tick()
    sensor.tick(100)
    assert sensor.samples() == ["s"]


def test_a_bad_file_is_reported_once_and_set_aside(sensor: Sensor) -> None:
    (sensor.platform.inbox / "protein.fa").write_text(">p\nMKLFEILQ\n")
    sensor.tick()
    (event,) = sensor.tick(100).asset_events
    assert isinstance(event, dg.AssetObservation)
    assert "looks like protein" in str(event.description)
    assert (sensor.platform.folder / "set_aside" / "protein.fa").exists()
    assert sensor.tick(100).asset_events == []
    assert sensor.samples() == []


def requested(result: dg.EvaluateAutomationConditionsResult) -> dict[str, set[str]]:
    found = {name: result.get_requested_partitions(dg.AssetKey(name)) for name in ASSETS}
    return {name: {str(k) for k in keys} for name, keys in found.items() if keys}


def test_news_flow_down_layer_by_layer(
    sample: Sample, instance: dg.DagsterInstance, platform: Platform
) -> None:
    result = dg.evaluate_automation_conditions(defs, instance)
    assert requested(result) == {}
    instance.report_runless_asset_event(dg.AssetMaterialization("inbox", partition=NAME))
    result = dg.evaluate_automation_conditions(defs, instance, cursor=result.cursor)
    assert requested(result) == {"chunks": {NAME}, "translations": {NAME}}
    run("sequences", NAME, instance, platform)
    result = dg.evaluate_automation_conditions(defs, instance, cursor=result.cursor)
    lanes = {f"0|{NAME}", f"1|{NAME}"}
    assert requested(result) == dict.fromkeys(ASSETS[2:6], lanes)
    run("lane", lane_key(NAME, 0), instance, platform)
    result = dg.evaluate_automation_conditions(defs, instance, cursor=result.cursor)
    assert requested(result) == {}
    run("lane", lane_key(NAME, 1), instance, platform)
    result = dg.evaluate_automation_conditions(defs, instance, cursor=result.cursor)
    assert requested(result) == {"consensus": {NAME}}


def test_a_tick_between_the_report_and_the_partition_key_loses_no_sample(
    sample: Sample, instance: dg.DagsterInstance
) -> None:
    result = dg.evaluate_automation_conditions(defs, instance)
    instance.report_runless_asset_event(dg.AssetMaterialization("inbox", partition="late"))
    result = dg.evaluate_automation_conditions(defs, instance, cursor=result.cursor)
    assert requested(result) == {}
    instance.add_dynamic_partitions(str(SAMPLES.name), ["late"])
    result = dg.evaluate_automation_conditions(defs, instance, cursor=result.cursor)
    assert requested(result) == {"chunks": {"late"}, "translations": {"late"}}
    result = dg.evaluate_automation_conditions(defs, instance, cursor=result.cursor)
    assert requested(result) == {}


def test_the_automation_lets_transactions_settle(platform: Platform) -> None:
    """Under the name that Dagster knows; what a site has set is left alone."""
    with mock.patch.dict(os.environ):
        os.environ.pop(SETTLE, None)
        assert get_automation_tick_settle_delay_seconds() == 0
        export(platform)
        assert get_automation_tick_settle_delay_seconds() > 0
        os.environ[SETTLE] = "7"
        export(platform)
        assert get_automation_tick_settle_delay_seconds() == 7


def test_what_the_driver_runs_starts_nothing(
    sample: Sample, instance: dg.DagsterInstance, platform: Platform
) -> None:
    result = dg.evaluate_automation_conditions(defs, instance)
    tags = {DRIVER_TAG: "predict"}
    for job, key in (("sequences", NAME), ("lane", lane_key(NAME, 0)), ("lane", lane_key(NAME, 1))):
        run(job, key, instance, platform, tags=tags)
        result = dg.evaluate_automation_conditions(defs, instance, cursor=result.cursor)
        assert requested(result) == {}


def test_a_tick_between_two_products_of_a_driven_sample_starts_nothing(
    sample: Sample, instance: dg.DagsterInstance, platform: Platform
) -> None:
    """And what a batch leaves behind begins once it is handed over."""
    instance.report_runless_asset_event(dg.AssetMaterialization("inbox", partition="earlier"))
    result = dg.evaluate_automation_conditions(defs, instance)
    instance.add_dynamic_partitions(str(SAMPLES.name), ["other"])
    register(platform.folder, "other", [f.path for f in sample.inputs], sample.settings)
    for name in (NAME, "other"):
        done = dg.materialize(
            [*defs.assets],  # type: ignore[list-item]
            selection=["chunks"],
            partition_key=name,
            instance=instance,
            resources={"platform": platform},
            tags={DRIVER_TAG: "batch"},
        )
        assert done.success
    result = dg.evaluate_automation_conditions(defs, instance, cursor=result.cursor)
    assert requested(result) == {}
    instance.report_runless_asset_event(dg.AssetMaterialization("inbox", partition=NAME))
    result = dg.evaluate_automation_conditions(defs, instance, cursor=result.cursor)
    assert requested(result) == {"chunks": {NAME}, "translations": {NAME}}


def test_the_night_asks_for_the_first_layer_that_is_missing(
    sample: Sample, instance: dg.DagsterInstance, platform: Platform
) -> None:
    def missing() -> dict[str, list[str]]:
        return {job: keys for job, keys in missing_partitions(instance, platform).items() if keys}

    def happened(asset: str, key: str) -> None:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=key))

    assert missing() == {"sequences": [NAME]}
    sample.rejected.write_text(json.dumps({"reason": "no good"}))
    assert missing() == {}
    sample.rejected.unlink()
    happened("translations", NAME)
    assert missing() == {"lane": [lane_key(NAME, 0), lane_key(NAME, 1)]}
    happened("predictions", lane_key(NAME, 1))
    assert missing() == {"lane": [lane_key(NAME, 0)]}
    happened("predictions", lane_key(NAME, 0))
    assert missing() == {"results": [NAME]}
    happened("consensus", NAME)
    assert missing() == {}
