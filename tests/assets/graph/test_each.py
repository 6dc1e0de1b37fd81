"""A run of several samples: exactly the keys that were asked for, recorded as by their own runs, bad ones left out."""

import json
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.assets.automation.test_sensors import ASSETS, requested
from tests.assets.conftest import SHARD_ROWS, whole_graph
from tests.assets.graph.test_materialize import bytes_of, materialization
from virnucpro_assets.definitions import defs
from virnucpro_assets.graph import checks, embeddings, sequences
from virnucpro_assets.graph.partitions import LANES, SAMPLES, keys_of, lane_key
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.platform.tags import (
    DEFERRED_TAG,
    DEVICE_TAG,
    RANGE_TAGS,
    driver_tags,
    failed_in,
    keys_tags,
    samples_in,
)
from virnucpro_assets.running.runs import QUIET
from virnucpro_core.encoders import loaded
from virnucpro_core.errors import DeviceLostError
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.precision import Audited
from virnucpro_core.samples.products import ESM, Embedding
from virnucpro_core.samples.sample import Sample, register


def samples_of(genomes: Path, platform: Platform, instance: dg.DagsterInstance) -> list[Sample]:
    """Two genomes as samples of their own, and between them a sample whose input is refused."""
    first, second = [">" + entry for entry in genomes.read_text().split(">")[1:3]]
    texts = {"first": first, "poison": ">a\nACGT\n>a\nACGT\n", "second": second}
    found = []
    for name, text in texts.items():
        file = platform.folder / f"{name}.fa"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        settings = platform.sample_settings(shard_rows=SHARD_ROWS)
        found.append(register(platform.folder, name, [file], settings))
    instance.add_dynamic_partitions(str(SAMPLES.name), list(texts))
    return found


def shared_run(
    job: str, keys: Sequence[str], instance: dg.DagsterInstance, platform: Platform, **tags: str
) -> dg.ExecuteInProcessResult:
    """One of the real jobs for several partitions, as a driver asks for it."""
    order = instance.get_dynamic_partitions(str(SAMPLES.name))
    return defs.resolve_job_def(job).execute_in_process(
        instance=instance,
        resources={"platform": platform},
        run_config=QUIET,
        tags=keys_tags(keys, order) | driver_tags("predict-test") | {DEFERRED_TAG: "true"} | tags,
        raise_on_error=False,
    )


