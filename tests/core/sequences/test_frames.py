"""Frames: the reference's frames, each different one once, in shards that lose none."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import reference_translation as reference
from virnucpro_core.errors import StoreError
from virnucpro_core.sequences.chunks import Chunks, write_chunks
from virnucpro_core.sequences.frames import Frames, shards_of, write_frames
from virnucpro_core.sequences.translation import FRAMES


def stores(folder: Path, sequences: list[str], size: int = 30) -> tuple[Chunks, Frames]:
    folder.mkdir(exist_ok=True)
    fasta = folder / "sample.fa"
    fasta.write_text("".join(f">r{i}\n{sequence}\n" for i, sequence in enumerate(sequences)))
    chunks = write_chunks([fasta], folder / "chunks", chunk_size=size)
    return chunks, write_frames(chunks, folder / "frames")


def sequences(seed: int, n: int = 200) -> list[str]:
    """Random records with N, some of them repeated and some empty."""
    rng = random.Random(seed)
    some = ["".join(rng.choices("ACGTNa", [5, 5, 5, 5, 1, 1], k=rng.randrange(80))) for _ in range(n // 2)]
    return [rng.choice(some) for _ in range(n)]


@pytest.mark.parametrize("seed", range(3))
def test_frames_are_the_references(tmp_path: Path, seed: int) -> None:
    records = sequences(seed)
    chunks, frames = stores(tmp_path, records)
    expected = [
        (f"r{i}_chunk_{k}{name}", letters.encode(), protein.encode())
        for i, record in enumerate(records)
        if record
        for k, start in enumerate(reference.chunk_starts(len(record), 30), 1)
        for name, letters, protein in reference.frames(record[start : start + 30])
    ]
    assert frames.frame_ids(0, frames.n_frames, chunks) == [name for name, *_ in expected]
    pairs = [(letters, protein) for _, letters, protein in expected]
    found = zip(frames.nucleotides[:], frames.proteins[:], strict=True)
    unique = list(dict.fromkeys(pairs))
    assert list(found) == unique
    assert [unique[u] for u in frames.frame_unique] == pairs
    assert frames.n_unique < frames.n_frames
    assert frames.protein_lengths.tolist() == [len(protein) for _, protein in unique]
    assert len(np.unique(frames.digests, axis=0)) == frames.n_unique
    assert frames.protein_lengths.dtype == np.int32
    assert frames.digests.shape == (frames.n_unique, 16)
    frames.store.verify()


@pytest.mark.parametrize("least", [1, 4, 8])
def test_open_frames_are_beside_the_same_stop_free_ones(tmp_path: Path, least: int) -> None:
    records = sequences(4)
    chunks, frames = stores(tmp_path, records, 60)
    opened = write_frames(chunks, tmp_path / "open", min_open=least)
    expected = [
        f"r{i}_chunk_{k}{name}"
        for i, record in enumerate(records)
        if record
        for k, start in enumerate(reference.chunk_starts(len(record), 60), 1)
        for name, *_ in reference.open_frames(record[start : start + 60], least)
    ]
    ids, is_open = opened.frame_ids(0, opened.n_frames, chunks), opened.is_open(0, opened.n_frames)
    assert [name for name, one in zip(ids, is_open, strict=True) if one] == expected
    full = [name for name, one in zip(ids, is_open, strict=True) if not one]
    assert full == frames.frame_ids(0, frames.n_frames, chunks)
    proteins = [opened.proteins[u] for u in opened.frame_unique[~is_open].tolist()]
    assert proteins == [frames.proteins[u] for u in frames.frame_unique.tolist()]
    assert (opened.min_open, opened.n_open) == (least, len(expected))
    assert len(expected) > 5
    assert not frames.is_open(0, frames.n_frames).any()
    assert opened.digest != write_frames(chunks, tmp_path / "other", min_open=least + 1).digest
    assert "frame_open" not in frames.store
    assert "min_open" not in frames.attrs


def test_one_slice_with_two_proteins_is_two_unique_frames(tmp_path: Path) -> None:
    chunks, frames = stores(tmp_path, ["NNNATG", "NNNACG", "NNNATG"])
    ids = frames.frame_ids(0, frames.n_frames, chunks)
    first, second, third = (ids.index(f"r{i}_chunk_1F1") for i in range(3))
    u = frames.frame_unique[[first, second, third]].tolist()
    assert frames.nucleotides[u[0]] == frames.nucleotides[u[1]] == b"NNNA"
    assert (frames.proteins[u[0]], frames.proteins[u[1]]) == (b"M", b"T")
    assert u[0] == u[2] != u[1]


def test_shards_hold_every_unique_frame_once_with_one_length_mix(tmp_path: Path) -> None:
    _, frames = stores(tmp_path, sequences(7, 400))
    n = frames.n_shards(50)
    assert n == -(-frames.n_unique // 50)
    shards = [frames.shard(k, n) for k in range(n)]
    assert max(map(len, shards)) <= 50
    assert sorted(np.concatenate(shards)) == list(range(frames.n_unique))
    lengths = frames.protein_lengths
    assert (np.diff(lengths[frames.order]) >= 0).all()
    ties = np.diff(lengths[frames.order]) == 0
    assert (np.diff(frames.order)[ties] > 0).all()
    medians = [np.median(lengths[shard]) for shard in shards]
    assert max(medians) - min(medians) <= 1
    assert frames.n_shards() == 1


@given(n_unique=st.integers(0, 20_000_000), shard_rows=st.integers(2, 10_000))
def test_lanes_of_usual_numbers_have_equally_many_shards(n_unique: int, shard_rows: int) -> None:
    n = shards_of(n_unique, shard_rows)
    assert -(-n_unique // shard_rows) <= n <= n_unique
    if n_unique >= 24_000:
        assert [n % lanes for lanes in (1, 2, 3, 4, 6, 8)] == [0] * 6
    elif n_unique >= 8_000:
        assert [n % lanes for lanes in (1, 2, 4, 8)] == [0] * 4
    else:
        assert n == -(-n_unique // shard_rows)
    assert n <= max(48, -(-n_unique // shard_rows) + 23)
    assert shards_of(n_unique, 1) == n_unique


def test_same_records_same_store(tmp_path: Path) -> None:
    digests = {stores(tmp_path / name, sequences(1))[1].digest for name in ("one", "two")}
    assert len(digests) == 1


def test_a_sample_without_frames(tmp_path: Path) -> None:
    chunks, frames = stores(tmp_path, ["TTAATTAATTAATTAA", "", "AC", "AC-GT"])
    assert (chunks.n_records, chunks.n_chunks) == (4, 2)
    assert (frames.n_frames, frames.n_unique, frames.n_shards()) == (0, 0, 0)
    assert frames.frame_ids(0, 0, chunks) == []
    assert frames.proteins[:] == []
    assert frames.order.dtype == np.int64
    frames.store.verify()


def test_frame_names_and_damage(tmp_path: Path) -> None:
    assert FRAMES == ("F1", "F2", "F3", "R1", "R2", "R3")
    _, frames = stores(tmp_path, ["ACGACGACG"])
    file = frames.path / "proteins.bin"
    file.write_bytes(b"X" + file.read_bytes()[1:])
    with pytest.raises(StoreError, match="column proteins is damaged"):
        Frames.open(frames.path).store.verify()
