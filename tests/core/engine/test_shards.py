"""A shard counts only if its entry and its bytes verify; what does not is named missing, stale or damaged."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_core.engine.shards import Entry, ShardStore, ids_digest, lane_shards
from virnucpro_core.errors import StoreError

ROWS, WIDTH = 7, 5


def _rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (
        np.arange(ROWS, dtype=np.int64) * 3,
        rng.integers(0, 256, (ROWS, 16), dtype=np.uint8),
        rng.standard_normal((ROWS, WIDTH)).astype(np.float32),
    )


def _store(folder: Path, name: str = "esm", **identity: str) -> ShardStore:
    return ShardStore(folder / name, dataset="embeddings", identity={"model": "m"} | identity)


@pytest.fixture
def written(tmp_path: Path) -> tuple[ShardStore, Entry, str]:
    frame_R, digest_RD, values_RW = _rows()
    store = _store(tmp_path)
    return store, store.write(3, frame_R, digest_RD, values_RW, maker={"rank": 0}), ids_digest(digest_RD)


def test_round_trip(written: tuple[ShardStore, Entry, str]) -> None:
    store, entry, ids = written
    assert store.require(3, ids) == entry == store.entry(3)
    frame_R, values_RW = store.read(3)
    assert np.array_equal(frame_R, _rows()[0])
    assert values_RW.tobytes() == _rows()[2].tobytes()


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    entries = [_store(tmp_path, name).write(0, *_rows(), maker={"rank": r}) for r, name in enumerate("ab")]
    assert entries[0].sha256 == entries[1].sha256


def test_another_identity_or_other_ids_make_it_stale(
    written: tuple[ShardStore, Entry, str], tmp_path: Path
) -> None:
    store, _, ids = written
    assert _store(tmp_path, model="other").state(3, ids) == "stale"
    assert store.state(3, ids_digest(_rows(1)[1])) == "stale"
    assert store.state(4, ids) == "missing"


def test_every_flipped_byte_of_the_file_is_damage(written: tuple[ShardStore, Entry, str]) -> None:
    store, _, ids = written
    path, whole = store.path(3), store.path(3).read_bytes()
    for offset in range(0, len(whole), 61):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        assert store.state(3, ids) == "damaged", offset
    for cut in (b"", whole[:-1], whole + b"\0"):
        path.write_bytes(cut)
        assert store.state(3, ids) == "damaged"
    path.unlink()
    assert store.state(3, ids) == "damaged"


def test_every_change_of_the_entry_is_noticed(written: tuple[ShardStore, Entry, str]) -> None:
    store, entry, ids = written
    file = store.path(3).with_suffix(".json")
    whole = file.read_bytes()
    for offset in range(len(whole)):
        changed = whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :]
        file.write_bytes(changed)
        read = store.entry(3)
        assert read is None or read == entry, (offset, changed)
    values = json.loads(whole)
    file.write_text(json.dumps(values | {"rows": values["rows"] + 1}))
    assert store.state(3, ids) == "damaged"
    file.write_bytes(whole)
    assert store.state(3, ids) == "done"


def test_swapped_shards_are_stale(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for shard in (0, 1):
        store.write(shard, *_rows(shard), maker={})
    for suffix in (".h5", ".json"):
        a, b = store.path(0).with_suffix(suffix), store.path(1).with_suffix(suffix)
        first, second = a.read_bytes(), b.read_bytes()
        a.write_bytes(second)
        b.write_bytes(first)
    for shard in (0, 1):
        with pytest.raises(StoreError, match=f"shard {shard} of esm is damaged"):
            store.require(shard, ids_digest(_rows(shard)[1]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_published(tmp_path: Path, bad: float) -> None:
    frame_R, digest_RD, values_RW = _rows()
    values_RW[2, 1] = bad
    store = _store(tmp_path)
    with pytest.raises(StoreError, match="NaN or infinite"):
        store.write(0, frame_R, digest_RD, values_RW, maker={})
    assert not store.path(0).exists()


def test_a_virtual_shard_copies_nothing_and_shows_missing_sources_as_nan(tmp_path: Path) -> None:
    frame_R, digest_RD, values_RW = _rows()
    left, right = _store(tmp_path, "left"), _store(tmp_path, "right")
    pairs = [
        (s, s.write(0, frame_R, digest_RD, v, maker={}))
        for s, v in ((left, values_RW), (right, values_RW * 2))
    ]
    merged = ShardStore(tmp_path / "merged", dataset="features", identity={})
    entry = merged.write_virtual(0, frame_R, digest_RD, pairs)
    assert np.array_equal(merged.read(0)[1], np.hstack([values_RW, values_RW * 2]))
    assert entry.sources == tuple(e.sha256 for _, e in pairs)
    with h5py.File(merged.path(0)) as file:
        assert file["features"].is_virtual
    right.path(0).unlink()
    with h5py.File(merged.path(0)) as file:
        values = file["features"][:]
    assert np.array_equal(values[:, :WIDTH], values_RW)
    assert np.isnan(values[:, WIDTH:]).all()
    with pytest.raises(StoreError, match="a shard that it links to could not be read"):
        merged.read(0)


@given(st.integers(0, 500), st.integers(1, 16))
def test_lanes_share_all_shards_once_and_evenly(n_shards: int, world: int) -> None:
    lanes = [list(lane_shards(n_shards, rank, world)) for rank in range(world)]
    assert sorted(k for lane in lanes for k in lane) == list(range(n_shards))
    assert max(map(len, lanes)) - min(map(len, lanes)) <= 1
