"""What another sample of the same bytes has computed is linked: variants and copies cost only what is different."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from torture.pipeline import RANKS, Pipeline, write_reads
from virnucpro_core.devices.compute import Compute, LoaderSettings
from virnucpro_core.engine.shards import Entry
from virnucpro_core.models.classifier import Classifier, load_classifier
from virnucpro_core.models.profiles import DEMO, resolve_profile
from virnucpro_core.models.store import ModelStore
from virnucpro_core.pipeline.embed import embed_lane
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.retention import release
from virnucpro_core.pipeline.score import merge_lane, score_lane
from virnucpro_core.pipeline.steps import call_sample, chunk_sample, translate_sample
from virnucpro_core.results.finished import read_results
from virnucpro_core.samples.naming import enter
from virnucpro_core.samples.products import DNABERT, EMBEDDINGS, ESM, PREDICTIONS
from virnucpro_core.samples.removal import remove_sample
from virnucpro_core.samples.sample import Sample, open_sample
from virnucpro_core.samples.settings import SampleSettings

COMPUTE = Compute("cpu", loader=LoaderSettings(workers=0))


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    made = Pipeline(tmp_path / "home", write_reads(tmp_path / "reads.fa", records=40))
    made.run()
    return made


def another_classifier(folder: Path) -> Path:
    state = load_classifier(DEMO / "classifier_300", torch.device("cpu")).state
    state["hidden_layer.weight"] = -state["hidden_layer.weight"]
    Classifier(state, device=torch.device("cpu")).save(folder)
    return folder


def computed(sample: Sample) -> dict[str, int]:
    """Compute the sample as the driver does. Returns how many shards of each product were computed, not taken over."""
    chunk_sample(sample)
    translate_sample(sample)
    sample = open_sample(sample.home, sample.name)
    own = Path(sample.settings.classifier) if sample.settings.classifier else None
    store = ModelStore(sample.home / "models")
    profile = resolve_profile("demo", sample.settings.chunk_size, store, classifier=own)
    found: dict[str, list[Entry]] = {name: [] for name in (*EMBEDDINGS, PREDICTIONS)}
    for rank in range(RANKS):
        lane = Lane(sample, profile, rank, RANKS)
        for product in EMBEDDINGS:
            embed_lane(lane, product, COMPUTE, on_shard=found[product].append)
        merge_lane(lane, on_shard=lambda _: None)
        score_lane(lane, COMPUTE, on_shard=found[PREDICTIONS].append)
    call_sample(Lane(sample, profile, 0, RANKS))
    return {name: len(entries) for name, entries in found.items()}


def test_settings_there_and_back_compute_nothing_the_third_time(pipeline: Pipeline) -> None:
    settings, before = pipeline.settings, pipeline.products()
    longer = enter(pipeline.home, "reads", [pipeline.reads], replace(settings, chunk_size=500))
    assert longer.name == "reads-500"
    assert min(computed(longer).values()) > 0
    again = enter(pipeline.home, "reads", [pipeline.reads], settings)
    assert again.name == "reads"
    assert set(computed(again).values()) == {0}
    assert pipeline.products() == before


def test_another_classifier_is_a_variant_with_the_same_embeddings(pipeline: Pipeline, tmp_path: Path) -> None:
    before, own = pipeline.products(), another_classifier(tmp_path / "ours")
    variant = enter(pipeline.home, "reads", [pipeline.reads], replace(pipeline.settings, classifier=str(own)))
    assert variant.name == "reads-ours"
    made = computed(variant)
    assert (made[DNABERT], made[ESM]) == (0, 0)
    assert made[PREDICTIONS] > 0
    assert pipeline.products() == before
    for product in EMBEDDINGS:
        files = sorted(variant.product(product).glob("*.h5"))
        assert files
        assert all(f.samefile(pipeline.folder / product / f.name) for f in files)
    # Cleaning or removing one of them takes nothing from the other.
    release(open_sample(pipeline.home, "reads"), "scores")
    assert set(computed(variant).values()) == {0}
    remove_sample(pipeline.home, "reads")
    assert set(computed(variant).values()) == {0}
    assert computed(enter(pipeline.home, "reads", [pipeline.reads], pipeline.settings))[ESM] == 0


def test_other_rules_for_proteins_share_what_they_do_not_change(pipeline: Pipeline) -> None:
    other = enter(pipeline.home, "reads", [pipeline.reads], replace(pipeline.settings, overlong="isolate"))
    made = computed(other)
    assert made[DNABERT] == 0
    assert made[ESM] > 0


def test_a_copy_under_another_name_costs_nothing_and_has_equal_calls(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    copy = shutil.copy(pipeline.reads, tmp_path / "copy.fa")
    sample = enter(pipeline.home, "copy", [Path(copy)], pipeline.settings)
    made = computed(sample)
    assert (made[DNABERT], made[ESM]) == (0, 0)
    files = [pipeline.home / "samples" / name / "results" / "contigs.tsv" for name in ("reads", "copy")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert read_results(sample.results)["inputs"][0]["name"] == "copy.fa"


def test_what_is_damaged_there_is_not_taken_over(pipeline: Pipeline, tmp_path: Path) -> None:
    damaged = pipeline.folder / ESM / "00000.h5"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    copy = Path(shutil.copy(pipeline.reads, tmp_path / "copy.fa"))
    made = computed(enter(pipeline.home, "copy", [copy], pipeline.settings))
    assert (made[DNABERT], made[ESM]) == (0, 1)
    (pipeline.folder / "translations" / "proteins.bin").write_bytes(b"")
    third = Path(shutil.copy(pipeline.reads, tmp_path / "third.fa"))
    assert computed(enter(pipeline.home, "third", [third], pipeline.settings))[ESM] == 0


def test_without_links_on_the_disk_it_is_computed(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    copy = Path(shutil.copy(pipeline.reads, tmp_path / "copy.fa"))
    assert min(computed(enter(pipeline.home, "copy", [copy], pipeline.settings)).values()) > 0
    assert not pipeline.litter()


def test_a_variant_is_stored_with_its_sample(pipeline: Pipeline) -> None:
    variant = enter(pipeline.home, "reads", [pipeline.reads], SampleSettings(profile="demo"))
    assert open_sample(pipeline.home, variant.name).variant_of == "reads"
    assert variant.base == "reads"
