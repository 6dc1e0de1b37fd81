"""Embeddings of the sequences of a FASTA file, for people who want nothing else: no sample, no shards, no graph."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dnaio
import h5py
import numpy as np
from numpy.typing import NDArray

from virnucpro_core.encoders.encoder import Encoder
from virnucpro_core.encoders.packing import pack_shard
from virnucpro_core.errors import InputError, StoreError, UsageError
from virnucpro_core.files.publish import publish
from virnucpro_core.sequences.archives import open_text, stat_regular, unescape

BLOCK_SEQUENCES = 10_000


def embed_fasta(encoder: Encoder, fasta: Path, out: Path, *, token_budget: int) -> int:
    """Write `embeddings` (n, dim) float32 and `ids` (n,) UTF-8 in input order to an HDF5 file; returns n.

    Letters go to the tokenizer as they stand (proteins for esm2, nucleotides for dnabert-s). Raises InputError
    for a file that is not FASTA or FASTQ or holds a letter without a token, StoreError for the disk.
    """
    count = 0
    with (
        publish(out) as temporary,
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
        entries = _entries(fasta)
        while block := list(itertools.islice(entries, BLOCK_SEQUENCES)):
            values_ND = embed_sequences(
                encoder, [s for _, s in block], token_budget=token_budget, where=fasta
            )
            rows.resize(count + len(block), axis=0)
            ids.resize(count + len(block), axis=0)
            rows[count:], ids[count:] = values_ND, [name for name, _ in block]
            count += len(block)
    return count


class _Watched(io.FileIO):
    """A new file that keeps the disk's first error: HDF5 may close a file without telling that a write failed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            rest = memoryview(data).cast("B")
            while rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self._error = self._error or error
            raise
        return len(data)

    def __exit__(self, *_: object) -> None:
        self.close()
        if self._error is not None:
            raise self._error


def embed_sequences(
    encoder: Encoder, sequences: list[bytes], *, token_budget: int, where: Path
) -> NDArray[np.float32]:
    """(n, dim) float32 in the order given. Raises InputError for letters without a token."""
    try:
        tokens_T, lengths_N = encoder.tokenizer.encode(sequences)
    except UsageError as error:
        raise InputError(f"{error.where}: {error.what}", path=where, remedy=error.remedy) from error
    values_ND = np.empty((len(sequences), encoder.dim), dtype=np.float32)
    for batch in pack_shard(0, tokens_T, lengths_N, token_budget).batches:
        values_ND[batch.rows_B] = encoder.forward(batch.to(encoder.device)).cpu().numpy()
    if not np.isfinite(values_ND).all():
        bad = int((~np.isfinite(values_ND).all(axis=1)).sum())
        raise StoreError(f"{bad} embeddings are not finite", where=where, remedy="use --dtype float32")
    return values_ND


def _entries(path: Path) -> Iterator[tuple[str, bytes]]:
    stat_regular(path)
    number = 0
    try:
        with open_text(path) as stream, dnaio.open(stream) as reader:
            for entry in reader:
                number += 1
                words = unescape(entry.name).split(None, 1)  # as bytes: a no-break space does not end an id
                yield words[0].decode(errors="replace") if words else "", entry.sequence.encode("ascii")
    except dnaio.UnknownFileFormat as error:
        raise InputError("neither FASTA nor FASTQ", path=path, remedy="give FASTA or FASTQ") from error
    except dnaio.FileFormatError as error:
        what = error.message.splitlines()[0]
        line = None if error.line is None else error.line + 1
        raise InputError(what, path=path, record=f"number {number + 1}", line=line) from error
    if not number:
        raise InputError("no records", path=path, remedy="give FASTA or FASTQ")
