"""What runs by itself: slow files through the sensor, news down the graph, the nightly mending."""

import json
import os
import time
from pathlib import Path
from unittest import mock

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._core.definitions.declarative_automation.automation_condition_evaluator import (
    get_automation_tick_settle_delay_seconds,
)

from tests.assets.conftest import NAME, run
from virnucpro_assets.automation.nightly import missing_partitions
from virnucpro_assets.automation.sensors import inbox_sensor
from virnucpro_assets.cli.samples import samples
from virnucpro_assets.definitions import defs
from virnucpro_assets.graph.partitions import SAMPLES, lane_key
from virnucpro_assets.platform.environment import SETTLE, export
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.platform.tags import DRIVER_TAG
from virnucpro_core.samples.inbox_state import FILE, InboxState, Row, noted_problems
from virnucpro_core.samples.sample import Sample, list_samples, open_sample, read_refusal, register

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
        self.now = 1000.0
        monkeypatch.setattr("virnucpro_assets.automation.sensors.clock", lambda: self.now)

    @property
    def stable(self) -> float:
        return self.platform.inbox_stable_seconds

    def evaluate(self, seconds: float = 0.0) -> dg.SensorResult:
        """A tick whose outcome the daemon does not come to store."""
        self.now += seconds
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"platform": self.platform}
        )
        result = inbox_sensor(context)
        assert isinstance(result, dg.SensorResult)
        return result

    def tick(self, seconds: float = 0.0) -> dg.SensorResult:
        result = self.evaluate(seconds)
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)  # type: ignore[arg-type]
        for request in result.dynamic_partitions_requests or []:
            if isinstance(request, dg.DeleteDynamicPartitionsRequest):
                for key in request.partition_keys:
                    self.instance.delete_dynamic_partition(request.partitions_def_name, key)
            else:
                self.instance.add_dynamic_partitions(
                    request.partitions_def_name, list(request.partition_keys)
                )
        self.cursor = result.cursor
        return result

    def drop(self, name: str, content: bytes) -> Path:
        file = self.platform.inbox / name
        file.write_bytes(content)
        return file

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
    result = sensor.tick(sensor.stable)
    assert sensor.samples() == ["slow"]
    (event,) = result.asset_events
    assert event.partition == "slow"
    assert event.metadata["bytes"].value == len(text)
    assert open_sample(sensor.platform.folder, "slow").settings == sensor.platform.sample_settings()
    assert sensor.tick(1000).asset_events == []
    assert run("sequences", "slow", sensor.instance, sensor.platform).success
    assert open_sample(sensor.platform.folder, "slow").content


def test_the_same_bytes_under_another_name_are_a_sample_of_their_own(sensor: Sensor, genomes: Path) -> None:
    """What was computed for them is linked. Another file of the name gets a name of its own."""
    home = sensor.platform.folder
    sensor.drop("s.fa", genomes.read_bytes())
    sensor.tick()
    sensor.tick(100)
    assert run("sequences", "s", sensor.instance, sensor.platform).success
    sensor.drop("copy.fa", genomes.read_bytes())
    sensor.tick()
    sensor.tick(100)
    done = run("sequences", "copy", sensor.instance, sensor.platform)
    (made,) = [m for m in done.get_asset_materialization_events() if m.asset_key == dg.AssetKey("chunks")]
    assert made.materialization.metadata["same_bytes_as"].value == ["s"]
    stores = [open_sample(home, name).translations / "store.json" for name in ("s", "copy")]
    assert stores[0].samefile(stores[1])
    sensor.drop("s.fasta", b">other\nACGTACGT\n")
    sensor.tick()
    (told, event) = sensor.tick(100).asset_events
    assert isinstance(told, dg.AssetObservation)
    assert "already stands for other sequences" in str(told.description)
    assert str(event.partition).startswith("s-")
    assert len(sensor.samples()) == 3


