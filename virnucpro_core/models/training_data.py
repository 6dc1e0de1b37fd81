"""Which sequences a classifier has seen in its training: their digests lie in its folder, in `training_sequences.npy`.

So whoever evaluates or calibrates on the same sequences is told. A digest is 8 bytes of a sha256 over the letters of a
whole record; case, id and strand do not matter. Pieces of a sequence have other digests and are not noticed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.errors import WeightsError
from virnucpro_core.models.store import TRAINING_SEQUENCES
from virnucpro_core.sequences.fasta import Record
from virnucpro_core.sequences.labelled import DIGEST_BYTES, sequence_digest


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many of `sequences` were in the training of a classifier; `is_known` is False if its folder does not say."""

    is_known: bool
    shared: int
    sequences: int

    @property
    def words(self) -> str:
        """`12 of 40 sequences`, or that it is not known."""
        if not self.is_known:
            return "not known: the classifier has no list of its training sequences"
        return f"{self.shared:,} of {self.sequences:,} sequences"


def digests_of(records: Iterable[Record]) -> NDArray[np.uint64]:
    """A digest for each record with letters, (n,) uint64 in the order of the records."""
    found = [sequence_digest(record.sequence)[:DIGEST_BYTES] for record in records if record.sequence]
    return np.frombuffer(b"".join(found), "<u8").astype(np.uint64)


def write_training_sequences(folder: Path, digests: NDArray[np.uint64]) -> None:
    """Write the distinct digests, sorted, to the model folder. Call it before the manifest is written."""
    np.save(folder / TRAINING_SEQUENCES, np.unique(digests).astype("<u8"), allow_pickle=False)


def overlap(classifier: Path, digests: NDArray[np.uint64]) -> Overlap:
    """Compare sequences with those of the classifier's training. Raises WeightsError for a damaged list."""
    path = classifier / TRAINING_SEQUENCES
    try:
        known = np.load(path, allow_pickle=False)
        if known.dtype != np.uint64 or known.ndim != 1:
            raise ValueError("not a list of digests")
    except FileNotFoundError:
        return Overlap(is_known=False, shared=0, sequences=len(digests))
    except (OSError, ValueError, EOFError) as error:
        raise WeightsError(
            f"cannot be read ({error})", where=path, remedy="copy or train the classifier again"
        ) from error
    return Overlap(is_known=True, shared=int(np.isin(digests, known).sum()), sequences=len(digests))
