"""Write a sample block by block, with one process or several: each function here makes the texts of one block.

The blocks do not depend on each other, so several processes can make them; the process that writes the files takes them
in order. Where a text needs the number of the regions before it, a mark stands (`region_files.numbered`).
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.errors import StoreError
from virnucpro_core.files.columns import Array
from virnucpro_core.results.calibration import Calibration, SampleProbabilities, counted
from virnucpro_core.results.chunk_calls import chunk_call_rows, chunk_maxima, maxima_places, prediction_rows
from virnucpro_core.results.record_calls import (
    RecordCalls,
    call_block,
    chunk_scores,
    contig_rows,
    open_frames,
    viral_records,
)
from virnucpro_core.results.region_files import RegionTexts, chunk_rows, region_texts, score_rows
from virnucpro_core.results.regions import RegionRule, find_regions
from virnucpro_core.results.report import Picked, pick
from virnucpro_core.results.rows import Cell, Texts, copied, decimals, numbers, words
from virnucpro_core.results.summary import Tally
from virnucpro_core.sequences.chunks import Chunks, Windows
from virnucpro_core.sequences.frames import Frames
from virnucpro_core.sequences.translation import FRAMES


@dataclass(frozen=True)
class Stores:
    """The sample's chunks and frames. Another process gets their paths and opens them once."""

    chunks: Chunks
    frames: Frames

    def __reduce__(self) -> tuple[Any, ...]:
        stores = (self.chunks, self.frames)
        return _opened, (*(store.path for store in stores), *(store.digest for store in stores))


@lru_cache(maxsize=1)
def _opened(chunks: Path, frames: Path, *digests: str) -> Stores:
    stores = Stores(Chunks.open(chunks), Frames.open(frames))
    if (stores.chunks.digest, stores.frames.digest) != digests:
        raise StoreError("was replaced while the results were written", where=chunks.parent)
    return stores


@dataclass(frozen=True, slots=True)
class ChunkTexts:
    """A block of chunks: rows of four tables (`calls` sorted), and s of each chunk (n,)."""

    predictions: bytes
    open_frames: bytes
    chunks: bytes
    calls: bytes
    score: NDArray[np.float64]


def chunk_texts(stores: Stores, block: tuple[int, int, NDArray[np.float32]]) -> ChunkTexts:
    """The texts of a block: its first chunk, the end, and the scores (N, 2) of its frames."""
    lo, hi, scores_N2 = block
    chunks, frames = stores.chunks, stores.frames
    a, b = np.searchsorted(frames.frame_chunk, [lo, hi]).tolist()
    chunk_N, code_N, is_open = frames.frame_chunk[a:b] - lo, frames.frame_code[a:b], frames.is_open(a, b)
    maxima_C2 = chunk_maxima(chunk_N, scores_N2, 0, hi - lo)
    windows = chunks.windows(lo, hi)
    ids = _Ids(chunks, windows)
    frames_C, open_C, published_C2 = np.bincount(chunk_N, minlength=hi - lo), None, maxima_C2
    if frames.min_open:
        open_C = open_frames(frames, lo, hi)
        # The published tool's two tables know only stop-free frames.
        published_C2 = np.where(open_C[:, None] > 0, np.float32(np.nan), maxima_C2)
        frames_C = frames_C - open_C
    calls = chunk_call_rows(ids.of(np.arange(hi - lo)), published_C2)
    texts = [decimals(scores_N2[:, k]) for k in (0, 1)]
    places_C2 = maxima_places(chunk_N, scores_N2, maxima_C2)
    maxima = [copied(text, places_C2[:, k]) for k, text in enumerate(texts)]

    def rows(chosen: Array) -> bytes:
        name = [*ids.of(chunk_N[chosen]), words(code_N[chosen], FRAMES)]
        return prediction_rows(name, scores_N2[chosen], [text[chosen] for text in texts])

    return ChunkTexts(
        predictions=rows(~is_open),
        open_frames=rows(is_open),
        chunks=chunk_rows(ids.records(), windows, frames_C, maxima_C2, maxima, open_C),
        calls=b"".join(sorted(calls.splitlines(keepends=True))),
        score=chunk_scores(maxima_C2),
    )


class _Ids:
    """The columns that make up the ids of a block's chunks."""

    def __init__(self, chunks: Chunks, windows: Windows) -> None:
        records, self._record_C = np.unique(windows.record, return_inverse=True)
        self._names, self._number_C = chunks.ids.take(records), windows.number + 1

    def records(self) -> list[Cell]:
        """The ids of the chunks' records."""
        return [Texts(self._names, self._record_C)]

    def of(self, chunk: Array) -> list[Cell]:
        """`{record}_chunk_{k}` of chunks, indices into the block, rising."""
        return [Texts(self._names, self._record_C[chunk]), b"_chunk_", numbers(self._number_C[chunk])]


@dataclass(frozen=True, slots=True)
class RecordTexts:
    """A block of records: what it adds to the files, and to the summary, the report and the files of reads."""

    contigs: bytes
    viral: bytes
    scores: bytes
    regions: RegionTexts
    n_regions: int
    tally: Tally
    picked: Picked
    call: NDArray[np.uint8]
    score: NDArray[np.float64]


# First record, bounds (`record_calls.blocks_of`), and s of the block's chunks.
RecordBlock = tuple[int, Array, NDArray[np.float64]]


def record_texts(
    stores: Stores, cutoff: float, rule: RegionRule, known: SampleProbabilities | None, block: RecordBlock
) -> RecordTexts:
    """Call the records of a block and write them. known: the sample's probabilities, None without a calibration."""
    chunks, called = stores.chunks, _called(stores, cutoff, block)
    if known is not None:
        called = known.applied(called)
    regions = find_regions(chunks, called, rule)
    tally, score_C = Tally(), decimals(called.chunk_score)
    tally.add(called, regions)
    return RecordTexts(
        contigs=contig_rows(called, score_C),
        viral=viral_records(chunks, called),
        scores=score_rows(chunks, called, score_C),
        regions=region_texts(chunks, called, regions, score_C),
        n_regions=len(regions),
        tally=tally,
        picked=pick(chunks, called, regions),
        call=called.call,
        score=called.score,
    )


def block_counts(
    stores: Stores, cutoff: float, calibration: Calibration, block: RecordBlock
) -> tuple[NDArray[np.int64], int]:
    """What `calibration.counted` says of a block."""
    return counted(calibration, _called(stores, cutoff, block))


def _called(stores: Stores, cutoff: float, block: RecordBlock) -> RecordCalls:
    first, bounds, score_C = block
    frames = stores.frames
    return call_block(stores.chunks, frames.frame_chunk, score_C, first, bounds, cutoff=cutoff, frames=frames)
