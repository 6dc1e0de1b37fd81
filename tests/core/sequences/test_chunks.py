"""Chunks: the published arithmetic, and a store that loses nothing."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import reference_translation as reference
from virnucpro_core.errors import InputError, StoreError, UsageError
from virnucpro_core.sequences import chunks as chunks_module
from virnucpro_core.sequences.chunks import Chunks, chunk_starts, write_chunks

SEQUENCES = st.lists(st.text("ACGTNacgt", max_size=60), min_size=1, max_size=12)


def store_of(sequences: list[str], folder: Path, size: int) -> Chunks:
    fasta = folder / "sample.fa"
    fasta.write_text("".join(f">r{i} text {i}\n{sequence}\n" for i, sequence in enumerate(sequences)))
    return write_chunks([fasta], folder / "chunks", chunk_size=size)


@given(st.integers(1, 5000), st.integers(1, 600))
def test_starts_are_the_published_ones_and_cover_the_record(length: int, size: int) -> None:
    starts = chunk_starts(length, size).tolist()
    assert starts == reference.chunk_starts(length, size)
    ends = [min(start + size, length) for start in starts]
    assert starts[0] == 0
    assert ends[-1] == length
    assert all(start <= end for start, end in zip(starts[1:], ends, strict=False))
    assert len(starts) == -(-length // size)


def test_an_empty_record_has_no_chunk() -> None:
    assert chunk_starts(0, 500).tolist() == []


@settings(max_examples=40)
@given(SEQUENCES, st.integers(3, 20), st.integers(1, 80))
def test_store_holds_every_record_and_chunk(sequences: list[str], size: int, n_bases: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        chunks = store_of(sequences, Path(folder), size)
        expected = [
            (f"r{i}_chunk_{k}", sequence[start : start + size].encode())
            for i, sequence in enumerate(sequences)
            if sequence
            for k, start in enumerate(reference.chunk_starts(len(sequence), size), 1)
        ]
        assert chunks.n_records == len(sequences)
        assert chunks.record_ids(0, chunks.n_records) == [f"r{i}" for i in range(len(sequences))]
        assert chunks.reasons[:] == [b"" if sequence else b"empty record" for sequence in sequences]
        assert [chunks.sequence(i) for i in range(chunks.n_records)] == [s.encode() for s in sequences]
        assert chunks.chunk_ids(0, chunks.n_chunks) == [name for name, _ in expected]
        found, following = [], 0
        for lo, bases, starts, lengths in chunks.blocks(n_bases):
            assert lo == following
            following += len(starts)
            assert len(bases) <= n_bases or len(starts) == 1
            found += [bases[s : s + n] for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
        assert found == [letters for _, letters in expected]


def test_batches_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = ["ACGT" * 5, "", "ACU" * 9, "AC-GT", "NNN"]
    (tmp_path / "one").mkdir()
    whole = store_of(sequences, tmp_path, 7)
    monkeypatch.setattr(chunks_module, "_BATCH_RECORDS", 1)
    assert store_of(sequences, tmp_path / "one", 7).digest == whole.digest


def test_what_the_store_says_of_its_records(tmp_path: Path) -> None:
    chunks = store_of(["ACUGu", "AC-GT"], tmp_path, 300)
    assert chunks.sequences[:] == [b"ACTGt", b"AC-GT"]
    assert chunks.uracils.tolist() == [2, 0]
    assert chunks.attrs["uracils"] == 2
    assert chunks.reasons[1] == b"letter '-' at position 3 (line 4) is not a nucleotide code"
    assert chunks.chunk_offsets.tolist() == [0, 1, 1]
    assert (chunks.file.tolist(), chunks.number.tolist()) == ([0, 0], [1, 2])
    assert chunks.descriptions[0] == b"text 0"
    (file,) = chunks.attrs["files"]
    assert (file["name"], file["size"], len(file["sha256"])) == ("sample.fa", 34, 64)


def test_names_in_any_order(tmp_path: Path) -> None:
    chunks = store_of(["ACGTACGT", "", "ACGTA"], tmp_path, 3)
    names = chunks.chunk_ids(0, chunks.n_chunks)
    order = np.array([4, 0, 2, 2])
    assert chunks.names(order) == [names[i] for i in order]
    assert chunks.names(order[:0]) == []
    assert chunks.locate(order).record.tolist() == [2, 0, 0, 0]


def test_records_keep_the_order_in_which_files_were_given(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("b.fa", "a.fa", "c.fa")]
    for file in files:
        file.write_text(f">{file.stem}\nACGT\n")
    one = write_chunks(files, tmp_path / "one", chunk_size=300)
    two = write_chunks(files[::-1], tmp_path / "two", chunk_size=300)
    assert one.record_ids(0, 3) == ["b", "a", "c"]
    assert two.record_ids(0, 3) == ["c", "a", "b"]


def test_refused_input_leaves_no_store(tmp_path: Path) -> None:
    (tmp_path / "bad.fa").write_text(">a\nACGT\n>a\nACGT\n")
    with pytest.raises(InputError, match="same id"):
        write_chunks([tmp_path / "bad.fa"], tmp_path / "out", chunk_size=300)
    assert os.listdir(tmp_path) == ["bad.fa"]  # noqa: PTH208
    with pytest.raises(UsageError, match="chunk size 2"):
        write_chunks([tmp_path / "bad.fa"], tmp_path / "out", chunk_size=2)


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fasta = tmp_path / "growing.fa"
    fasta.write_text(">a\nACGT\n")

    def grow(writer: object, batch: object) -> None:
        with fasta.open("a") as stream:
            stream.write(">b\nACGT\n")

    monkeypatch.setattr(chunks_module, "_append", grow)
    with pytest.raises(InputError, match=r"growing\.fa: changed while it was read"):
        write_chunks([fasta], tmp_path / "out", chunk_size=300)


def test_open_refuses_another_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        Chunks.open(tmp_path)
