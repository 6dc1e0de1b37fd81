"""Packs the tokens of many sequences into batches without padding: first-fit decreasing into a token budget.

Everything that a kernel needs to know about a batch is computed here, on the host, with numpy, so that worker
processes can do it. Knows no model.

Shapes: T tokens of a batch, B sequences of a batch, 1 one more; N any other count.
"""

import bisect
import itertools
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch

from virnucpro_core.errors import UsageError

# Rows of an attention tile. Sequences of at most SHORT_TILE (MIDDLE_TILE) tokens lie whole in one tile.
SHORT_TILE = 64
MIDDLE_TILE = 128
# Longer sequences are cut into tiles of query rows.
CUT_TILE = 64
# Sections of `words` start at multiples of 16 bytes, so that compiled kernels see one alignment only.
_ALIGN = 4


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Sequences one after the other, longest first; rows of equal length are neighbours.

    `words` holds all that travels to the device, in one int32 block (one pinned copy); the properties are
    views: `tokens_T`, `starts_B1` (row at which each sequence starts, and T), `first_T` (for each row, the
    row at which its sequence starts), and the attention tiles, `short_N2` and `middle_N2`: [from, to) rows
    of up to 64 or 128 rows that hold whole sequences; `long_N4`: [from, to) query rows of one longer
    sequence, then its own [from, to). `rows_B` (int64, host) is the position of each sequence in the shard,
    `lengths_B` (int32, host) its tokens.
    """

    words: torch.Tensor
    sections: tuple[int, ...]
    rows_B: np.ndarray
    lengths_B: np.ndarray

    @property
    def n_tokens(self) -> int:
        return self.sections[0]

    @property
    def n_sequences(self) -> int:
        return len(self.rows_B)

    @property
    def max_length(self) -> int:
        return int(self.lengths_B[0])

    @property
    def n_long_tokens(self) -> int:
        """Rows of the sequences above MIDDLE_TILE tokens: the first rows of the batch."""
        return int(self.lengths_B[self.lengths_B > MIDDLE_TILE].sum())

    @property
    def tokens_T(self) -> torch.Tensor:
        return self._section(0)

    @property
    def starts_B1(self) -> torch.Tensor:
        return self._section(1)

    @property
    def first_T(self) -> torch.Tensor:
        return self._section(2)

    @property
    def short_N2(self) -> torch.Tensor:
        return self._section(3).view(-1, 2)

    @property
    def middle_N2(self) -> torch.Tensor:
        return self._section(4).view(-1, 2)

    @property
    def long_N4(self) -> torch.Tensor:
        return self._section(5).view(-1, 4)

    def equal_lengths(self) -> list[tuple[int, int, int]]:
        """(first row, number of sequences, tokens of each) for each run of equal lengths; host only."""
        changes = np.flatnonzero(np.diff(self.lengths_B)) + 1
        groups, row = [], 0
        for run in np.split(self.lengths_B, changes):
            groups.append((row, len(run), int(run[0])))
            row += len(run) * int(run[0])
        return groups

    def take(self, keep: np.ndarray) -> "PackedBatch":
        """The batch of the sequences at positions `keep` (ascending) alone; host only."""
        starts = np.asarray(self.starts_B1)
        tokens_T = np.asarray(self.tokens_T)
        parts = [tokens_T[starts[i] : starts[i + 1]] for i in keep.tolist()]
        return _batch(np.concatenate(parts), self.lengths_B[keep].astype(np.int64), self.rows_B[keep])

    def halves(self) -> "tuple[PackedBatch, PackedBatch]":
        """Two batches of half the sequences each, for a device that could not hold them all."""
        positions = np.arange(self.n_sequences)
        middle = self.n_sequences // 2
        return self.take(positions[:middle]), self.take(positions[middle:])

    def pin_memory(self) -> Self:
        return replace(self, words=self.words.pin_memory())

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Self:
        return replace(self, words=self.words.to(device, non_blocking=non_blocking))

    def _section(self, index: int) -> torch.Tensor:
        start = sum(_aligned(size) for size in self.sections[:index])
        return self.words[start : start + self.sections[index]]


@dataclass(frozen=True, slots=True)
class PackedShard:
    """All batches of one shard. `budget` is the balanced token budget, at most the one asked for.

    `place_R` (int64, host): where each row of the shard lies among the batches' sequences, one batch after the other.
    `overlong` counts the sequences with more tokens than the model was trained on.
    """

    shard: int
    batches: tuple[PackedBatch, ...]
    place_R: torch.Tensor
    n_sequences: int
    n_tokens: int
    budget: int
    overlong: int

    @property
    def efficiency(self) -> float:
        """Real tokens over token budget, at most 1; a batch above the budget counts as its own budget."""
        room = sum(max(self.budget, b.n_tokens) for b in self.batches)
        return self.n_tokens / room if room else 1.0

    def pin_memory(self) -> Self:
        return replace(
            self, batches=tuple(b.pin_memory() for b in self.batches), place_R=self.place_R.pin_memory()
        )


def pack(tokens_T: np.ndarray, lengths_B: np.ndarray, budget: int) -> tuple[PackedBatch, ...]:
    """Batches of at most `budget` tokens; a longer sequence gets a batch of its own.

    tokens_T (T,) int32 holds the sequences one after the other, lengths_B (B,) int32 their tokens. Every
    sequence is in exactly one batch. Equal input gives equal batches. Raises UsageError where the shapes
    disagree.
    """
    return pack_shard(0, tokens_T, lengths_B, budget).batches


def pack_shard(
    shard: int, tokens_T: np.ndarray, lengths_B: np.ndarray, budget: int, *, longest: int | None = None
) -> PackedShard:
    """`pack`, with the counts of the shard; `longest`: sequences of more tokens are counted as overlong."""
    if budget < 1 or (lengths_B < 1).any() or int(lengths_B.sum(dtype=np.int64)) != len(tokens_T):
        raise UsageError(
            f"{len(tokens_T):,} tokens, lengths that sum to {int(lengths_B.sum(dtype=np.int64)):,}, "
            f"budget {budget:,}",
            remedy="lengths and budget are positive and the lengths sum to the number of tokens",
        )
    budget, bins_B = balanced_bins(lengths_B, budget)
    order = np.lexsort((np.arange(len(bins_B)), -lengths_B.astype(np.int64), bins_B))
    sizes = lengths_B[order].astype(np.int64)
    sources = np.cumsum(lengths_B, dtype=np.int64) - lengths_B
    targets = np.cumsum(sizes) - sizes
    packed_T = tokens_T[np.repeat(sources[order] - targets, sizes) + np.arange(len(tokens_T))]
    bounds = np.searchsorted(bins_B[order], np.arange(int(bins_B.max(initial=-1)) + 2))
    batches = []
    for low, high in itertools.pairwise(bounds.tolist()):
        first = targets[low]
        batches.append(
            _batch(packed_T[first : first + sizes[low:high].sum()], sizes[low:high], order[low:high])
        )
    return PackedShard(
        shard=shard,
        batches=tuple(batches),
        place_R=torch.from_numpy(np.argsort(order)),
        n_sequences=len(lengths_B),
        n_tokens=len(tokens_T),
        budget=budget,
        overlong=0 if longest is None else int((lengths_B > longest).sum()),
    )


def balanced_bins(lengths_B: np.ndarray, budget: int) -> tuple[int, np.ndarray]:
    """First-fit decreasing: (token budget used, bin of each sequence (B,) int64).

    The budget is lowered as long as the number of bins stays, so that the last bin is not nearly empty.
    """
    bins_B = first_fit_decreasing(lengths_B, budget)
    fitting = lengths_B[lengths_B <= budget]
    n_bins = int(bins_B.max(initial=-1)) + 1
    n_shared = n_bins - (len(lengths_B) - len(fitting))
    if n_shared == 0:
        return budget, bins_B
    for slack in (1.001, 1.005, 1.02):
        lower = max(int(np.ceil(fitting.sum(dtype=np.int64) / n_shared * slack)), int(fitting.max()))
        if lower >= budget:
            break
        balanced = first_fit_decreasing(lengths_B, lower)
        if int(balanced.max()) + 1 == n_bins:
            return lower, balanced
    return budget, bins_B


def first_fit_decreasing(lengths_B: np.ndarray, budget: int) -> np.ndarray:
    """Bin of each sequence (B,) int64. Equal lengths are placed at once: the loop is over distinct ones."""
    order = np.argsort(-lengths_B.astype(np.int64), kind="stable")
    values, counts = np.unique(lengths_B, return_counts=True)
    free = np.zeros(len(lengths_B), dtype=np.int64)  # room left in each bin; as many bins as ever needed
    used = 0
    places = []
    for length, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        room = np.maximum(free[:used] // length, 0)  # a bin of one over-long sequence has none
        fill = np.minimum(np.cumsum(room), count)
        fill = np.diff(fill, prepend=0)
        left = count - int(fill.sum())
        per_bin = max(budget // length, 1)
        new = -(-left // per_bin)
        taken = np.concatenate([fill, np.full(new, per_bin)])
        if new:
            taken[-1] = left - (new - 1) * per_bin
            free[used : used + new] = budget
            used += new
        free[:used] -= taken * length
        places.append(np.repeat(np.arange(used), taken))
    bins_B = np.empty(len(lengths_B), dtype=np.int64)
    bins_B[order] = np.concatenate(places) if places else np.empty(0, dtype=np.int64)
    return bins_B


def _batch(tokens_T: np.ndarray, lengths_B: np.ndarray, rows_B: np.ndarray) -> PackedBatch:
    starts_B1 = np.concatenate([[0], np.cumsum(lengths_B)])
    n_long = int((lengths_B > MIDDLE_TILE).sum())
    n_above_short = int((lengths_B > SHORT_TILE).sum())
    sections = (
        tokens_T,
        starts_B1,
        np.repeat(starts_B1[:-1], lengths_B),
        _whole_tiles(starts_B1[n_above_short:], SHORT_TILE).ravel(),
        _whole_tiles(starts_B1[n_long : n_above_short + 1], MIDDLE_TILE).ravel(),
        _cut_tiles(starts_B1[: n_long + 1]).ravel(),
    )
    words = np.zeros(sum(_aligned(len(s)) for s in sections), dtype=np.int32)
    start = 0
    for section in sections:
        words[start : start + len(section)] = section
        start += _aligned(len(section))
    return PackedBatch(
        words=torch.from_numpy(words),
        sections=tuple(len(s) for s in sections),
        rows_B=rows_B.astype(np.int64),
        lengths_B=lengths_B.astype(np.int32),
    )


def _whole_tiles(starts_N1: np.ndarray, rows: int) -> np.ndarray:
    """(N, 2): neighbouring whole sequences, as many as fit into `rows` rows; each is at most `rows` long."""
    starts, tiles = starts_N1.tolist(), []
    first, count = 0, len(starts) - 1
    while first < count:
        last = bisect.bisect_right(starts, starts[first] + rows) - 1
        tiles.append((starts[first], starts[last]))
        first = last
    return np.array(tiles, dtype=np.int32).reshape(-1, 2)


def _cut_tiles(starts_N1: np.ndarray) -> np.ndarray:
    """(N, 4): each sequence cut into tiles of CUT_TILE query rows, with the bounds of the sequence."""
    lengths = np.diff(starts_N1)
    counts = -(-lengths // CUT_TILE)
    begin, end = np.repeat(starts_N1[:-1], counts), np.repeat(starts_N1[1:], counts)
    index = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    low = begin + index * CUT_TILE
    return np.stack([low, np.minimum(low + CUT_TILE, end), begin, end], axis=1).astype(np.int32)


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
