"""Find the stretches of a record that score as viral.

Example: a contig of 100 kb in which chunks 61 to 140 are viral and all others are not has one region, from the first
base of chunk 61 to the last base of chunk 140. The contig is called others, so the region is a provirus candidate.

**The score of a base.** Neighbouring chunks overlap by some bases. The overlap is divided in its middle: the first
half belongs to the chunk before, the second half to the chunk after (of an odd number of bases, the second half has one
more). So each base belongs to exactly one chunk, and its score is that chunk's s (formula: `record_calls.py`).
`scores.bedgraph`, the regions and the tracks of the report all use this rule.

**The segmentation** is a Viterbi path through two states, viral and others, along the chunks of a record. A chunk adds
its log-odds ln(s / (1 - s)), with s limited to 0.01 to 0.99, if it is in the viral state; each change of state costs
ln(0.98 / 0.02), which means that one change in 50 chunks is expected. A chunk without a frame adds 0: it never ends a
region. From this follows:
- One chunk inside a record never makes a region of its own, two with s of at least 0.98 do.
- At the ends of a record one chunk with s of at least 0.98 is enough, because there is one change, not two.
- A record of one chunk is one region if the published tool calls the chunk virus.
- Of several best paths the one with the most viral chunks is taken, as equal scores of a chunk count as virus.

**The cut-off.** A chunk counts as virus from s = 0.5 on, as the published tool calls it. With another cut-off c of the
records, from --cutoff or a preset, regions follow the same decision as the call of the record: a chunk counts as virus
from s = c on, and adds ln(s / (1 - s)) - ln(c / (1 - c)). The preset's c is the least score with which a record of this
length is called virus. Then a record called others has no region that is the whole record, and a record whose length
the calibration does not cover has no region.

A region begins and ends with a chunk that has a frame, or where the record does. So `whole_record` means from its
first base to its last. Log-odds are whole thousandths, so sums do not depend on the direction in which a record is
read: the same chunks in reverse order give the same regions in reverse order.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.errors import UsageError
from virnucpro_core.files.columns import Array
from virnucpro_core.results.record_calls import OTHERS, PUBLISHED_CUTOFF, RecordCalls
from virnucpro_core.sequences.chunks import Chunks, Windows

Kind = Literal["whole_record", "viral_part", "provirus_candidate"]
KINDS: tuple[Kind, ...] = ("whole_record", "viral_part", "provirus_candidate")
MOST_SURE = 0.99
CHANGE = 0.02
_UNITS = 1000  # log-odds are counted in thousandths
COST = round(_UNITS * np.log((1 - CHANGE) / CHANGE))
# Of the columns of Regions.
_TYPES = (np.int64, np.int64, np.int64, np.uint8, np.float64, np.int64, np.int64, np.int64)


@dataclass(frozen=True, slots=True)
class RegionRule:
    """Which regions are written: those with at least `min_length` bases and `min_support` chunks called virus."""

    min_length: int = 0
    min_support: int = 1

    def __post_init__(self) -> None:
        """Raises UsageError for a value below 0."""
        if min(self.min_length, self.min_support) < 0:
            raise UsageError("a region's least length or support is below 0", remedy="give 0 or more")


@dataclass(frozen=True, slots=True)
class Region:
    """Bases start to end - 1 (from 0) of the record with index `record`.

    kind: `whole_record` if no scored chunk of the record is outside; else `provirus_candidate` if the record is called
    others, `viral_part` if not. score: mean s of the region's scored chunks. chunks_virus: those that count as virus at
    the cut-off of the record.
    """

    record: int
    start: int
    end: int
    kind: Kind
    score: float
    chunks: int
    chunks_scored: int
    chunks_virus: int


def own_bases(windows: Windows) -> tuple[Array, Array]:
    """First base and end of the bases that belong to each chunk, two arrays (n,); see the module for the rule.

    `windows` holds whole records. The parts of a record's chunks follow each other without gaps.
    """
    start, end = windows.start.copy(), windows.start + windows.length
    same = windows.record[1:] == windows.record[:-1]
    middle = (windows.start[1:] + end[:-1]) // 2
    start[1:] = np.where(same, middle, start[1:])
    end[:-1] = np.where(same, middle, end[:-1])
    return start, end


def log_odds(
    score_C: NDArray[np.float64], cutoff_C: NDArray[np.float64] | float = PUBLISHED_CUTOFF
) -> NDArray[np.int64]:
    """Log-odds of each chunk against its cut-off in thousandths, (C,); 0 for a chunk without a frame (NaN)."""
    s, c = (
        np.clip(np.where(np.isnan(values), 0.5, values), 1 - MOST_SURE, MOST_SURE)
        for values in (score_C, cutoff_C)
    )
    odds_C = np.rint(_UNITS * (np.log(s / (1 - s)) - np.log(c / (1 - c))))
    return np.where(np.isnan(score_C), 0, odds_C).astype(np.int64)


def viral_chunks(odds: Sequence[int]) -> list[bool]:
    """Which chunks of one record are in the viral state on the best path; see the module.

    `ahead` is how much better the best path up to here is if it is viral here, at most COST either way, because it can
    change. The same from the other end, and their sum decides. At most four numbers are kept for each chunk.
    """
    if len(odds) == 1:
        return [odds[0] >= 0]
    before, ahead = [], 0
    for odd in odds:
        ahead = max(-COST, min(COST, ahead)) + odd
        before.append(ahead)
    after, ahead = [], 0
    for odd in reversed(odds):
        after.append(max(-COST, min(COST, ahead)))
        ahead = after[-1] + odd
    return [a + b >= 0 for a, b in zip(before, reversed(after), strict=True)]


@dataclass(frozen=True, slots=True)
class Regions:
    """The regions of a block of records, in input order, as columns (n,); regions of a record are sorted and apart.

    record: index of the record in the sample. kind: an index into KINDS. The others are as in Region.
    """

    record: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    kind: NDArray[np.uint8]
    score: NDArray[np.float64]
    chunks: NDArray[np.int64]
    chunks_scored: NDArray[np.int64]
    chunks_virus: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.record)

    def of(self, record: int) -> list[Region]:
        """The regions of one record."""
        lo, hi = np.searchsorted(self.record, [record, record + 1]).tolist()
        columns = [getattr(self, name)[lo:hi].tolist() for name in Region.__slots__]
        rows = (dict(zip(Region.__slots__, row, strict=True)) for row in zip(*columns, strict=True))
        return [Region(**row | {"kind": KINDS[row["kind"]]}) for row in rows]


def find_regions(chunks: Chunks, block: RecordCalls, rule: RegionRule) -> Regions:
    """The regions of a block's records."""
    lasts = np.cumsum(block.chunks)
    cutoff: NDArray[np.float64] | float = PUBLISHED_CUTOFF
    if block.cutoff is not None:
        cutoff = np.repeat(block.cutoff, block.chunks)
    virus = np.concatenate([[0], np.cumsum(block.chunk_score >= cutoff)])
    candidates = np.flatnonzero(virus[lasts] > virus[lasts - block.chunks])
    alone = block.chunks[candidates] == 1
    found = _of_one_chunk(block, candidates[alone], lasts)
    if not alone.all():
        found = _merged(found, _of_many_chunks(chunks, block, candidates[~alone], virus, cutoff))
    is_kept = (found.end - found.start >= rule.min_length) & (found.chunks_virus >= rule.min_support)
    return found if is_kept.all() else _taken(found, np.flatnonzero(is_kept))


