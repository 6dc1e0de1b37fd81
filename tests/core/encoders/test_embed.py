"""`Encoder.embed` and `embed_fasta`: one row a sequence, whatever is beside it, and refusals that name their place."""

import gzip
import logging
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro_core.encoders.embed_fasta import embed_fasta
from virnucpro_core.encoders.encoder import Encoder, Kind, load_encoder
from virnucpro_core.encoders.operations import Linear, ReferenceOperations, least_rows
from virnucpro_core.encoders.packing import PackedBatch
from virnucpro_core.encoders.tokenizers import ESM2_LETTERS
from virnucpro_core.errors import DeviceError, InputError, SequenceError, StoreError, UsageError
from virnucpro_core.models.profiles import DEMO

FOLDERS: dict[Kind, str] = {"esm2": "esm2", "dnabert-s": "dnabert_s"}
ENCODERS = {kind: load_encoder(kind, DEMO / folder) for kind, folder in FOLDERS.items()}
LETTERS = {"esm2": ESM2_LETTERS[:20].decode(), "dnabert-s": "ACGT"}
PROTEINS = ["MKTAYIAKQR", "MSILV", "MKTAYIAKQR", "M", "GATTACAW" * 30]


@pytest.fixture(params=FOLDERS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return ENCODERS[request.param]


@pytest.fixture
def esm2() -> Encoder:
    """One of its own, free to be changed."""
    return load_encoder("esm2", DEMO / "esm2")


@settings(max_examples=30)
@given(st.data(), st.sampled_from(list(FOLDERS)), st.integers(1, 3000))
def test_a_row_s_bits_do_not_depend_on_what_is_beside_it(
    data: st.DataObject, kind: Kind, budget: int
) -> None:
    """Alone, among others, in other batches, by another order: the same bits on the CPU."""
    short, long = (
        st.text(LETTERS[kind], min_size=1, max_size=15),
        st.text(LETTERS[kind], min_size=1, max_size=400),
    )
    sequences = data.draw(st.lists(st.one_of(short, long), min_size=1, max_size=12))
    encoder = ENCODERS[kind]
    together = encoder.embed(sequences)
    alone = np.concatenate([encoder.embed([sequence]) for sequence in sequences])
    assert np.array_equal(together, alone)
    assert np.array_equal(encoder.embed(sequences[::-1], token_budget=budget)[::-1], together)


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 256), (256, 64), (320, 960), (1280, 320)])
def test_a_product_s_rows_do_not_depend_on_how_many_there_are(inputs: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight_OI, h_TI = (
        torch.randn(outputs, inputs, generator=generator),
        torch.randn(2048, inputs, generator=generator),
    )
    x_TO, operations = torch.randn(2048, outputs, generator=generator), ReferenceOperations(torch.float32)
    linear = Linear(weight_OI, torch.randn(outputs, generator=generator))
    whole, added = operations.linear(h_TI, linear), operations.add_linear(x_TO.clone(), h_TI, linear)
    for rows in [*range(1, 20), 33, 64, 65, least_rows(inputs) - 1, least_rows(inputs), 500, 2047]:
        assert torch.equal(operations.linear(h_TI[:rows], linear), whole[:rows])
        assert torch.equal(operations.add_linear(x_TO[:rows].clone(), h_TI[:rows], linear), added[:rows])


def test_rows_are_float32_in_the_order_given_and_letters_may_be_bytes(encoder: Encoder) -> None:
    sequences = PROTEINS if encoder.kind == "esm2" else ["ACGTACGT", "AC", "ACGTACGT", "A", "GATTACA" * 30]
    rows = encoder.embed(sequences)
    assert rows.shape == (5, encoder.dim)
    assert rows.dtype == np.float32
    assert np.array_equal(rows[0], rows[2])
    assert np.array_equal(encoder.embed([s.encode() for s in sequences]), rows)
    np.testing.assert_allclose(encoder.embed(sequences, float32=True), rows, rtol=2e-5, atol=2e-5)
    assert encoder.embed([]).shape == (0, encoder.dim)


def test_more_sequences_than_a_block(monkeypatch: pytest.MonkeyPatch, esm2: Encoder) -> None:
    expected = esm2.embed(PROTEINS)
    monkeypatch.setattr("virnucpro_core.encoders.encoder.BLOCK_SEQUENCES", 2)
    assert np.array_equal(esm2.embed(PROTEINS), expected)
    with pytest.raises(SequenceError, match="sequence 4: letter 'j' at residue 2") as caught:
        esm2.embed([*PROTEINS[:4], "MjK"])
    assert (caught.value.sequence, caught.value.letter) == (4, 1)


def test_a_stop_at_the_end_is_no_residue_and_said_once(
    esm2: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(esm2.embed([f"{p}*" for p in PROTEINS]), esm2.embed(PROTEINS))
    assert caplog.messages == ["5 sequences end in a stop (*), which is no residue: left out"]
    with pytest.raises(SequenceError, match=r"sequence 1: letter '\*' at residue 2 "):
        esm2.embed(["MK", "M*K*"])
    with pytest.raises(SequenceError, match="sequence 0: an empty sequence"):
        esm2.embed(["*"])


def test_what_is_no_list_of_sequences_is_refused(encoder: Encoder) -> None:
    with pytest.raises(UsageError, match="a list of sequences is wanted"):
        encoder.embed("ACGT")
    with pytest.raises(SequenceError, match="sequence 1: letter 'é' at place 3 "):
        encoder.embed(["ACGT", "ACé"])
    with pytest.raises(SequenceError, match=r"sequence 1: letter ' ' at (base|residue) 3 "):
        encoder.embed(["ACGT", "AC GT"])


Forward = Callable[[PackedBatch], torch.Tensor]


def _full(forward: Forward, room: int) -> Forward:
    def small(batch: PackedBatch) -> torch.Tensor:
        if batch.n_tokens > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(batch)

    return small


def _spoiled(forward: Forward, value: float) -> Forward:
    def spoiled(batch: PackedBatch) -> torch.Tensor:
        rows_BD = forward(batch).clone()
        rows_BD[0] = value
        return rows_BD

    return spoiled


def test_memory_that_runs_out_halves_the_batches(esm2: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = [p + "K" * n for n in range(20) for p in PROTEINS[:2]]
    expected = esm2.embed(sequences)
    monkeypatch.setattr(esm2, "forward", _full(esm2.forward, 40))
    assert np.array_equal(esm2.embed(sequences), expected)
    with pytest.raises(DeviceError, match=r"one sequence of 242 tokens does not fit the memory of cpu"):
        esm2.embed(PROTEINS)


def test_rows_that_are_not_finite_are_computed_again_or_refused(
    esm2: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = esm2.embed(PROTEINS)
    monkeypatch.setattr(esm2, "forward", _spoiled(esm2.forward, np.nan))
    monkeypatch.setattr(esm2, "forward_float32", _full(esm2.forward_float32, 250))
    np.testing.assert_allclose(esm2.embed(PROTEINS, token_budget=300), expected, rtol=2e-5, atol=2e-5)
    monkeypatch.setattr(esm2, "forward_float32", _spoiled(esm2.forward_float32, np.inf))
    with pytest.raises(StoreError, match="no finite embedding even in float32; check the weights"):
        esm2.embed(PROTEINS)


def test_over_long_sequences_are_said(esm2: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    rows = esm2.embed(["A" * 1024 + "W" * 50, "A" * 1024])
    assert rows.shape == (2, esm2.dim)
    assert caplog.messages == ["1 sequences are longer than the model was trained on"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"dtype": "float16"}, "the CPU computes only float32, but float16 was requested; use dtype float32"),
        ({"dtype": "float8"}, "no dtype is named 'float8'; choose of float32, float16, fp8"),
        ({"device": "gpu"}, "no device 'gpu'; give cpu, cuda or cuda:i"),
        ({"device": torch.device("cpu"), "dtype": "fp8"}, "fp8 with attention 'reference' is not available"),
        ({"overlong": "x"}, "no policy for over-long sequences is named 'x'"),
    ],
)
def test_what_cannot_be_loaded_names_what_was_asked_for(options: dict[str, object], error: str) -> None:
    with pytest.raises((UsageError, DeviceError), match=error):
        load_encoder("esm2", DEMO / "esm2", **options)  # type: ignore[arg-type]


# Files.


def _embed(kind: Kind, path: Path, text: str | bytes) -> tuple[list[str], np.ndarray, int]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    written = embed_fasta(ENCODERS[kind], path, path.with_suffix(".h5"))
    with h5py.File(path.with_suffix(".h5")) as file:
        ids = [name.decode() for name in file["ids"][:]]
        assert written.rows == len(ids)
        return ids, file["embeddings"][:], written.stops


def test_a_file_s_rows_are_those_of_embed(tmp_path: Path, encoder: Encoder) -> None:
    sequences = ["".join(np.random.default_rng(n).choice(list(LETTERS[encoder.kind]), 40)) for n in range(30)]
    text = "".join(f">s{n} x\n{s[:25]}\n{s[25:]}\n" for n, s in enumerate(sequences))
    ids, rows, stops = _embed(encoder.kind, tmp_path / "a.fa.gz", gzip.compress(text.encode(), mtime=0))
    assert ids == [f"s{n}" for n in range(30)]
    assert np.array_equal(rows, encoder.embed(sequences))
    assert stops == 0


def test_prodigal_s_stops_are_no_residues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("virnucpro_core.encoders.embed_fasta.BLOCK_SEQUENCES", 2)
    text = "".join(f">g_{n} # 1 # 60 # 1 # ID=1_{n};partial=00\n{p}*\n" for n, p in enumerate(PROTEINS))
    ids, rows, stops = _embed("esm2", tmp_path / "a.faa", text)
    assert ids == [f"g_{n}" for n in range(5)]
    assert stops == 5
    assert np.array_equal(rows, ENCODERS["esm2"].embed(PROTEINS))


@pytest.mark.parametrize(
    ("kind", "text", "error"),
    [
        ("esm2", ">p1\nMKLVW\n>p2 x\nMKL\nVJ\n", r"record 'p2', line 5: letter 'J' at residue 5 is not"),
        ("esm2", ">p1\nMKLVW\n\n>p2\nMK*LV\n", r"record 'p2', line 5: letter '\*' at residue 3"),
        ("esm2", ">p1\nMKLVW\n>p2\n*\n", r"record 'p2', line 3: an empty sequence has no embedding"),
        ("esm2", ">p1\nMKLVW\n>p2\nMK\xe9\n", r"record 'p2', line 4: letter .* at residue 3"),
        (
            "esm2",
            "@q\nMKLWW\n+\nIIIII\n@r\nMkWWW\n+\nIIIII\n",
            r"record 'r', line 6: letter 'k' at residue 2",
        ),
        ("dnabert-s", ">a\nACGT\n>b\nAC\nG-T\n", r"record 'b', line 5: letter '-' at base 4 is not"),
        ("dnabert-s", ">a\nACGTACGTACGTACGT\n>b\nACGE\n", r"record 'b', line 4: letter 'E' at base 4 is not"),
        ("dnabert-s", ">a\n", r"record 'a', line 1: an empty sequence"),
        ("esm2", "MKL\n", "line 1: neither FASTA nor FASTQ"),
        ("esm2", ">\nMKLWW\n", "line 1: record 1 has no id"),
        ("esm2", "", "the file is empty"),
    ],
)
def test_a_bad_record_is_named_with_its_line(tmp_path: Path, kind: Kind, text: str, error: str) -> None:
    with pytest.raises(InputError, match=error):
        _embed(kind, tmp_path / "bad.fa", text.encode("latin-1"))
    assert not (tmp_path / "bad.h5").exists()


def test_a_bad_letter_far_down_is_named(tmp_path: Path) -> None:
    text = "".join(f">p{n}\nMKLVWQ\n" for n in range(1, 10_006)) + ">p10006\nMKL\nOJ\n"
    with pytest.raises(InputError, match=r"record 'p10006', line 20,013: letter 'J' at residue 5"):
        _embed("esm2", tmp_path / "bad.faa", text)


def test_the_other_alphabet_is_refused_or_where_it_is_uncertain_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(
        InputError, match=r"looks like nucleotides, and esm2 embeds proteins; .* with dnabert-s"
    ):
        _embed("esm2", tmp_path / "dna.fa", ">a\n" + "ACGTN" * 20 + "\n>b\nACGTRYAC\n")
    with pytest.raises(
        InputError, match=r"looks like proteins, and dnabert-s embeds nucleotides; .* with esm2"
    ):
        _embed("dnabert-s", tmp_path / "p.faa", "".join(f">p{n}\n{p}*\n" for n, p in enumerate(PROTEINS[:2])))
    assert not caplog.messages
    _embed("esm2", tmp_path / "short.faa", ">a\nGATTACA\n")
    assert caplog.messages == [f"{tmp_path / 'short.faa'}: looks like nucleotides, and esm2 embeds proteins"]
    caplog.clear()
    _embed("esm2", tmp_path / "real.faa", "".join(f">p{n}\n{p}\n" for n, p in enumerate(PROTEINS)))
    assert not caplog.messages
