"""Stores the frames of a sample that have no stop codon, equal frames only once, and divides them into shards.

Two frames are equal if both their nucleotides and their proteins are equal. Both must be compared: since codons with
N are skipped, equal nucleotides can have different proteins. Knows no encoder.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from virnucpro_core.files.columns import Array, ColumnStore, ColumnWriter, spans
from virnucpro_core.sequences.chunks import Chunks
from virnucpro_core.sequences.identical import Identities
from virnucpro_core.sequences.translation import FRAMES, Translation, translate

_KIND = "frames"
SHARD_ROWS = 10_000
# Numbers of shards that 1, 2, 4 and 8 lanes share evenly (24 and 48: also 3 and 6 lanes).
EVEN = (48, 24, 8)
# Rows that a shard needs to be worth its own files: half a second of ESM-2 3B on one H200.
WORTHWHILE_ROWS = 1_000

_BLOCK_BASES = 1 << 18  # small enough that a translation stays in the cache of one core


class Frames:
    """An opened store of frames.

    One entry for each frame, in frame order: `frame_chunk` int64, `frame_code` uint8 (an index into FRAMES),
    `frame_unique` int64 (index of its unique frame). One entry for each unique frame, in the order of first use:
    `proteins` and `nucleotides` Strings, `protein_lengths` int32, `digests` (n_unique, 16) uint8. `order` (n_unique,)
    int64 lists the unique frames by protein length; equal lengths by index.
    """

    def __init__(self, store: ColumnStore) -> None:
        self.store, self.path, self.digest, self.attrs = store, store.path, store.digest, store.attrs
        self.frame_chunk, self.frame_code = store["frame_chunk"], store["frame_code"]
        self.frame_unique = store["frame_unique"]
        self.proteins, self.nucleotides = store.strings("proteins"), store.strings("nucleotides")
        self.protein_lengths, self.digests, self.order = (
            store["protein_lengths"],
            store["digests"],
            store["order"],
        )
        self.n_frames, self.n_unique = len(self.frame_chunk), len(self.order)

    @classmethod
    def open(cls, path: Path) -> "Frames":
        """Raises StoreError."""
        return cls(ColumnStore.open(path, kind=_KIND))

    def frame_ids(self, lo: int, hi: int, chunks: Chunks) -> list[str]:
        """`{record}_chunk_{k}{frame}` of frames lo to hi - 1."""
        names = chunks.names(self.frame_chunk[lo:hi])
        return [
            name + FRAMES[code] for name, code in zip(names, self.frame_code[lo:hi].tolist(), strict=True)
        ]

    def n_shards(self, shard_rows: int = SHARD_ROWS) -> int:
        """Number of shards of at most `shard_rows` unique frames. It does not depend on the number of lanes."""
        return shards_of(self.n_unique, shard_rows)

    def shard(self, k: int, n_shards: int) -> Array:
        """Indices of the unique frames of shard k, `order[k::n_shards]`: all shards have the same mix of lengths."""
        return self.order[k::n_shards]


def shards_of(n_unique: int, shard_rows: int) -> int:
    """Number of shards of at most `shard_rows` frames: as few as possible, but a number that lanes can share evenly.

    With any other number, eight lanes would differ by more than 2 % of the work unless each had 50 shards or more.
    """
    least = -(-n_unique // shard_rows)
    even = next((number for number in EVEN if n_unique >= number * WORTHWHILE_ROWS), 1)
    multiple = min(even, EVEN[1])
    return min(n_unique, -(-max(least, even) // multiple) * multiple)


def write_frames(chunks: Chunks, out: Path, *, version: str = "") -> Frames:
    """Translate all chunks and publish the store at `out`. `version` becomes part of the store's digest.

    The chunks are translated twice: first to find the unique frames by their digests, then to write their letters.
    This is cheaper than writing every copy of a frame to disk. Raises StoreError.
    """
    with ColumnWriter.publishing(out, kind=_KIND) as writer:
        writer.attrs |= {"chunks": chunks.digest, "version": version}
        identities = Identities()
        _append_frames(writer, np.empty(0, np.int64), np.empty(0, np.uint8))
        for lo, frames in _translations(chunks):
            _append_frames(writer, lo + frames.chunk, frames.code)
            pairs = zip(frames.nucleotides[:], frames.proteins[:], strict=True)
            identities.extend(b"%b\n%b" % pair for pair in pairs)
        first = identities.first()
        is_unique = first == np.arange(len(first))
        writer.append("frame_unique", (np.cumsum(is_unique) - 1)[first])
        writer.append("digests", identities.digests[is_unique])
        del first
        _append_unique(writer, chunks, is_unique)
    return Frames.open(out)


def _append_frames(writer: ColumnWriter, chunk: Array, code: Array) -> None:
    writer.append("frame_chunk", chunk)
    writer.append("frame_code", code)


def _append_unique(writer: ColumnWriter, chunks: Chunks, is_unique: Array) -> None:
    """Letters, lengths and order of the unique frames; `is_unique` (n_frames,) bool."""
    n_proteins = [np.empty(0, np.int32)]
    writer.append_strings("proteins", [])
    writer.append_strings("nucleotides", [])
    frame = 0
    for _, frames in _translations(chunks):
        rows = np.flatnonzero(is_unique[frame : frame + len(frames.code)])
        frame += len(frames.code)
        for name, strings in (("proteins", frames.proteins), ("nucleotides", frames.nucleotides)):
            lengths = strings.lengths[rows]
            writer.append_flat(name, strings.flat[spans(strings.offsets[rows], lengths)], lengths)
        n_proteins.append(frames.proteins.lengths[rows].astype(np.int32))
    lengths = np.concatenate(n_proteins)
    writer.append("protein_lengths", lengths)
    writer.append("order", np.argsort(lengths, kind="stable"))


def _translations(chunks: Chunks) -> Iterator[tuple[int, Translation]]:
    for lo, bases, starts, lengths in chunks.blocks(_BLOCK_BASES):
        yield lo, translate(bases, starts, lengths)
