"""Token ids: the ESM-2 alphabet against fair-esm, refusals, and travel to a worker process."""

import pickle
from pathlib import Path

import esm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_core.encoders.tokenizers import ESM2_LETTERS, DnabertTokenizer, Esm2Tokenizer
from virnucpro_core.errors import UsageError, WeightsError

PROTEINS = st.lists(st.text(ESM2_LETTERS.decode(), min_size=1, max_size=30), min_size=1, max_size=8)
ALPHABET = esm.data.Alphabet.from_architecture("ESM-1b")


@given(PROTEINS)
def test_esm2_ids_are_those_of_fair_esm(proteins: list[str]) -> None:
    tokens_T, lengths_B = Esm2Tokenizer().encode([protein.encode() for protein in proteins])
    expected = [[ALPHABET.cls_idx, *map(ALPHABET.get_idx, p), ALPHABET.eos_idx] for p in proteins]
    assert lengths_B.tolist() == [len(ids) for ids in expected]
    assert tokens_T.tolist() == [i for ids in expected for i in ids]


@pytest.mark.parametrize("letter", ["*", "J", "a", " ", "\xe9"])
def test_esm2_names_the_letter_and_its_place(letter: str) -> None:
    with pytest.raises(UsageError, match=r"sequence 1: letter .+ at residue 3 ") as caught:
        Esm2Tokenizer().encode([b"MA", b"MK" + letter.encode("latin-1") + b"L", b"*"])
    assert repr(letter) in str(caught.value)


def test_an_empty_sequence_is_refused(shared: Path) -> None:
    dnabert = DnabertTokenizer(shared / "golden" / "dnabert_s_tiny" / "tokenizer.json")
    for tokenizer in (Esm2Tokenizer(), dnabert):
        with pytest.raises(UsageError, match="sequence 1"):
            tokenizer.encode([b"A", b"", b"A"])


def test_dnabert_refuses_what_would_split_a_sequence(shared: Path) -> None:
    tokenizer = DnabertTokenizer(shared / "golden" / "dnabert_s_tiny" / "tokenizer.json")
    with pytest.raises(UsageError, match="sequence 1: letter ' ' at base 3 "):
        tokenizer.encode([b"ACGT", b"AC GT"])


def test_tokenizers_travel_to_workers(shared: Path) -> None:
    path = shared / "golden" / "dnabert_s_tiny" / "tokenizer.json"
    for tokenizer in (Esm2Tokenizer(), DnabertTokenizer(path)):
        copied = pickle.loads(pickle.dumps(tokenizer))
        assert copied.encode([b"ACGTA"])[0].tolist() == tokenizer.encode([b"ACGTA"])[0].tolist()
        assert copied.vocabulary == tokenizer.vocabulary


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"tokenizer\.json"):
        DnabertTokenizer(tmp_path / "tokenizer.json")