def test_what_a_run_refuses_leaves_no_sample_and_no_partition(sensor: Sensor, genomes: Path) -> None:
    sensor.drop("twice.fa", b">a\nACGT\n>b\nACGT\n>a\nACGT\n")
    sensor.tick()
    sensor.tick(100)
    assert sensor.samples() == ["twice"]
    assert not run("sequences", "twice", sensor.instance, sensor.platform, raise_on_error=False).success
    (told,) = sensor.tick().asset_events
    assert "set aside: " in str(told.description)
    assert "twice" not in sensor.samples()
    assert list_samples(sensor.platform.folder) == []
    assert (sensor.platform.folder / "set_aside" / "twice.fa").exists()
    assert sensor.tick(100).asset_events == []
    # With the setting that the reason names, in the file beside it, it becomes a sample.
    sensor.drop("twice.fa", b">a\nACGT\n>b\nACGT\n>a\nACGT\n")
    sensor.drop("twice.toml", b'duplicates = "rename"\n')
    sensor.tick()
    sensor.tick(100)
    assert run("sequences", "twice", sensor.instance, sensor.platform).success


def test_a_settings_file_beside_a_file_makes_a_variant_and_another_cutoff_other_results(
    sensor: Sensor, genomes: Path
) -> None:
    sensor.drop("virnucpro.toml", b"chunk-size = 300\ncutoff = 0.4\n")
    sensor.drop("s.fa", genomes.read_bytes())
    sensor.tick()
    sensor.tick(100)
    own = open_sample(sensor.platform.folder, "s")
    assert (own.settings.chunk_size, own.settings.cutoff) == (300, 0.4)
    for job, key in (
        ("sequences", "s"),
        ("lane", lane_key("s", 0)),
        ("lane", lane_key("s", 1)),
        ("results", "s"),
    ):
        assert run(job, key, sensor.instance, sensor.platform).success
    sensor.drop("s.toml", b"cutoff = 0.9\n")
    sensor.tick()
    (event,) = sensor.tick(100).asset_events
    assert event.partition == "s"
    assert sensor.tick().asset_events == []
    assert open_sample(sensor.platform.folder, "s").settings.cutoff == 0.9
    sensor.drop("s.toml", b"chunk-size = 500\n")
    sensor.tick()
    told, event = sensor.tick(100).asset_events
    assert "a variant of sample 's'" in str(told.description)
    assert (event.partition, sensor.samples()) == ("s-500", ["s", "s-500"])
    assert (own.results / "run.json").exists()


def test_variables_of_the_server_lie_between_its_file_and_the_files_of_the_inbox(
    sensor: Sensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sensor.platform.folder / "virnucpro.toml").write_text(
        "region-min-support = 3\nmin-length = 1\ncutoff = 0.1\n"
    )
    monkeypatch.setenv("VIRNUCPRO_MIN_LENGTH", "2")
    monkeypatch.setenv("VIRNUCPRO_CUTOFF", "0.2")
    monkeypatch.setenv("VIRNUCPRO_PRESET", "")
    sensor.drop("virnucpro.toml", b"cutoff = 0.3\n")
    sensor.drop("s.toml", b"shard-rows = 7\n")
    sensor.drop("s.fa", b">a\nACGT\n")
    sensor.drop("t.toml", b"min-length = 4\n")
    sensor.drop("t.fa", b">t\nACGA\n")
    sensor.tick()
    sensor.tick(100)
    s, t = (open_sample(sensor.platform.folder, name).settings for name in "st")
    assert (s.region_min_support, s.min_length, s.cutoff, s.shard_rows) == (3, 2, 0.3, 7)
    assert (t.region_min_support, t.min_length, t.cutoff) == (3, 4, 0.3)
    # A preset is above the cut-offs beneath it.
    preset = sensor.platform.sample_settings(preset="relaxed")
    assert (preset.min_length, preset.cutoff, preset.preset) == (2, 0.5, "relaxed")


