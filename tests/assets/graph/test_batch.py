"""Many small samples in one run: recorded like runs of their own, with one model load, and a bad one alone."""

from pathlib import Path

import dagster as dg
import pytest

from tests.assets.automation.test_sensors import ASSETS, requested
from tests.assets.conftest import SHARD_ROWS, whole_graph
from tests.assets.graph.test_materialize import bytes_of, materialization
from virnucpro_assets.automation.sensors import BATCH_SAMPLES, backlog, batches
from virnucpro_assets.definitions import defs
from virnucpro_assets.graph.batch import ASSETS as PRODUCTS
from virnucpro_assets.graph.partitions import SAMPLES, lane_key
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.platform.tags import batch_config, batch_tags
from virnucpro_assets.running.runs import QUIET
from virnucpro_core.encoders import loaded
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


def test_a_batch_records_what_runs_of_their_own_record_and_leaves_the_poison_to_one(
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
    result = defs.resolve_job_def("batch").execute_in_process(
        instance=instance,
        resources={"platform": platform},
        run_config=QUIET | batch_config([s.name for s in (first, poison, second)], 1, hand_over=True),
        tags=batch_tags(1),
    )
    assert result.success
    assert sorted(loads) == ["dnabert-s", "esm2"]
    assert poison.rejected.exists()
    done = {name: instance.get_materialized_partitions(dg.AssetKey(name)) for name in ASSETS}
    lanes = {lane_key(s, rank) for s in ("first", "second") for rank in (0, 1)}
    assert done == {name: lanes if name in ASSETS[2:6] else {"first", "second"} for name in ASSETS}
    # News that the automation acts on is there of the poison alone.
    after = dg.evaluate_automation_conditions(defs, instance, cursor=before.cursor)
    assert requested(after) == {"chunks": {"poison"}, "translations": {"poison"}}

    recorded = materialization(instance, "esm_embeddings", lane_key("first", 0))
    named = {(c.asset_check_key, c.partition) for c in result.get_asset_check_evaluations()}
    made = bytes_of(first)
    alone = whole_graph(first, instance, platform)
    assert bytes_of(first) == made
    again = materialization(instance, "esm_embeddings", lane_key("first", 0))
    assert again.tags["dagster/data_version"] == recorded.tags["dagster/data_version"]
    assert again.metadata["manifest"] == recorded.metadata["manifest"]
    assert {(c.asset_check_key, c.partition) for r in alone for c in r.get_asset_check_evaluations()} == {
        (key, partition) for key, partition in named if "first" in str(partition)
    }


def test_only_what_shares_a_model_load_to_advantage_is_batched(
    platform: Platform, instance: dg.DagsterInstance, genomes: Path
) -> None:
    samples = samples_of(genomes, platform, instance)
    assert batches(samples, [0, 0, 0]) == []
    assert sorted(n for _, share in batches(samples, [0, 0]) for n in share) == ["first", "poison", "second"]
    many = batches(samples * BATCH_SAMPLES, [0, 0])
    assert {rank for rank, _ in many} == {0, 1}
    assert max(len(share) for _, share in many) == BATCH_SAMPLES


def test_a_rank_that_is_behind_is_given_less(
    platform: Platform, instance: dg.DagsterInstance, genomes: Path
) -> None:
    samples = samples_of(genomes, platform, instance)
    names = [s.name for s in samples]
    job = defs.resolve_job_def("batch")
    for ended in (False, True):
        config = batch_config(names * 20, 1, hand_over=True)
        run = instance.create_run_for_job(job, run_config=config, tags=batch_tags(1))
        if ended:
            instance.report_run_canceled(run)
    assert backlog(instance, 2) == [0, 60]
    assert {rank: len(share) for rank, share in batches(samples * 10, [0, 20])} == {0: 25, 1: 5}
    assert backlog(instance, 1) == [0]


def test_every_asset_of_the_graph_has_its_place_in_a_batch() -> None:
    assert tuple(PRODUCTS) == ASSETS
