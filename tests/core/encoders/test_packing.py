"""Packing: every sequence once, within the budget, as full as naive first-fit decreasing."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_core.encoders.packing import CUT_TILE, MIDDLE_TILE, SHORT_TILE, PackedBatch, pack, pack_shard
from virnucpro_core.errors import UsageError

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60)
BUDGETS = st.integers(1, 600)


def _tokens(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Token values that tell sequence and place apart."""
    tokens = [1000 * i + place for i, length in enumerate(lengths) for place in range(length)]
    return np.array(tokens, dtype=np.int32), np.array(lengths, dtype=np.int32)


def _naive_bins(lengths: list[int], budget: int) -> int:
    bins: list[int] = []
    for length in sorted(lengths, reverse=True):
        place = next((i for i, used in enumerate(bins) if used + length <= budget), None)
        if place is None:
            bins.append(length)
        else:
            bins[place] += length
    return len(bins)


@given(LENGTHS, BUDGETS)
def test_every_sequence_is_packed_once_and_whole(lengths: list[int], budget: int) -> None:
    seen = []
    for batch in pack(*_tokens(lengths), budget):
        starts = batch.starts_B1.tolist()
        assert starts[-1] == batch.n_tokens == len(batch.tokens_T)
        assert batch.lengths_B.tolist() == sorted(batch.lengths_B.tolist(), reverse=True)
        for i, row in enumerate(batch.rows_B.tolist()):
            tokens = batch.tokens_T[starts[i] : starts[i + 1]].tolist()
            assert tokens == [1000 * row + place for place in range(lengths[row])]
            assert set(batch.first_T[starts[i] : starts[i + 1]].tolist()) == {starts[i]}
            seen.append(row)
    assert sorted(seen) == list(range(len(lengths)))


@given(LENGTHS, BUDGETS)
def test_budget_is_kept_with_as_few_batches_as_first_fit_decreasing(lengths: list[int], budget: int) -> None:
    shard = pack_shard(7, *_tokens(lengths), budget, longest=200)
    for batch in shard.batches:
        assert batch.n_tokens <= shard.budget <= budget or batch.n_sequences == 1
    assert len(shard.batches) == _naive_bins(lengths, budget)
    assert 0 < shard.efficiency <= 1
    assert shard.overlong == sum(length > 200 for length in lengths)
    assert (shard.n_sequences, shard.n_tokens, shard.shard) == (len(lengths), sum(lengths), 7)


@given(LENGTHS, BUDGETS)
def test_tiles_cover_every_row_once_and_never_split_a_short_sequence(lengths: list[int], budget: int) -> None:
    for batch in pack(*_tokens(lengths), budget):
        starts, rows = set(batch.starts_B1.tolist()), []
        for tiles, size in ((batch.short_N2, SHORT_TILE), (batch.middle_N2, MIDDLE_TILE)):
            for low, high in tiles.tolist():
                assert {low, high} <= starts
                assert high - low <= size
                rows += range(low, high)
        for low, high, begin, end in batch.long_N4.tolist():
            assert batch.first_T[low] == batch.first_T[high - 1] == begin
            assert {begin, end} <= starts
            assert end - begin > MIDDLE_TILE
            assert high - low <= CUT_TILE
            rows += range(low, high)
        assert sorted(rows) == list(range(batch.n_tokens))


@pytest.mark.parametrize(("mean", "least"), [(4.0, 0.99), (5.3, 0.97)])
def test_a_shard_of_ten_thousand_is_packed_full(mean: float, least: float) -> None:
    random = np.random.default_rng(0)
    lengths_B = np.clip(random.lognormal(mean, 0.3, 10_000), 30, 1024).astype(np.int32)
    shard = pack_shard(0, np.zeros(lengths_B.sum(), dtype=np.int32), lengths_B, 16_384)
    sizes = [batch.n_tokens for batch in shard.batches]
    assert shard.efficiency > least
    assert min(sizes) > 0.9 * max(sizes)


def test_moving_to_a_device_keeps_everything() -> None:
    (batch,) = pack(*_tokens([3, 70, 200]), 300)
    moved = batch.to(torch.device("cpu"), non_blocking=True)
    assert torch.equal(moved.words, batch.words)
    assert moved.equal_lengths() == [(0, 1, 200), (200, 1, 70), (270, 1, 3)]
    assert isinstance(copy.copy(moved), PackedBatch)


def test_lengths_and_tokens_that_disagree_are_refused() -> None:
    tokens_T, lengths_B = _tokens([3, 4])
    with pytest.raises(UsageError, match="sum to 7"):
        pack(tokens_T[:-1], lengths_B, 100)
    assert pack(tokens_T[:0], lengths_B[:0], 100) == ()
