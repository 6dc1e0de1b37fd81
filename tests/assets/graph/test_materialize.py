"""The whole graph for one sample on two ranks, and what a second run, another rank or damage changes: nothing."""

from pathlib import Path

import dagster as dg
import h5py
import numpy as np
import pandas as pd
import pytest

from tests.assets.conftest import NAME, Finished, make_platform, run, whole_graph
from tests.support.digests import digest_of
from virnucpro_assets.graph.checks import (
    PrecisionAudits,
    Recorded,
    lane_findings,
    manifest_of,
    recorded_metadata,
    records_agree,
)
from virnucpro_assets.graph.partitions import SAMPLES, lane_key
from virnucpro_assets.platform.resource import Platform
from virnucpro_core.encoders import encoder
from virnucpro_core.pipeline.audit import audit_lane
from virnucpro_core.pipeline.precision import audit_precision
from virnucpro_core.samples.products import DNABERT, ESM, MERGED, PREDICTIONS
from virnucpro_core.samples.sample import Sample, register

PRODUCTS = (DNABERT, ESM, MERGED, PREDICTIONS)


def bytes_of(sample: Sample) -> dict[str, str]:
    """sha256 of every shard and result file; of run.json without the date."""
    files = [*sample.folder.glob("*/*.h5"), *sample.results.iterdir()]
    return {str(f.relative_to(sample.folder)): digest_of(f) for f in files}


def materialization(instance: dg.DagsterInstance, asset: str, key: str) -> dg.AssetMaterialization:
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[key]), limit=1
    ).records[0]
    assert found.asset_materialization is not None
    return found.asset_materialization


def test_the_whole_graph_on_two_ranks(
    sample: Sample, instance: dg.DagsterInstance, platform: Platform
) -> None:
    results = whole_graph(sample, instance, platform)
    assert all(r.success for r in results)
    checks = [e for r in results for e in r.get_asset_check_evaluations()]
    assert len(checks) == 4 + 2 * (5 + 5 + 5 + 4) + 1
    assert all(c.passed and c.blocking for c in checks)

    calls = pd.read_csv(sample.results / "contigs.tsv", sep="\t", keep_default_na=False)
    assert list(calls["record_id"]) == ["NC_001422.1", "HM138502.1", "KF527485.1", "empty"]
    assert list(calls.loc[calls["call"] == "no_call", "reason"]) == ["empty record"]

    shards = sorted((sample.folder / ESM).glob("*.h5"))
    assert len(shards) > 2 * platform.gpus
    key = lane_key(sample.name, 1)
    made = materialization(instance, ESM, key)
    assert set(made.metadata["manifest"].value) == {str(k) for k in range(1, len(shards), 2)}  # type: ignore[arg-type]
    for name in (
        "tokens_per_second",
        "sequences_per_second",
        "packing_efficiency",
        "io_wait_p99_ms",
        "precision",
    ):
        assert name in made.metadata
    assert 0.5 < float(made.metadata["packing_efficiency"].value) <= 1.0  # type: ignore[arg-type]
    assert str(made.metadata["throughput"].value).startswith("![throughput](data:image/png;base64,")
    observed = instance.fetch_observations(
        dg.AssetRecordsFilter(dg.AssetKey(ESM), asset_partitions=[key]), limit=1000
    ).records
    assert len(observed) == len(shards) // 2


def test_merged_features_are_both_encoders_side_by_side_and_copy_nothing(finished: Finished) -> None:
    folder = finished.sample.folder
    shards = list((folder / MERGED).glob("*.h5"))
    assert len(shards) > 2
    for merged in shards:
        with (
            h5py.File(merged) as both,
            h5py.File(folder / DNABERT / merged.name) as dnabert,
            h5py.File(folder / ESM / merged.name) as esm,
        ):
            assert both["features"].is_virtual
            expected = np.hstack([dnabert["embeddings"][:], esm["embeddings"][:]])
            assert both["features"][:].tobytes() == expected.tobytes()


