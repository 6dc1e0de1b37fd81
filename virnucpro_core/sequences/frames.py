"""Stores the frames of a sample that have no stop codon, equal frames only once, and divides them into shards.

Two frames are equal if both their nucleotides and their proteins are equal. Both must be compared: since codons with
N are skipped, equal nucleotides can have different proteins. Knows no encoder.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from virnucpro_core.files.columns import Array, ColumnStore, ColumnWriter, spans
from virnucpro_core.sequences.chunks import Chunks
from virnucpro_core.sequences.identical import Identities, digests_of
from virnucpro_core.sequences.parallel import Processes
from virnucpro_core.sequences.translation import FRAMES, translate

_KIND = "frames"
SHARD_ROWS = 10_000
# Numbers of shards that 1, 2, 4 and 8 lanes share evenly (24 and 48: also 3 and 6 lanes).
EVEN = (48, 24, 8)
# Rows that a shard needs to be worth its own files: half a second of ESM-2 3B on one H200.
WORTHWHILE_ROWS = 1_000

# Bases that make a process of its own worthwhile: about a quarter of a second of work.
BASES_A_PROCESS = 5_000_000
_BLOCK_BASES = 1 << 18  # small enough that a translation stays in the cache of one core


class Frames:
    """An opened store of frames.

    One entry for each frame, in frame order: `frame_chunk` int64, `frame_code` uint8 (an index into FRAMES),
    `frame_unique` int64 (index of its unique frame). One entry for each unique frame, in the order of first use:
    `proteins` and `nucleotides` Strings, `protein_lengths` int32, `digests` (n_unique, 16) uint8. `order` (n_unique,)
    int64 lists the unique frames by protein length; equal lengths by index.

    min_open: least amino acids of an open frame (`translation.translate`), 0 if the store has none and never has.
    `n_open` of the `n_frames` frames are open.
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
        self.min_open = int(self.attrs.get("min_open", 0))
        self.n_open = int(store["frame_open"].sum()) if self.min_open else 0

    @classmethod
    def open(cls, path: Path) -> "Frames":
        """Raises StoreError."""
        return cls(ColumnStore.open(path, kind=_KIND))

    def is_open(self, lo: int, hi: int) -> Array:
        """Which of the frames lo to hi - 1 are open frames, (hi - lo,) bool."""
        return self.store["frame_open"][lo:hi] == 1 if self.min_open else np.zeros(hi - lo, np.bool_)

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


def write_frames(
    chunks: Chunks, out: Path, *, version: str = "", processes: int = 1, min_open: int = 0
) -> Frames:
    """Translate all chunks and publish the store at `out`. `version` becomes part of the store's digest.

    The chunks are translated twice: first to find the unique frames by their digests, then to write their letters.
    This is cheaper than writing every copy of a frame to disk. processes: how many translate a large sample together;
    the bytes do not depend on it. min_open: 0, or the least amino acids of open frames, for chunks without a frame that
    is free of stops. Raises StoreError.
    """
    processes = max(1, min(processes, len(chunks.sequences.flat) // BASES_A_PROCESS))
    with ColumnWriter.publishing(out, kind=_KIND) as writer, Processes(processes) as pool:
        writer.attrs |= {"chunks": chunks.digest, "version": version}
        writer.attrs |= {"min_open": min_open} if min_open else {}
        identities, kept = Identities(), []
        _append_frames(writer, np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.bool_))
        blocks = (block for _, *block in chunks.blocks(_BLOCK_BASES))
        lo = 0
        for n_chunks, chunk, code, is_open, digests in pool.map(
            partial(_identified, min_open=min_open), blocks
        ):
            _append_frames(writer, lo + chunk, code, is_open)
            identities.extend_digests(digests)
            kept.append(len(code))
            lo += n_chunks
        first = identities.first()
        is_unique = first == np.arange(len(first))
        writer.append("frame_unique", (np.cumsum(is_unique) - 1)[first])
        writer.append("digests", identities.digests[is_unique])
        del first
        blocks_unique = np.split(is_unique, np.cumsum(kept)[:-1]) if kept else []  # no block: no chunk at all
        _append_unique(writer, chunks, blocks_unique, pool)
    return Frames.open(out)


def _append_frames(writer: ColumnWriter, chunk: Array, code: Array, is_open: Array) -> None:
    writer.append("frame_chunk", chunk)
    writer.append("frame_code", code)
    if "min_open" in writer.attrs:
        writer.append("frame_open", is_open.astype(np.uint8))


def _append_unique(writer: ColumnWriter, chunks: Chunks, is_unique: list[Array], pool: Processes) -> None:
    """Letters, lengths and order of the unique frames; `is_unique` (frames,) bool for each block of chunks."""
    n_proteins = [np.empty(0, np.int32)]
    writer.append_strings("proteins", [])
    writer.append_strings("nucleotides", [])
    blocks = (
        (*block, mask) for (_, *block), mask in zip(chunks.blocks(_BLOCK_BASES), is_unique, strict=True)
    )
    chosen = partial(_chosen, min_open=writer.attrs.get("min_open", 0))
    for proteins, protein_lengths, nucleotides, lengths in pool.map(chosen, blocks):
        writer.append_flat("proteins", proteins, protein_lengths)
        writer.append_flat("nucleotides", nucleotides, lengths)
        n_proteins.append(protein_lengths.astype(np.int32))
    lengths = np.concatenate(n_proteins)
    writer.append("protein_lengths", lengths)
    writer.append("order", np.argsort(lengths, kind="stable"))


def _identified(block: Sequence[Any], *, min_open: int) -> tuple[int, Array, Array, Array, bytes]:
    """(number of chunks, then of each frame: chunk, code, whether it is open, digest) of a block of chunks."""
    bases, starts, lengths = block
    frames = translate(bases, starts, lengths, min_open)
    pairs = zip(frames.nucleotides[:], frames.proteins[:], strict=True)
    digests = digests_of(b"%b\n%b" % pair for pair in pairs)
    return len(starts), frames.chunk, frames.code, frames.is_open, digests


def _chosen(block: Sequence[Any], *, min_open: int) -> tuple[Array, Array, Array, Array]:
    """Proteins and nucleotides, each as (letters, lengths), of the frames of a block that the mask selects."""
    bases, starts, lengths, is_unique = block
    frames, rows = translate(bases, starts, lengths, min_open), np.flatnonzero(is_unique)
    parts: list[Array] = []
    for strings in (frames.proteins, frames.nucleotides):
        n_letters = strings.lengths[rows]
        parts += [strings.flat[spans(strings.offsets[rows], n_letters)], n_letters]
    return parts[0], parts[1], parts[2], parts[3]
