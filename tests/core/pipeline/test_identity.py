"""What a product is depends on the versions, the precision and the kernel that made it: others never pass for it."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from torture.pipeline import Pipeline, write_reads
from virnucpro_core.devices.compute import Compute, LoaderSettings
from virnucpro_core.errors import StoreError
from virnucpro_core.pipeline.embed import embed_lane
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.layers import EVERYTHING, open_layers
from virnucpro_core.pipeline.retention import Keep, release
from virnucpro_core.pipeline.score import merge_lane, score_lane
from virnucpro_core.pipeline.steps import chunk_sample, frames_note, translate_sample
from virnucpro_core.samples.products import (
    CHUNKS,
    CONSENSUS,
    DNABERT,
    EMBEDDINGS,
    ESM,
    MERGED,
    PREDICTIONS,
    PRODUCTS,
    SHARDED,
    TRANSLATIONS,
)

COMPUTE = Compute("cpu", loader=LoaderSettings(workers=0))


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    made = Pipeline(tmp_path / "home", write_reads(tmp_path / "reads.fa", records=40))
    made.run()
    return made


def lane_of(pipeline: Pipeline, **changed: str) -> Lane:
    return replace(pipeline.lane(pipeline.register(), 0), **changed)  # type: ignore[arg-type]


def states(lane: Lane) -> dict[str, set[str]]:
    return {name: {lane.store(name).state(k, lane.ids(k)) for k in lane.shards} for name in SHARDED}


def raise_version(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(PRODUCTS, name, replace(PRODUCTS[name], version="another"))


def test_the_table_is_the_graph_in_its_order() -> None:
    seen: set[str] = set()
    for name, product in PRODUCTS.items():
        assert product.name == name
        assert set(product.sources) <= seen, name
        seen.add(name)
    assert tuple(name for name, product in PRODUCTS.items() if product.encoder) == EMBEDDINGS
    assert SHARDED == (DNABERT, ESM, MERGED, PREDICTIONS)


@pytest.mark.parametrize("name", SHARDED)
def test_another_version_makes_the_product_and_what_follows_from_it_stale(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert set().union(*states(lane_of(pipeline)).values()) == {"done"}
    raise_version(monkeypatch, name)
    touched = {name}
    for product in PRODUCTS.values():
        if touched & set(product.sources):
            touched.add(product.name)
    expected = {other: {"stale" if other in touched else "done"} for other in SHARDED}
    assert states(lane_of(pipeline)) == expected


@pytest.mark.parametrize("name", [CHUNKS, TRANSLATIONS])
def test_another_version_of_the_sequences_is_made_anew_and_nothing_is_computed_from_the_old(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sample = pipeline.register()
    raise_version(monkeypatch, name)
    with pytest.raises(StoreError, match=f"{name} are of another version of the program; materialize {name}"):
        embed_lane(pipeline.lane(sample, 0), ESM, COMPUTE, on_shard=lambda _: None)
    if name == CHUNKS:
        with pytest.raises(StoreError, match="chunks are of another version"):
            translate_sample(sample)
    made = (chunk_sample(sample), translate_sample(sample))[(CHUNKS, TRANSLATIONS).index(name)]
    assert made.attrs["version"] == "another"
    translate_sample(sample)
    assert set().union(*states(lane_of(pipeline)).values()) == {"stale"}


def test_another_kernel_is_another_embedding_and_never_mixed_with_the_first(pipeline: Pipeline) -> None:
    assert lane_of(pipeline).kernel(ESM) == "reference"
    assert set().union(*states(lane_of(pipeline, attention="reference")).values()) == {"done"}
    other = lane_of(pipeline, attention="triton")
    assert set().union(*states(other).values()) == {"stale"}
    with pytest.raises(StoreError, match="shard 0 of dnabert_embeddings is stale"):
        merge_lane(other, on_shard=lambda _: None)
    with pytest.raises(StoreError, match="is stale"):
        score_lane(other, COMPUTE, on_shard=lambda _: None)


def test_the_kernel_follows_the_precision_where_none_is_asked_for(pipeline: Pipeline) -> None:
    lane = pipeline.lane(pipeline.register(), 0)
    kernels = {}
    for precision in ("float32", "float16", "fp8"):
        sample = replace(lane.sample, settings=replace(lane.sample.settings, precision=precision))  # type: ignore[arg-type]
        asked = replace(lane, sample=sample)
        kernels[precision] = {name: (asked.precision(name), asked.kernel(name)) for name in EMBEDDINGS}
    assert kernels == {
        "float32": {DNABERT: ("float32", "reference"), ESM: ("float32", "reference")},
        "float16": {DNABERT: ("float16", "triton"), ESM: ("float16", "triton")},
        "fp8": {DNABERT: ("float16", "triton"), ESM: ("fp8", "triton")},
    }


def test_a_shard_and_the_results_say_what_made_them(pipeline: Pipeline) -> None:
    lane = lane_of(pipeline)
    with h5py.File(lane.store(ESM).path(0)) as file:
        identity = json.loads(file.attrs["identity"])
    assert {key: identity[key] for key in ("product", "version", "precision", "attention", "overlong")} == {
        "product": ESM,
        "version": PRODUCTS[ESM].version,
        "precision": "float32",
        "attention": "reference",
        "overlong": "truncate",
    }
    products = json.loads((lane.sample.results / "run.json").read_bytes())["products"]
    assert list(products) == sorted(PRODUCTS)
    assert products[DNABERT] == {
        "version": PRODUCTS[DNABERT].version,
        "precision": "float32",
        "attention": "reference",
    }
    assert products[CONSENSUS] == {"version": PRODUCTS[CONSENSUS].version}


@pytest.mark.parametrize("keep", ["all", "scores", "results"])
def test_finished_results_of_a_kept_version_stay_and_new_ones_carry_the_new_version(
    pipeline: Pipeline, keep: Keep
) -> None:
    assert PRODUCTS[CONSENSUS].kept == ("2",)
    assert PRODUCTS[CONSENSUS].version == "3"
    lane = lane_of(pipeline)
    release(lane.sample, keep)
    file = lane.sample.results / "run.json"
    facts = json.loads(file.read_bytes())
    assert facts["products"][CONSENSUS] == {"version": "3"}
    for version, stays in (("2", True), ("1", False), ("4", False)):
        facts["products"][CONSENSUS]["version"] = version
        file.write_text(json.dumps(facts))
        assert (open_layers(lane, recorded=True) == ()) == stays
    # Another difference is not excused by it.
    facts["products"] |= {CONSENSUS: {"version": "2"}, ESM: facts["products"][ESM] | {"version": "2"}}
    file.write_text(json.dumps(facts))
    assert open_layers(lane, recorded=True) != ()


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_cleaned_sample_of_another_version_or_kernel_is_computed_again(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    release(pipeline.register(), "results")
    assert open_layers(lane_of(pipeline)) == ()
    assert open_layers(lane_of(pipeline, attention="triton")) == EVERYTHING
    raise_version(monkeypatch, name)
    assert open_layers(lane_of(pipeline)) == EVERYTHING


def test_open_frames_are_other_frames_and_what_follows_from_them_is_stale(pipeline: Pipeline) -> None:
    lane = lane_of(pipeline)
    assert "min_open" not in lane.recipes[TRANSLATIONS]
    for least in (20, 25):  # then another least length
        settings = replace(lane.sample.settings, frames="open", min_open=least)
        opened = replace(lane.sample, settings=settings)
        with pytest.raises(StoreError, match="translations are of other settings of --frames or --min-open"):
            embed_lane(pipeline.lane(opened, 0), ESM, COMPUTE, on_shard=lambda _: None)
        made = translate_sample(opened)
        assert (made.min_open, made.n_open > 0) == (least, True)
        assert "done" not in set().union(*states(pipeline.lane(opened, 0)).values())
        assert pipeline.lane(opened, 0).recipes[TRANSLATIONS]["min_open"] == str(least)
    translate_sample(lane.sample)
    assert set().union(*states(lane_of(pipeline)).values()) == {"done"}


def test_the_results_say_if_the_classifier_knows_other_frames(pipeline: Pipeline) -> None:
    lane = lane_of(pipeline)
    opened = replace(lane.sample, settings=replace(lane.sample.settings, frames="open", min_open=20))
    learned = replace(lane.profile, min_open=20)
    assert frames_note(lane) == frames_note(replace(lane, sample=opened, profile=learned)) == ""
    only_full = (
        "The classifier was trained on stop-free frames only; here it scores open frames of 20 or more"
    )
    assert frames_note(replace(lane, sample=opened)).startswith(only_full)
    assert frames_note(replace(lane, profile=learned)).endswith(
        "here it scores stop-free frames only. Give --frames open."
    )
    other = frames_note(replace(lane, sample=opened, profile=replace(learned, min_open=30)))
    assert "trained on open frames of 30 or more amino acids too; here it scores open frames of 20" in other
