"""Folders as version 0.1.0 wrote them: today's code reads each, or says in one line that it cannot.

`tests/data/home_0_1_0` is a whole home with one sample (demo profile, chunks of 300, two records of which one is
empty) and a model folder. `tests/data/columns_v1` is a bare column store (tests/core/files/test_columns.py). Whoever
changes a format keeps these folders as they are and adds a new one beside them. What a product's identity is may
change with any version: the shards then count as stale and are computed again. So identities are not compared here.
"""

import hashlib
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.support import DATA
from virnucpro_core.engine.shards import ShardStore, ids_digest
from virnucpro_core.engine.telemetry import read_lines, read_progress
from virnucpro_core.errors import StoreError, VirnucproError, WeightsError
from virnucpro_core.files.digests import sha256_json
from virnucpro_core.files.manifest import verify
from virnucpro_core.models.classifier import load_classifier
from virnucpro_core.models.profiles import resolve_profile
from virnucpro_core.models.store import ModelStore
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.overview import overview
from virnucpro_core.pipeline.retention import require_results
from virnucpro_core.results.finished import read_results
from virnucpro_core.samples.naming import family
from virnucpro_core.samples.products import DNABERT, ESM, MERGED, PREDICTIONS
from virnucpro_core.samples.sample import open_sample, same_content
from virnucpro_core.sequences.chunks import Chunks
from virnucpro_core.sequences.frames import Frames