def failures_of(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> dict[str, str]:
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    return failed_in(run.tags)


def lanes_of(*samples: str) -> list[str]:
    return [lane_key(name, rank) for name in samples for rank in (0, 1)]


def test_a_shared_run_records_what_runs_of_their_own_record_and_leaves_the_poison_out(
    platform: Platform, instance: dg.DagsterInstance, genomes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, poison, second = samples_of(genomes, platform, instance)
    loads = []
    monkeypatch.setattr(
        loaded,
        "load_encoder",
        lambda kind, folder, *, load=loaded.load_encoder, **o: loads.append(kind) or load(kind, folder, **o),
    )
    before = dg.evaluate_automation_conditions(defs, instance)
    names = [s.name for s in (first, poison, second)]
    results = [shared_run("sequences", names, instance, platform)]
    assert set(failures_of(instance, results[0])) == {"poison"}
    assert "line 3" in failures_of(instance, results[0])["poison"]
    assert poison.rejected.exists()
    results.append(shared_run("lane", lanes_of("first", "second"), instance, platform, **{DEVICE_TAG: "1"}))
    results.append(shared_run("results", ["first", "second"], instance, platform))
    assert all(result.success for result in results)
    assert sorted(set(loads)) == ["dnabert-s", "esm2"]
    assert len(loads) == 4  # a product's step and its check's, each once for all keys
    done = {name: instance.get_materialized_partitions(dg.AssetKey(name)) for name in ASSETS}
    assert done == {
        name: set(lanes_of("first", "second")) if name in ASSETS[2:6] else {"first", "second"}
        for name in ASSETS
    }
    after = dg.evaluate_automation_conditions(defs, instance, cursor=before.cursor)
    assert requested(after) == {}

    recorded = {a: materialization(instance, a, key) for a, key in one_of_each("first")}
    named = {(c.asset_check_key, c.partition) for r in results for c in r.get_asset_check_evaluations()}
    made = bytes_of(first)
    alone = whole_graph(first, instance, platform)
    assert bytes_of(first) == made
    for asset, key in one_of_each("first"):
        again = materialization(instance, asset, key)
        assert set(recorded[asset].metadata) <= set(again.metadata) | {"note"}
        for tag, value in recorded[asset].tags.items():
            assert again.tags[tag] == value, (asset, tag)
    assert {(c.asset_check_key, c.partition) for r in alone for c in r.get_asset_check_evaluations()} == {
        (key, partition) for key, partition in named if "first" in str(partition)
    }


def one_of_each(name: str) -> list[tuple[str, str]]:
    return [(a, lane_key(name, 0) if a in ASSETS[2:6] else name) for a in ASSETS]


def test_a_sample_that_fails_on_its_way_is_left_out_of_the_further_steps(
    platform: Platform, instance: dg.DagsterInstance, genomes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples_of(genomes, platform, instance)
    assert shared_run("sequences", ["first", "second"], instance, platform).success
    embed = embeddings.embed_lane

    def unexpected(lane: object, *arguments: object, **options: object) -> object:
        if "first" in str(lane):
            raise ValueError("not a\nthing that anybody thought of")
        return embed(lane, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(embeddings, "embed_lane", unexpected)
    result = shared_run("lane", lanes_of("first", "second"), instance, platform)
    assert result.success
    [(name, line)] = failures_of(instance, result).items()
    assert name == "first"
    assert "ValueError" in line
    assert "\n" not in line
    for asset in ASSETS[2:6]:
        assert instance.get_materialized_partitions(dg.AssetKey(asset)) == set(lanes_of("second"))


def test_a_check_that_fails_stops_its_sample_and_no_other(
    platform: Platform, instance: dg.DagsterInstance, genomes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples_of(genomes, platform, instance)
    chunk = sequences.chunk_sample

    def damaged(sample: Sample) -> object:
        made = chunk(sample)
        if sample.name == "first":
            file = next(sample.chunks.glob("*.bin"))
            file.write_bytes(file.read_bytes()[:-1] + b"\xff")
        return made

    monkeypatch.setattr(sequences, "chunk_sample", damaged)
    result = shared_run("sequences", ["first", "second"], instance, platform)
    assert result.success
    assert set(failures_of(instance, result)) == {"first"}
    assert instance.get_materialized_partitions(dg.AssetKey("translations")) == {"second"}


def test_a_lane_whose_rows_cannot_be_compared_with_float32_fails_alone(
    platform: Platform, instance: dg.DagsterInstance, genomes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk changes the proteins of one sample in the moment before all lanes share one float32 pass."""
    samples_of(genomes, platform, instance)
    assert shared_run("sequences", ["first", "second"], instance, platform).success
    read, damaged = checks.rows_to_audit, []

    def read_and_damage(lane: Lane, product: Embedding) -> Audited:
        rows = read(lane, product)
        if (lane.sample.name, product) == ("second", ESM):
            file = lane.sample.translations / "proteins.bin"
            with file.open("r+b") as stream:  # in place: the lane has the file open
                stream.write(b"\xff" * file.stat().st_size)
            damaged.append(lane.rank)
        return rows

    monkeypatch.setattr(checks, "rows_to_audit", read_and_damage)
    result = shared_run("lane", lanes_of("first", "second"), instance, platform)
    assert result.success
    assert damaged
    failed = failures_of(instance, result)
    assert set(failed) == {"second"}
    assert "column proteins is damaged" in failed["second"]
    compared = [c for c in result.get_asset_check_evaluations() if c.check_name == "precision_holds"]
    assert all(c.passed for c in compared)
    esm = {str(c.partition) for c in compared if c.asset_key == dg.AssetKey(ESM)}
    assert {name.partition("|")[2] for name in esm} == {"first"}
    assert instance.get_materialized_partitions(dg.AssetKey("predictions")) == {*lanes_of("first")}


@pytest.mark.parametrize(
    ("error", "line"), [(DeviceLostError("GPU-1 was lost"), "GPU-1"), (RuntimeError("CUDA"), "CUDA")]
)
def test_what_is_not_a_sample_s_fault_ends_the_run(
    platform: Platform,
    instance: dg.DagsterInstance,
    genomes: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    line: str,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    samples_of(genomes, platform, instance)
    monkeypatch.setattr(embeddings, "embed_lane", fails)
    result = shared_run("lane", lanes_of("first", "second"), instance, platform)
    assert not result.success
    assert line in str(result.get_step_failure_events()[0].step_failure_data)
    assert failures_of(instance, result) == {}


def test_a_run_of_which_no_sample_is_left_has_failed(
    platform: Platform, instance: dg.DagsterInstance, genomes: Path
) -> None:
    samples_of(genomes, platform, instance)
    result = shared_run("lane", lanes_of("first", "second"), instance, platform)  # nothing was read yet
    assert not result.success
    assert instance.get_materialized_partitions(dg.AssetKey("dnabert_embeddings")) == set()


# Which keys a run gets.


@given(
    st.lists(st.text("abcdefg-_", min_size=1, max_size=8), min_size=1, unique=True).flatmap(
        lambda order: st.tuples(
            st.just(order),
            st.lists(st.tuples(st.integers(0, 3), st.sampled_from(order)), min_size=2, unique=True),
        )
    )
)
def test_the_range_of_a_run_holds_all_its_keys(given: tuple[list[str], list[tuple[int, str]]]) -> None:
    order, chosen = given
    keys = [f"{rank}|{name}" for rank, name in chosen]
    tags = keys_tags(keys, order)
    (low, first), (high, last) = (tags[tag].split("|") for tag in RANGE_TAGS)
    for rank, name in chosen:
        assert int(low) <= rank <= int(high)
        assert order.index(first) <= order.index(name) <= order.index(last)
    assert samples_in(tags) == list(dict.fromkeys(name for _, name in chosen))


class Probe:
    """An asset that notes the keys of its run, and records nothing."""

    def __init__(self) -> None:
        self.keys: list[str] = []

        @dg.asset(partitions_def=LANES)
        def probe(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
            context.run.tags[DEFERRED_TAG] = "true"  # type: ignore[index]
            self.keys = [str(key) for key in keys_of(context)]
            return dg.MaterializeResult()

        self.job = dg.Definitions(assets=[probe], jobs=[dg.define_asset_job("probe", [probe])])

    def run(self, instance: dg.DagsterInstance, tags: dict[str, str]) -> bool:
        job = self.job.resolve_job_def("probe")
        return job.execute_in_process(
            instance=instance, tags=tags, run_config=QUIET, raise_on_error=False
        ).success


def ranged(start: str, end: str) -> dict[str, str]:
    return dict(zip(RANGE_TAGS, (start, end), strict=True))


def test_a_range_over_both_dimensions_is_their_product(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions(str(SAMPLES.name), ["c", "a", "b", "d"])
    probe = Probe()
    assert probe.run(instance, ranged("0|a", "1|b"))
    assert probe.keys == ["0|a", "0|b", "1|a", "1|b"]
    assert probe.run(instance, ranged("1|c", "1|b"))
    assert probe.keys == ["1|c", "1|a", "1|b"]


def test_a_run_computes_what_was_asked_for_and_nothing_between(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions(str(SAMPLES.name), ["c", "a", "b", "d"])
    probe = Probe()
    for asked in (["0|d", "1|c"], ["1|b", "0|c"], ["0|a", "1|a", "1|d"]):
        assert probe.run(instance, keys_tags(asked, ["c", "a", "b", "d"]))
        assert probe.keys == asked


def test_samples_that_come_and_go_after_a_run_was_asked_for_change_nothing(
    instance: dg.DagsterInstance,
) -> None:
    order = ["a", "b", "c"]
    instance.add_dynamic_partitions(str(SAMPLES.name), order)
    tags = keys_tags(["0|a", "0|c"], order)
    instance.delete_dynamic_partition(str(SAMPLES.name), "b")
    instance.add_dynamic_partitions(str(SAMPLES.name), ["new", "b"])
    probe = Probe()
    assert probe.run(instance, tags)
    assert probe.keys == ["0|a", "0|c"]


def test_keys_that_are_none_are_refused(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions(str(SAMPLES.name), ["a", "b"])
    probe = Probe()
    for bad in ("x|a", "0|../a", "-1|a"):
        tags = ranged("0|a", "1|b") | {"virnucpro/keys": json.dumps(["0|a", bad])}
        assert not probe.run(instance, tags)
