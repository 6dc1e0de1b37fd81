"""Converts sequences to token ids, with the ESM-2 alphabet or the DNABERT-S byte-pair vocabulary.

Shapes: T tokens of all sequences together, B sequences. A tokenizer is picklable, so that it can travel to
worker processes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from tokenizers import Tokenizer as BytePairTokenizer

from virnucpro_core.encoders.model_folder import ESM2_VOCABULARY
from virnucpro_core.errors import SequenceError, WeightsError
from virnucpro_core.sequences.record import NUCLEOTIDES

# fair-esm 2.0.0, alphabet "ESM-1b": the letters have the ids 4..30, in this order.
ESM2_LETTERS = b"LAGVSERTIDPKQNFYMHWCXBUZO.-"
ESM2_BOS, ESM2_EOS, ESM2_FIRST_LETTER = 0, 2, 4


class Tokenizer(Protocol):
    """What packing needs of a tokenizer. `vocabulary` is the number of ids that the model must know."""

    @property
    def vocabulary(self) -> int: ...

    def encode(self, sequences: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Ids (T,) int32 of the sequences one after the other, and lengths (B,) int32, special tokens
        included.

        Raises SequenceError naming the sequence (its index) and the letter that has no id, or an empty sequence.
        """
        ...


@dataclass(frozen=True, slots=True)
class Esm2Tokenizer:
    """One id per residue, <cls> before and <eos> after. `*`, `J` and lower case are not in the alphabet."""

    @property
    def vocabulary(self) -> int:
        return ESM2_VOCABULARY

    def encode(self, sequences: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        residues_B = _lengths(sequences)
        letters = np.frombuffer(b"".join(sequences), dtype=np.uint8)
        ids = _ESM2_IDS[letters]
        unknown = np.flatnonzero(ids < 0)
        if len(unknown):
            starts = np.cumsum(residues_B) - residues_B
            sequence = int(np.searchsorted(starts, unknown[0], side="right")) - 1
            place = int(unknown[0] - starts[sequence])
            raise SequenceError(
                f"letter {chr(letters[unknown[0]])!r} at residue {place + 1:,} is not in the ESM-2 alphabet",
                sequence=sequence,
                letter=place,
                remedy="use upper-case amino acids without J and without stops (*)",
            )
        lengths_B = residues_B + 2
        ends = np.cumsum(lengths_B)
        tokens_T = np.empty(int(lengths_B.sum()), dtype=np.int32)
        inside = np.ones(len(tokens_T), dtype=bool)
        inside[ends - lengths_B] = False
        inside[ends - 1] = False
        tokens_T[ends - lengths_B] = ESM2_BOS
        tokens_T[ends - 1] = ESM2_EOS
        tokens_T[inside] = ids
        return tokens_T, lengths_B.astype(np.int32)


@dataclass(frozen=True, slots=True)
class DnabertTokenizer:
    """Byte-pair encoding of `tokenizer.json`, [CLS] before and [SEP] after.

    Every N, IUPAC or lower-case letter becomes one [UNK], as in the published model.
    """

    path: Path
    _pairs: BytePairTokenizer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.path.is_file():
            raise WeightsError(
                "the tokenizer is missing", where=self.path, remedy="fetch or import the model again"
            )
        object.__setattr__(self, "_pairs", BytePairTokenizer.from_file(str(self.path)))

    @property
    def vocabulary(self) -> int:
        return int(self._pairs.get_vocab_size())

    def encode(self, sequences: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        _lengths(sequences)
        encoded = self._pairs.encode_batch_fast([_text(i, s) for i, s in enumerate(sequences)])
        ids = [e.ids for e in encoded]
        lengths_B = np.fromiter((len(i) for i in ids), dtype=np.int32, count=len(ids))
        tokens_T = np.fromiter((t for i in ids for t in i), dtype=np.int32, count=int(lengths_B.sum()))
        return tokens_T, lengths_B


def _esm2_ids() -> np.ndarray:
    ids = np.full(256, -1, dtype=np.int32)
    ids[np.frombuffer(ESM2_LETTERS, dtype=np.uint8)] = np.arange(len(ESM2_LETTERS)) + ESM2_FIRST_LETTER
    return ids


_ESM2_IDS = _esm2_ids()
_NO_NUCLEOTIDE = re.compile(rb"[^" + NUCLEOTIDES + rb"]")


def _lengths(sequences: Sequence[bytes]) -> np.ndarray:
    """(B,) int64; an empty sequence has no embedding, so it is refused."""
    lengths_B = np.fromiter((len(s) for s in sequences), dtype=np.int64, count=len(sequences))
    empty = np.flatnonzero(lengths_B == 0)
    if len(empty):
        raise SequenceError(
            "an empty sequence has no embedding", sequence=int(empty[0]), remedy="leave it out"
        )
    return lengths_B


def _text(index: int, sequence: bytes) -> str:
    """One word of nucleotide codes: a blank would split the sequence without a trace."""
    if strange := _NO_NUCLEOTIDE.search(sequence):
        place = strange.start()
        raise SequenceError(
            f"letter {chr(sequence[place])!r} at base {place + 1:,} is not a nucleotide code",
            sequence=index,
            letter=place,
            remedy="use IUPAC letters",
        )
    return sequence.decode("ascii")
