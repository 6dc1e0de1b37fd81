"""Stores the records of a sample and cuts them into overlapping chunks, exactly as the published tool does.

A record that cannot be scored is stored with its reason and has no chunks. Chunks themselves are not stored: a chunk
is a number, and its record, start and length are computed from the lengths of the records. Knows no reading frame.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from virnucpro_core.errors import InputError, UsageError
from virnucpro_core.files.columns import Array, ColumnStore, ColumnWriter
from virnucpro_core.files.digests import sha256_file
from virnucpro_core.sequences.archives import stat_regular
from virnucpro_core.sequences.fasta import read_records
from virnucpro_core.sequences.formats import format_of
from virnucpro_core.sequences.names import in_order
from virnucpro_core.sequences.record import EVERYTHING, Duplicates, ReadOptions, Record

_KIND = "chunks"

_BATCH_RECORDS = 10_000
_BATCH_BASES = 1 << 22


@dataclass(frozen=True, slots=True)
class Windows:
    """Positions of n chunks; each array is (n,) int64.

    record: index of the record. number: index of the chunk in its record, from 0. start, length: in bases.
    """

    record: Array
    number: Array
    start: Array
    length: Array


def chunk_counts(lengths: Array, size: int) -> Array:
    """Number of chunks of each record, int64; `lengths` and `size` in bases."""
    return -(-lengths // size)


def chunk_starts(length: int, size: int) -> Array:
    """Starts of the chunks of one record, (n,) int64; a chunk is `record[start:start + size]`."""
    number = np.arange(-(-length // size))
    return _starts(np.full(len(number), length), number, size)


def _starts(length: Array, number: Array, size: int) -> Array:
    """Start of chunk `number` (from 0) of a record of `length` bases, from the overlaps of the published tool.

    N chunks of `size` bases have R = N * size - length bases more than the record. Chunks g and g + 1 overlap by
    R // N + 1 bases if g < up, else by R // N, where up = R - (R // N) * (N - 1).
    """
    count = chunk_counts(length, size)
    surplus = count * size - length
    low = surplus // np.maximum(count, 1)
    up = surplus - low * (count - 1)
    starts: Array = number * (size - low) - np.minimum(number, up)
    return starts


class Chunks:
    """An opened store of records and chunks.

    `ids`, `descriptions`, `reasons` and `sequences` are Strings with one entry for each record, in input order.
    `chunk_offsets` (n_records + 1,) int64: record i has the chunks `chunk_offsets[i]` to `chunk_offsets[i + 1] - 1`.
    `file` (n_records,) int32 is an index into `attrs["files"]`. `number` (n_records,) int64 is the number of the record
    in its file, from 1. `uracils` (n_records,) int64 is how many U were read as T. `has_reads`: for each file whether
    its records are reads with qualities; empty if no file has them. `reading`: what was read of the files.
    """

    def __init__(self, store: ColumnStore) -> None:
        self.store, self.path, self.digest, self.attrs = store, store.path, store.digest, store.attrs
        self.chunk_size: int = store.attrs["chunk_size"]
        self.ids, self.descriptions = store.strings("ids"), store.strings("descriptions")
        self.reasons, self.sequences = store.strings("reasons"), store.strings("sequences")
        self.chunk_offsets, self.file, self.number = store["chunk_offsets"], store["file"], store["number"]
        self.uracils = store["uracils"]
        self.reading = ReadOptions(**store.attrs.get("reading", {}))
        self.has_reads: tuple[bool, ...] = tuple(store.attrs.get("has_reads", ()))
        self.n_records = len(self.ids)
        self.n_chunks = int(self.chunk_offsets[-1])

    @classmethod
    def open(cls, path: Path) -> "Chunks":
        """Raises StoreError."""
        return cls(ColumnStore.open(path, kind=_KIND))

    @property
    def lengths(self) -> Array:
        """Lengths of the records in bases, (n_records,) int64."""
        return self.sequences.lengths

    def sequence(self, record: int) -> bytes:
        """Letters of a record: U is replaced by T, upper and lower case are kept."""
        return self.sequences[record]

    def record_ids(self, lo: int, hi: int) -> list[str]:
        """Ids of records lo to hi - 1."""
        return [name.decode() for name in self.ids[lo:hi]]

    def locate(self, chunk: Array) -> Windows:
        """Positions of chunks; `chunk` (n,) int64."""
        record = np.searchsorted(self.chunk_offsets, chunk, side="right") - 1
        length = self.sequences.offsets[record + 1] - self.sequences.offsets[record]
        number = chunk - self.chunk_offsets[record]
        start = _starts(length, number, self.chunk_size)
        return Windows(record, number, start, np.minimum(length - start, self.chunk_size))

    def windows(self, lo: int, hi: int) -> Windows:
        """Positions of the chunks lo to hi - 1."""
        return self.locate(np.arange(lo, hi))

    def names(self, chunk: Array) -> list[str]:
        """`{record}_chunk_{k}`, k from 1; `chunk` (n,) int64, any order."""
        windows = self.locate(chunk)
        record, inverse = np.unique(windows.record, return_inverse=True)
        ids = [name.decode() for name in self.ids.take(record)]
        pairs = zip(inverse.tolist(), (windows.number + 1).tolist(), strict=True)
        return [f"{ids[i]}_chunk_{k}" for i, k in pairs]

    def chunk_ids(self, lo: int, hi: int) -> list[str]:
        """Names of chunks lo to hi - 1."""
        return self.names(np.arange(lo, hi))

    def blocks(self, n_bases: int) -> Iterator[tuple[int, bytes, Array, Array]]:
        """All chunks in blocks that span about `n_bases` bases: (first chunk, bases, starts, lengths).

        `starts` and `lengths` (n,) int64 are the positions of the chunks in `bases`. A block has at least one chunk.
        """
        lo = 0
        with self.store.stream("sequences") as letters:
            while lo < self.n_chunks:
                windows = self.windows(lo, min(lo + max(n_bases // 32, 1), self.n_chunks))
                start = self.sequences.offsets[windows.record] + windows.start
                end = start + windows.length
                n = max(int(np.searchsorted(end, start[0] + n_bases, side="right")), 1)
                letters.seek(int(start[0]))
                yield lo, letters.read(int(end[n - 1] - start[0])), start[:n] - start[0], windows.length[:n]
                lo += n


def write_chunks(
    paths: Sequence[Path],
    out: Path,
    *,
    chunk_size: int,
    duplicates: Duplicates = "refuse",
    options: ReadOptions = EVERYTHING,
    version: str = "",
) -> Chunks:
    """Read the files of one sample and publish its store at `out`. `version` becomes part of the store's digest.

    Raises InputError for a file that is refused, UsageError for a chunk size below 3, StoreError for a disk error.
    """
    _check_size(chunk_size)
    files = in_order(paths)
    before = [stat_regular(path) for path in files]
    records = read_records(paths, duplicates=duplicates, options=options)
    with ColumnWriter.publishing(out, kind=_KIND) as writer:
        uracils = _append_records(writer, records, chunk_size)
        writer.attrs |= {"chunk_size": chunk_size, "uracils": uracils, "duplicates": duplicates}
        writer.attrs["version"] = version
        if options != EVERYTHING:  # left out otherwise: stores of earlier versions keep their digests
            writer.attrs["reading"] = asdict(options)
        has_reads = [format_of(path) in ("fastq", "aligned") for path in files]
        if any(has_reads):
            writer.attrs["has_reads"] = has_reads
        writer.attrs["files"] = [_identity(path, stat) for path, stat in zip(files, before, strict=True)]
    return Chunks.open(out)


def write_records(records: Iterable[Record], out: Path, *, chunk_size: int) -> Chunks:
    """Publish the store of records from memory at `out`.

    Raises UsageError for a chunk size below 3, StoreError for a disk error.
    """
    _check_size(chunk_size)
    with ColumnWriter.publishing(out, kind=_KIND) as writer:
        uracils = _append_records(writer, records, chunk_size)
        writer.attrs |= {"chunk_size": chunk_size, "uracils": uracils}
    return Chunks.open(out)


def _check_size(chunk_size: int) -> None:
    if chunk_size < 3:
        raise UsageError(f"chunk size {chunk_size} is shorter than a codon", remedy="use 300 or 500")


def _append_records(writer: ColumnWriter, records: Iterable[Record], chunk_size: int) -> int:
    """Write the columns and return how many U were read as T."""
    writer.append("chunk_offsets", np.zeros(1, np.int64))
    chunks = uracils = 0
    for batch in _batches(records):
        _append(writer, batch)
        lengths = np.array([0 if r.reason else len(r.sequence) for r in batch], np.int64)
        offsets = chunks + np.cumsum(chunk_counts(lengths, chunk_size))
        writer.append("chunk_offsets", offsets)
        chunks, uracils = int(offsets[-1]), uracils + sum(r.uracils for r in batch)
    return uracils


def _identity(path: Path, before: os.stat_result) -> dict[str, Any]:
    """Name, size and sha256 of a file that has been read. Raises InputError if it changed since `before`."""
    try:
        digest = sha256_file(path)
    except OSError as error:
        raise InputError(error.strerror or str(error), path=path) from error
    after = stat_regular(path)
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise InputError("changed while it was read", path=path, remedy="run again when it is complete")
    return {"name": path.name, "size": after.st_size, "sha256": digest}


def _append(writer: ColumnWriter, batch: Sequence[Record]) -> None:
    writer.append_strings("ids", [r.id.encode() for r in batch])
    writer.append_strings("descriptions", [r.description.encode() for r in batch])
    writer.append_strings("reasons", [r.reason.encode() for r in batch])
    writer.append_strings("sequences", [r.sequence for r in batch])
    writer.append("file", np.array([r.file for r in batch], np.int32))
    writer.append("number", np.array([r.number for r in batch], np.int64))
    writer.append("uracils", np.array([r.uracils for r in batch], np.int64))


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records in batches of limited number and bases; no batch is empty."""
    batch: list[Record] = []
    bases = 0
    for record in records:
        batch.append(record)
        bases += len(record.sequence)
        if len(batch) == _BATCH_RECORDS or bases >= _BATCH_BASES:
            yield batch
            batch, bases = [], 0
    if batch:
        yield batch