def test_a_second_run_does_no_forward_pass_and_changes_nothing(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bytes_of(finished.sample)

    def forbidden(*_: object) -> None:
        raise AssertionError("a forward pass")

    monkeypatch.setattr(encoder.Encoder, "forward", forbidden)
    again = whole_graph(finished.sample, finished.instance, finished.platform)
    assert all(r.success for r in again)
    assert bytes_of(finished.sample) == before
    made = materialization(finished.instance, ESM, lane_key(NAME, 0))
    assert made.metadata["shards_resumed"].value == made.metadata["shards"].value


def test_only_the_damaged_shard_is_redone(finished: Finished) -> None:
    folder, before = finished.sample.folder, bytes_of(finished.sample)
    victim = folder / ESM / "00002.h5"
    times = {f: f.stat().st_mtime_ns for f in folder.glob(f"{ESM}/*.h5")}
    content = bytearray(victim.read_bytes())
    content[-3] ^= 0x40
    victim.write_bytes(bytes(content))
    key = lane_key(NAME, 0)
    assert run("lane", key, finished.instance, finished.platform).success
    assert bytes_of(finished.sample) == before
    assert {f for f, t in times.items() if f.stat().st_mtime_ns != t} == {victim}
    assert materialization(finished.instance, ESM, key).metadata["shards_damaged_and_redone"].value == 1


def test_bytes_do_not_depend_on_the_number_of_lanes(finished: Finished, tmp_path: Path) -> None:
    alone = make_platform(tmp_path / "alone", gpus=1)
    other = register(alone.folder, NAME, [f.path for f in finished.sample.inputs], finished.sample.settings)
    whole_graph(other, finished.instance, alone)
    assert bytes_of(other) == bytes_of(finished.sample)


def test_a_run_started_on_two_lanes_goes_on_on_one(finished: Finished) -> None:
    for file in (finished.sample.folder / ESM).glob("0000[02468].json"):
        file.unlink()
    key = lane_key(NAME, 0)
    assert run("lane", key, finished.instance, make_platform(finished.platform.folder, gpus=1)).success
    made = materialization(finished.instance, ESM, key)
    shards = int(str(made.metadata["shards"].value))
    assert len(made.metadata["manifest"].value) == shards  # type: ignore[arg-type]
    assert made.metadata["shards_resumed"].value == shards // 2


def test_a_check_fails_when_the_records_and_the_manifest_disagree(finished: Finished) -> None:
    key = lane_key(NAME, 0)
    store = finished.platform.lane(NAME, 0).store(ESM)
    frame_R, values_RD = store.read(0)
    with h5py.File(store.path(0)) as file:
        digest_RD = file["digest"][:]
    store.write(0, frame_R, digest_RD, values_RD + 1, maker={})

    lane = finished.platform.lane(NAME, 0)
    assert [f.name for f in audit_lane(lane, ESM) if not f.passed] == []
    recorded = {asset: recorded_metadata(finished.instance, key, asset) for asset in (DNABERT, ESM)}
    assert not records_agree(recorded[ESM], manifest_of(lane, ESM)).passed
    assert records_agree(recorded[DNABERT], manifest_of(lane, DNABERT)).passed


@pytest.mark.parametrize("gpus", [1, 3])
def test_the_checks_look_at_the_lane_that_was_recorded_whatever_the_number_of_gpus_now(
    finished: Finished, gpus: int
) -> None:
    platform = make_platform(finished.platform.folder, gpus=gpus)
    for asset in PRODUCTS:
        for rank in (0, 1):
            key = lane_key(NAME, rank)
            recorded = Recorded(finished.instance, platform, asset)
            found = lane_findings(recorded, key, PrecisionAudits(recorded, [key], platform.compute))
            assert [(f.name, f.facts) for f in found if not f.passed] == []
            assert len(found) >= 4


def test_a_finished_lane_that_is_materialized_again_keeps_what_was_measured(finished: Finished) -> None:
    key = lane_key(NAME, 0)
    before = materialization(finished.instance, ESM, key)
    assert run("lane", key, finished.instance, finished.platform).success
    again = materialization(finished.instance, ESM, key)
    assert again.metadata["shards_resumed"] == again.metadata["shards"]
    measured = set(before.metadata) - {"shards_resumed", "shard_table"}
    assert {name: again.metadata[name] for name in measured} == {
        name: before.metadata[name] for name in measured
    }
    assert before.metadata["tokens"].value > 0  # type: ignore[operator]


def test_a_lane_to_which_no_shard_falls_is_recorded_as_that(
    platform: Platform, instance: dg.DagsterInstance, genomes: Path
) -> None:
    instance.add_dynamic_partitions(str(SAMPLES.name), ["small"])
    small = register(platform.folder, "small", [genomes], platform.sample_settings(shard_rows=10_000))
    results = whole_graph(small, instance, platform)
    assert all(result.success for result in results)
    for asset in PRODUCTS:
        made = materialization(instance, asset, lane_key("small", 1))
        assert made.metadata["shards"].value == 0
        assert made.metadata["note"].value == "rank 1 has none of the sample's shards (1 in total)"
        assert set(made.metadata) == {"dagster/row_count", "shards", "world_size", "manifest", "note"}
    assert not small.telemetry(ESM, 1).exists()


def test_the_precision_audit_notices_rows_of_other_frames(finished: Finished) -> None:
    lane = finished.platform.lane(NAME, 0)
    compute = finished.platform.compute(lane)
    for product in (DNABERT, ESM):
        finding = audit_precision(lane, product, compute)
        assert finding.passed
        assert finding.facts["least_cosine"] > 0.999999
    store = lane.store(ESM)
    for shard in lane.shards:
        frame_R, values_RD = store.read(shard)
        store.write(shard, frame_R, lane.frames.digests[frame_R], values_RD[::-1], maker={})
    assert [f.name for f in audit_lane(lane, ESM) if not f.passed] == []
    finding = audit_precision(lane, ESM, compute)
    assert not finding.passed
    assert finding.facts["least_cosine"] < 0.999


def test_bad_input_is_one_line_and_never_retried(
    platform: Platform, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    file = tmp_path / "twice.fa"
    file.write_text(">a\nACGT\n>a\nACGT\n")
    instance.add_dynamic_partitions("sample", ["twice"])
    twice = register(platform.folder, "twice", [file], platform.sample_settings())
    result = run("sequences", "twice", instance, platform, raise_on_error=False)
    assert not result.success
    failure = result.get_step_failure_events()[0].step_failure_data.user_failure_data
    assert failure is not None
    assert "line 1" in str(failure.description)
    assert "line 3" in str(failure.description)
    assert failure.metadata["exit_code"].value == 2
    assert not [e for e in result.all_events if e.is_step_up_for_retry]
    assert twice.rejected.exists()


def test_an_unregistered_or_malformed_key_is_refused_by_the_asset_itself(
    platform: Platform, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("sample", ["nobody", ".."])
    for key in ("nobody", ".."):
        result = run("sequences", key, instance, platform, raise_on_error=False)
        failure = result.get_step_failure_events()[0].step_failure_data.user_failure_data
        assert failure is not None
        assert "sample" in str(failure.description)