OLD = DATA / "home_0_1_0"
NAME = "kept"
CONTENT = "52f1897269a483f5875c4665a497f99cc1414d08a85c3edc75f379720c89f23d"
DATASETS = {
    DNABERT: ("embeddings", 64),
    ESM: ("embeddings", 64),
    MERGED: ("features", 128),
    PREDICTIONS: ("scores", 2),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy: opening a home may put locks into it."""
    return Path(shutil.copytree(OLD, tmp_path / "home"))


def _folder(home: Path) -> Path:
    return home / "samples" / NAME


def test_sample(home: Path) -> None:
    sample = open_sample(home, NAME)
    assert sample.content == CONTENT
    assert [(f.path, f.bytes) for f in sample.inputs] == [(Path("/data/kept.fa"), 1572)]
    settings = sample.settings
    assert (settings.chunk_size, settings.profile, settings.precision) == (300, "demo", "float32")
    assert (settings.cutoff, settings.shard_rows) == (0.5, 8)
    assert (sample.variant_of, sample.base) == ("", NAME)
    assert family(home, NAME) == [sample]  # variants are found beside it


def test_index_of_contents(home: Path) -> None:
    assert same_content(home, CONTENT) == [NAME]


def test_chunks_and_frames(home: Path) -> None:
    chunks = Chunks.open(_folder(home) / "chunks")
    chunks.store.verify()
    assert list(chunks.record_ids(0, 2)) == ["phage", "without_letters"]
    frames = Frames.open(_folder(home) / "translations")
    frames.store.verify()
    assert frames.attrs["chunks"] == chunks.digest
    assert frames.digests.shape == (2, 16)


@pytest.mark.parametrize("product", DATASETS)
def test_shards(home: Path, product: str) -> None:
    """Entry and bytes agree, and the rows are there in full."""
    dataset, width = DATASETS[product]
    store = ShardStore(_folder(home) / product, dataset=dataset, identity={})
    entry = store.entry(0)
    assert entry is not None
    assert (entry.shard, entry.rows, entry.width) == (0, 2, width)
    assert hashlib.sha256(store.path(0).read_bytes()).hexdigest() == entry.sha256
    frame_R, values_RW = store.read(0)
    assert (frame_R.shape, values_RW.shape, values_RW.dtype) == ((2,), (2, width), np.float32)
    with h5py.File(store.path(0)) as file:
        assert file.attrs["virnucpro_format"] == 1
        assert ids_digest(file["digest"][:]) == entry.ids_sha256


def test_a_virtual_shard_shows_its_sources(home: Path) -> None:
    parts = [
        ShardStore(_folder(home) / p, dataset="embeddings", identity={}).read(0)[1] for p in (DNABERT, ESM)
    ]
    merged = ShardStore(_folder(home) / MERGED, dataset="features", identity={}).read(0)[1]
    assert np.array_equal(merged, np.hstack(parts))


def test_lane_reuses_old_shards_or_says_that_they_are_of_another_version(home: Path) -> None:
    """Reused, or stale and computed again, or refused in words: never taken for damage."""
    sample = open_sample(home, NAME)
    lane = Lane(sample, resolve_profile("demo", 300, ModelStore(home / "models")), 0, 1)
    try:
        found = {str(lane.store(product).state(0, lane.ids(0))) for product in DATASETS}
    except StoreError as refused:
        found = {str(refused)}
    assert not [f for f in found if f not in ("done", "stale") and "of another version" not in f]


def test_results(home: Path) -> None:
    facts = read_results(_folder(home) / "results")
    assert facts["counts"]["records"] == 2
    assert facts["counts"]["calls"] == {"no_call": 1, "others": 0, "virus": 1}
    assert facts["digests"]["sample"] == CONTENT
    assert require_results(open_sample(home, NAME))["profile"] == "demo"


def test_telemetry(home: Path) -> None:
    file = _folder(home) / "telemetry" / f"{ESM}-0.jsonl"
    assert [line for line in read_lines(file) if "tokens" in line]
    progress = read_progress(file)
    assert progress is not None
    assert progress.seconds_left in (0, None)


def test_overview(home: Path) -> None:
    found = overview(home, NAME)
    assert (found.state, found.records) == ("called", 2)
    assert found.shards[ESM] == (1, 1)


def test_model_folder() -> None:
    """What `virnucpro models import classifier` wrote."""
    folder = OLD / "models" / "tiny-classifier"
    assert verify(folder)["kind"] == "classifier"
    classifier = load_classifier(folder, torch.device("cpu"))
    assert classifier.score(torch.zeros(3, 8)).shape == (3, 2)


def _of_another_format(file: Path) -> None:
    """The file as a version with another format would have written it: whole, with its own seal."""
    facts = json.loads(file.read_bytes())
    facts["format"] = 999
    facts.pop("seal", None)
    file.write_text(json.dumps(facts | {"seal": sha256_json(facts)}))


def _one_line(error: VirnucproError, names: str) -> bool:
    return "\n" not in str(error) and names in str(error)


def test_another_format_of_a_sample_is_refused_in_one_line(home: Path) -> None:
    _of_another_format(_folder(home) / "sample.json")
    with pytest.raises(StoreError) as caught:
        open_sample(home, NAME)
    assert _one_line(caught.value, "sample.json")


@pytest.mark.parametrize("store", ["chunks", "translations"])
def test_another_format_of_a_column_store_is_refused_in_one_line(home: Path, store: str) -> None:
    _of_another_format(_folder(home) / store / "store.json")
    with pytest.raises(StoreError) as caught:
        (Chunks if store == "chunks" else Frames).open(_folder(home) / store)
    assert _one_line(caught.value, store)


def test_another_format_of_a_shard_is_computed_again(home: Path) -> None:
    store = ShardStore(_folder(home) / ESM, dataset="embeddings", identity={})
    entry = store.entry(0)
    assert entry is not None
    _of_another_format(store.path(0).with_suffix(".json"))
    assert store.entry(0) is None
    assert store.state(0, entry.ids_sha256) != "done"


def test_another_format_of_a_model_is_refused_in_one_line(home: Path) -> None:
    folder = home / "models" / "tiny-classifier"
    facts = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(facts | {"format": 999}))
    with pytest.raises(WeightsError) as caught:
        verify(folder)
    assert _one_line(caught.value, "tiny-classifier")