def test_the_same_bytes_with_other_settings_are_run_and_said(sensor: Sensor, genomes: Path) -> None:
    sensor.drop("s.fa", genomes.read_bytes())
    sensor.tick()
    sensor.tick(100)
    assert run("sequences", "s", sensor.instance, sensor.platform).success
    home = sensor.platform.home
    sensor.platform = Platform(home=home, gpus=2, device="cpu", profile="demo", chunk_size=500, workers=0)
    sensor.drop("s500.fa", genomes.read_bytes())
    sensor.tick()
    sensor.tick(100)
    done = run("sequences", "s500", sensor.instance, sensor.platform)
    (made,) = [m for m in done.get_asset_materialization_events() if m.asset_key == dg.AssetKey("chunks")]
    assert made.materialization.metadata["same_bytes_as"].value == ["s"]


def test_a_sensor_that_died_after_registering_reports_the_sample_at_the_next_tick(
    sensor: Sensor, genomes: Path
) -> None:
    file = sensor.drop("s.fa", genomes.read_bytes())
    register(sensor.platform.folder, "s", [file], sensor.platform.sample_settings())
    sensor.tick()
    sensor.tick(100)
    assert sensor.samples() == ["s"]


def test_a_tick_whose_outcome_was_not_stored_is_made_good_by_the_next(sensor: Sensor, genomes: Path) -> None:
    sensor.drop("s.fa", genomes.read_bytes())
    sensor.tick()
    for _ in range(3):
        (event,) = sensor.evaluate(100).asset_events
        assert event.partition == "s"
    sensor.tick()
    assert sensor.tick().asset_events == []
    sensor.cursor = None  # as somebody can have it in the web UI, or with a new instance
    (event,) = sensor.tick().asset_events
    assert event.partition == "s"
    assert run("sequences", "s", sensor.instance, sensor.platform).success
    sensor.cursor = '{"s.fa": {"signature": [], "since": 0, "handled": true}}'  # of an earlier version
    assert sensor.tick().asset_events == []


def test_settings_that_cannot_be_computed_are_said_before_there_is_a_sample(
    sensor: Sensor, genomes: Path
) -> None:
    wrong = {
        "chunks": ("chunk-size = 301", "301"),
        "weights": ('profile = "esm2-3b"', "virnucpro models fetch"),
        "preset": ('preset = "conservative"', 'preset = "conservative" needs'),
        "device": ('precision = "fp8"', "fp8"),
    }
    for name, (text, _) in wrong.items():
        sensor.drop(f"{name}.fa", genomes.read_bytes() + f">{name}\nACGT\n".encode())
        sensor.drop(f"{name}.toml", text.encode())
    sensor.tick(0)
    result = sensor.tick(sensor.stable)
    assert sensor.samples() == []
    assert [event.description.split(":")[0] for event in result.asset_events] == [
        "cannot be registered now, will be tried again"
    ] * len(wrong)
    said = {row.name.decode(): row.said for row in noted_problems(sensor.platform.folder)}
    for name, (_, why) in wrong.items():
        assert why in said[f"{name}.fa"], said[f"{name}.fa"]
        assert "--" not in said[f"{name}.fa"]
        sensor.drop(f"{name}.toml", b"")
    sensor.tick(0)
    sensor.tick(sensor.stable)
    assert sensor.samples() == sorted(wrong)


def test_a_run_folder_becomes_a_partition_for_each_sample(sensor: Sensor, genomes: Path) -> None:
    (sensor.platform.inbox / "run").mkdir()
    for number, name in enumerate(("pat1", "pat2", "pat3")):
        text = f"@{name}\n{'ACGT' * 100}\n+\n{'I' * 400}\n"
        (sensor.platform.inbox / "run" / f"{name}_S{number}_L001_R1_001.fastq").write_text(text)
    sensor.drop("more.csv", f"sample,fasta,cutoff\nours,{genomes},0.7\n".encode())
    sensor.tick(0)
    result = sensor.tick(sensor.stable)
    assert sensor.samples() == ["ours", "pat1", "pat2", "pat3"]
    told = [event.metadata["files"].value for event in result.asset_events if "files" in event.metadata]
    assert told == [["run"]]
    assert {request.job_name for request in result.run_requests or []} == {"sequences"}
    assert sensor.platform.sample("ours").settings.cutoff == 0.7


