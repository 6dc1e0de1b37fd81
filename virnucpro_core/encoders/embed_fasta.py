"""Writes the embeddings of a FASTA file to an HDF5 file, without a sample, shards or Dagster."""

import contextlib
import io
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from virnucpro_core.encoders.encoder import BLOCK_SEQUENCES, Encoder, Kind, without_stops
from virnucpro_core.errors import InputError, SequenceError
from virnucpro_core.files.publish import no_check, publish
from virnucpro_core.sequences.archives import stat_regular
from virnucpro_core.sequences.fasta import line_of, read_entries
from virnucpro_core.sequences.record import AMINO_ACIDS_ONLY, PROTEIN_SHARE

log = logging.getLogger(__name__)

# kind -> what it reads, the other alphabet, and the encoder that reads that.
_ALPHABETS: dict[Kind, tuple[str, str, str]] = {
    "esm2": ("proteins", "nucleotides", "dnabert-s"),
    "dnabert-s": ("nucleotides", "proteins", "esm2"),
}
NUCLEOTIDE_LETTERS = b"ACGTUNacgtun"
OTHER_SHARE = 0.05
CERTAIN_LETTERS = 100


@dataclass(frozen=True, slots=True)
class EmbeddedFile:
    """What was written: rows, and how many proteins ended in a stop (`*`), which is no residue and was left out."""

    rows: int
    stops: int


def embed_fasta(
    encoder: Encoder,
    fasta: Path,
    out: Path,
    *,
    token_budget: int = 0,
    check: Callable[[], None] = no_check,
) -> EmbeddedFile:
    """Write `embeddings` (n, dim) float32 and `ids` (n,) UTF-8 in input order to an HDF5 file.

    check: called just before the file appears. Rows are those of `Encoder.embed`. Raises InputError, with id and
    line, for a file that is not FASTA or FASTQ, holds the other alphabet (see `check_alphabet`) or a letter without
    a token; what `Encoder.embed` raises for the device; StoreError for the disk.
    """
    stat_regular(fasta)
    count = stops = 0
    with (
        publish(out, check) as temporary,
        _Watched(temporary) as stream,
        h5py.File(stream, "w", libver="v110") as file,
    ):
        rows = file.create_dataset(
            "embeddings",
            (0, encoder.dim),
            np.float32,
            maxshape=(None, encoder.dim),
            chunks=(256, encoder.dim),
        )
        ids = file.create_dataset("ids", (0,), h5py.string_dtype("utf-8"), maxshape=(None,), chunks=(4096,))
        file.attrs["encoder"], file.attrs["fingerprint"] = encoder.kind, encoder.fingerprint
        entries = read_entries(fasta)
        while block := list(itertools.islice(entries, BLOCK_SEQUENCES)):
            names, letters = [name for name, _ in block], [letters for _, letters in block]
            if not count:
                check_alphabet(encoder.kind, letters, fasta)
            if encoder.kind == "esm2":
                letters, ended = without_stops(letters)
                stops += ended
            values_ND = _rows(encoder, names, letters, fasta, first=count + 1, token_budget=token_budget)
            rows.resize(count + len(block), axis=0)
            ids.resize(count + len(block), axis=0)
            rows[count:], ids[count:] = values_ND, names
            count += len(block)
            file.flush()
            stream.raise_error()
    return EmbeddedFile(count, stops)


class _Watched(io.FileIO):
    """A new file that keeps its first write error and raises it when asked, and on closing.

    HDF5 may not report an error, and crashes the process at its end if it could not close a file. So it never sees one.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        with self._kept():
            rest = memoryview(data).cast("B")
            while rest:
                rest = rest[super().write(rest) :]
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        with self._kept():
            super().truncate(size)
        return self.tell() if size is None else size

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._error = self._error or error

    def __exit__(self, *_: object) -> None:
        self.close()
        self.raise_error()


def _rows(
    encoder: Encoder,
    names: Sequence[str],
    letters: Sequence[bytes],
    fasta: Path,
    *,
    first: int,
    token_budget: int,
) -> NDArray[np.float32]:
    """(n, dim) of a block of records, the first of which is number `first` (from 1) of the file."""
    try:
        return encoder.embed(letters, token_budget=token_budget)
    except SequenceError as error:
        line = line_of(fasta, first + error.sequence, error.letter)
        name = names[error.sequence]
        raise InputError(error.what, path=fasta, record=name, line=line, remedy=error.remedy) from error


def check_alphabet(kind: Kind, sequences: Sequence[bytes], fasta: Path) -> None:
    """Raise InputError for nucleotides if the encoder reads proteins, or the reverse: both would give wrong embeddings.

    Decided by all letters together: about a quarter of a protein's letters are A, C, G, T or N, but (nearly) all of a
    nucleotide sequence. With too few letters to be certain it logs a warning.
    """
    letters = b"".join(sequences)
    if kind == "dnabert-s":
        amino = len(letters) - len(letters.translate(None, AMINO_ACIDS_ONLY))
        looks_wrong, is_certain = amino >= PROTEIN_SHARE * max(len(letters), 1), True
    else:
        other = len(letters.translate(None, NUCLEOTIDE_LETTERS))
        looks_wrong, is_certain = other <= OTHER_SHARE * len(letters), len(letters) >= CERTAIN_LETTERS
    if not looks_wrong:
        return
    reads, holds, fitting = _ALPHABETS[kind]
    what = f"looks like {holds}, and {kind} embeds {reads}"
    if is_certain:
        raise InputError(what, path=fasta, remedy=f"give {reads}, or embed {holds} with {fitting}")
    log.warning("%s: %s", fasta, what)