def _of_one_chunk(block: RecordCalls, rows: Array, lasts: Array) -> Regions:
    """The regions of records of one chunk, which counts as virus; most reads have one chunk."""
    if block.cutoff is not None:
        rows = rows[block.call[rows] != OTHERS]
    ones = np.ones(len(rows), np.int64)
    return Regions(
        record=block.first + rows,
        start=0 * ones,
        end=block.length[rows],
        kind=np.full(len(rows), KINDS.index("whole_record"), np.uint8),
        score=block.chunk_score[lasts[rows] - 1],
        chunks=ones,
        chunks_scored=ones,
        chunks_virus=ones,
    )


def _of_many_chunks(
    chunks: Chunks, block: RecordCalls, rows: Array, virus: Array, cutoff: NDArray[np.float64] | float
) -> Regions:
    """The regions of records of several chunks; virus: (chunks + 1,) number of chunks before that count as virus."""
    windows = chunks.windows(block.chunk_first, block.chunk_first + len(block.chunk_score))
    # Lists: most records have a few chunks, and arrays of that size are slow.
    start, end = (bases.tolist() for bases in own_bases(windows))
    odds, scores = log_odds(block.chunk_score, cutoff).tolist(), block.chunk_score.tolist()
    ends = np.cumsum(block.chunks)[rows]
    found: list[tuple[int | float, ...]] = []
    for k, lo, hi in zip(rows.tolist(), (ends - block.chunks[rows]).tolist(), ends.tolist(), strict=True):
        for first, last in _stretches(odds[lo:hi], scores[lo:hi]):
            a, b = lo + first, lo + last
            scored = [s for s in scores[a : b + 1] if not math.isnan(s)]
            kind, support = _kind(block, k, len(scored)), int(virus[b + 1] - virus[a])
            if kind:
                mean = math.fsum(scored) / len(scored)
                row = (block.first + k, start[a], end[b], KINDS.index(kind), mean)
                found.append((*row, b - a + 1, len(scored), support))
    columns = zip(*found, strict=True) if found else iter([()] * len(_TYPES))
    return Regions(*(np.array(column, kind) for column, kind in zip(columns, _TYPES, strict=True)))


def _merged(one: Regions, two: Regions) -> Regions:
    """Both, in order of the records; no record has regions in both."""
    both = Regions(*(np.concatenate([getattr(one, n), getattr(two, n)]) for n in Regions.__slots__))
    return _taken(both, np.argsort(both.record, kind="stable"))


def _taken(regions: Regions, rows: Array) -> Regions:
    return Regions(*(getattr(regions, name)[rows] for name in Regions.__slots__))


def _kind(block: RecordCalls, k: int, chunks_scored: int) -> Kind | None:
    """The kind of a region with `chunks_scored` scored chunks in record k of the block; None if it must not be one."""
    if chunks_scored == block.chunks_scored[k]:
        # Chunks can be viral together while their mean is below the cut-off. A cut-off that was asked for decides.
        return None if block.cutoff is not None and block.call[k] == OTHERS else "whole_record"
    return "provirus_candidate" if block.call[k] == OTHERS else "viral_part"


def _stretches(odds: list[int], scores: list[float]) -> Iterator[tuple[int, int]]:
    """First and last chunk of each viral stretch of a record.

    Chunks without a score (NaN) between a stretch and chunks called others are not part of it.
    """
    for first, last in _runs(viral_chunks(odds)):
        scored = [n for n in range(first, last + 1) if not math.isnan(scores[n])]
        if scored:
            yield (0 if first == 0 else scored[0]), (last if last == len(odds) - 1 else scored[-1])


def _runs(states: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """First and last of each run of true values."""
    for state, run in groupby(range(len(states)), key=states.__getitem__):
        members = list(run)
        if state:
            yield members[0], members[-1]