def test_a_bad_file_is_reported_once_and_set_aside(sensor: Sensor) -> None:
    sensor.drop("protein.fa", b">p\nMKLFEILQ\n")
    sensor.tick()
    (event,) = sensor.tick(100).asset_events
    assert isinstance(event, dg.AssetObservation)
    assert "looks like protein" in str(event.description)
    assert (sensor.platform.folder / "set_aside" / "protein.fa").exists()
    assert sensor.tick(100).asset_events == []
    assert sensor.samples() == []


def test_a_changed_file_takes_the_name_and_runs_again(sensor: Sensor, genomes: Path) -> None:
    text = genomes.read_bytes()
    sensor.drop("s.fa", text[: text.rindex(b">")])
    sensor.tick()
    sensor.tick(100)
    assert run("sequences", "s", sensor.instance, sensor.platform).success
    sensor.drop("s.fa", text)
    sensor.tick()
    told, event = sensor.tick(100).asset_events
    assert "changed after it became sample 's'" in str(told.description)
    assert (event.partition, sensor.samples()) == ("s", ["s"])
    done = run("sequences", "s", sensor.instance, sensor.platform)
    (made,) = [m for m in done.get_asset_materialization_events() if m.asset_key == dg.AssetKey("chunks")]
    assert made.materialization.metadata["records"].value == 4


def test_a_file_that_changes_before_its_run_is_refused_and_comes_again(sensor: Sensor, genomes: Path) -> None:
    sensor.drop("s.fa", b">a\nACGT\n")
    sensor.tick()
    sensor.tick(100)
    sensor.drop("s.fa", genomes.read_bytes())
    assert not run("sequences", "s", sensor.instance, sensor.platform, raise_on_error=False).success
    assert "changed since" in read_refusal(sensor.platform.sample("s"))
    sensor.tick()
    assert sensor.tick(100).asset_events[-1].partition == "s"
    assert read_refusal(sensor.platform.sample("s")) == ""
    assert run("sequences", "s", sensor.instance, sensor.platform).success


def test_a_tick_costs_the_same_bytes_however_many_files_were_taken(sensor: Sensor, genomes: Path) -> None:
    """10,000 taken files: the cursor is one number, and a tick that finds nothing new writes nothing."""
    files = 10_000
    rows = {}
    for number in range(files):
        file = sensor.drop(f"s{number:05}.fa", b">a\nACGT\n")
        status = file.stat()
        identity = f"{status.st_size} {status.st_mtime_ns}"
        name = os.fsencode(file.name)
        rows[name] = Row(name, identity, identity, 0.0, "taken", samples=file.stem, look=1)
    with InboxState(sensor.platform.folder) as state:
        state.rows |= rows
    sensor.cursor = "1"
    began = time.monotonic()
    quiet = sensor.tick(100)
    seconds = time.monotonic() - began
    assert (quiet.asset_events, quiet.run_requests, quiet.cursor) == ([], [], "1")
    assert len(str(quiet.cursor)) + len(str(quiet.skip_reason)) < 100
    before = (sensor.platform.folder / FILE).stat()
    sensor.tick(100)
    assert (sensor.platform.folder / FILE).stat().st_mtime_ns == before.st_mtime_ns
    assert seconds < 20  # 0.3 s on a quiet machine; Dagster's limit is 60 s
    sensor.drop("new.fa", genomes.read_bytes())
    sensor.tick()
    (event,) = sensor.tick(100).asset_events
    assert event.partition == "new"
    assert sensor.cursor == "2"


def test_problems_show_in_the_ticks_and_in_the_list_of_samples(
    sensor: Sensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sensor.platform.inbox / "nowhere.fa").symlink_to("missing")
    (event,) = sensor.tick().asset_events
    assert "a link that leads nowhere" in str(event.description)
    idle = sensor.tick()
    assert idle.skip_reason is not None
    assert "files with problems: 1, such as nowhere.fa: a link that leads nowhere" in str(idle.skip_reason)
    monkeypatch.setenv("VIRNUCPRO_HOME", sensor.platform.home)
    said = CliRunner().invoke(samples, [])
    assert "inbox: nowhere.fa: a link that leads nowhere (will be tried again)" in said.output


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
