"""Laws of the segmentation: regions lie inside their record, are sorted and disjoint, and mirror with the record."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.scored import scored_sample, sequence
from virnucpro_core.errors import UsageError
from virnucpro_core.results.record_calls import OTHERS, VIRUS, RecordCalls, call_records
from virnucpro_core.results.regions import (
    COST,
    Region,
    RegionRule,
    find_regions,
    log_odds,
    own_bases,
    viral_chunks,
)
from virnucpro_core.sequences.chunks import Chunks, Windows, chunk_counts, chunk_starts, write_records
from virnucpro_core.sequences.fasta import Record

SCORE = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0]), st.just(np.nan))
ODDS = st.lists(st.integers(-5, 5).map(lambda n: n * 1000) | st.integers(-4595, 4595), min_size=1, max_size=9)
ANY = RegionRule(0, 0)


def windows_of(length: int, size: int) -> Windows:
    start = chunk_starts(length, size)
    n = len(start)
    return Windows(np.zeros(n, np.int64), np.arange(n), start, np.minimum(length - start, size))


def path_value(odds: list[int], states: tuple[bool, ...]) -> int:
    gain = sum(odd for odd, state in zip(odds, states, strict=True) if state)
    return gain - COST * sum(a != b for a, b in itertools.pairwise(states))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Chunks:
    """Four records in chunks of 60: of one chunk, of many with overlaps, without any, of many without overlaps."""
    lengths = (41, 1234, 0, 600)
    records = [
        Record(f"r{n}", "", sequence(length, n).encode(), 0, n + 1, "" if length else "empty record", 0)
        for n, length in enumerate(lengths)
    ]
    return write_records(records, tmp_path_factory.mktemp("store") / "chunks", chunk_size=60)


def blocks_of(store: Chunks, score: NDArray[np.float64], cutoff: float = 0.5) -> list[RecordCalls]:
    frame_chunk = np.flatnonzero(~np.isnan(score))
    return list(call_records(store, frame_chunk, score, cutoff=cutoff))


def regions_of(store: Chunks, score: NDArray[np.float64], rule: RegionRule = ANY) -> dict[int, list[Region]]:
    return {k: v for b in blocks_of(store, score) for k, v in found_in(store, b, rule).items()}


def found_in(store: Chunks, block: RecordCalls, rule: RegionRule) -> dict[int, list[Region]]:
    regions = find_regions(store, block, rule)
    return {record: regions.of(record) for record in dict.fromkeys(regions.record.tolist())}


@given(ODDS)
def test_the_path_is_a_best_one_and_of_these_the_one_with_most_viral_chunks(odds: list[int]) -> None:
    paths = list(itertools.product((False, True), repeat=len(odds)))
    best = max(path_value(odds, path) for path in paths)
    found = tuple(viral_chunks(odds))
    assert path_value(odds, found) == best
    assert sum(found) == max(sum(path) for path in paths if path_value(odds, path) == best)


@given(st.lists(SCORE, min_size=1, max_size=60))
def test_chunks_in_reverse_order_give_the_regions_in_reverse_order(scores: list[float]) -> None:
    odds = log_odds(np.array(scores)).tolist()
    assert viral_chunks(odds[::-1]) == viral_chunks(odds)[::-1]


@given(st.lists(SCORE, min_size=1, max_size=60))
def test_exchanging_the_classes_exchanges_the_states_but_for_ties(scores: list[float]) -> None:
    s = np.array(scores)
    odds = log_odds(s)
    assert (log_odds(1 - s) == -odds).all() or np.abs(log_odds(1 - s) + odds).max() <= 1
    one, other = viral_chunks(odds.tolist()), viral_chunks((-odds).tolist())
    assert all(a or b for a, b in zip(one, other, strict=True))


@given(st.integers(1, 5000), st.integers(6, 700))
def test_each_base_belongs_to_one_chunk_that_covers_it(length: int, size: int) -> None:
    windows = windows_of(length, size)
    start, end = own_bases(windows)
    assert (start[0], end[-1]) == (0, length)
    assert (start[1:] == end[:-1]).all()
    assert (start < end).all()
    assert (start >= windows.start).all()
    assert (end <= windows.start + windows.length).all()


@given(st.integers(1, 5000), st.integers(6, 700))
def test_the_same_chunks_in_a_mirrored_record_own_the_mirrored_bases(length: int, size: int) -> None:
    """To a base: of an odd overlap the second chunk has the middle. Exact where chunks do not overlap."""
    windows = windows_of(length, size)
    mirrored = Windows(
        windows.record, windows.number, (length - windows.start - windows.length)[::-1], windows.length[::-1]
    )
    start, end = own_bases(windows)
    start_m, end_m = own_bases(mirrored)
    assert np.abs(start - (length - end_m)[::-1]).max() <= 1
    assert np.abs(end - (length - start_m)[::-1]).max() <= 1
    if length % size == 0:
        assert (start == (length - end_m)[::-1]).all()


@given(st.data())
def test_regions_lie_in_their_record_and_are_sorted_and_apart(store: Chunks, data: st.DataObject) -> None:
    n = store.n_chunks
    score = np.array(data.draw(st.lists(SCORE, min_size=n, max_size=n)))
    (block,) = blocks_of(store, score)
    everything = found_in(store, block, ANY)
    assert list(everything) == sorted(everything)
    start, end = own_bases(store.windows(0, n))
    for record, found in everything.items():
        lo, hi = store.chunk_offsets[record], store.chunk_offsets[record + 1]
        for region in found:
            assert 0 <= region.start < region.end <= store.lengths[record]
            first = lo + int(np.flatnonzero(start[lo:hi] == region.start)[0])
            last = lo + int(np.flatnonzero(end[lo:hi] == region.end)[0])
            inside = score[first : last + 1]
            assert region.start == 0 or not np.isnan(inside[0])
            assert region.end == store.lengths[record] or not np.isnan(inside[-1])
            assert region.chunks == len(inside)
            assert region.chunks_scored == (~np.isnan(inside)).sum()
            assert region.chunks_virus == (inside >= 0.5).sum() > 0
            assert region.score == pytest.approx(np.nanmean(inside))
            whole = region.chunks_scored == block.chunks_scored[record]
            other = "viral_part" if block.call[record] == 0 else "provirus_candidate"
            assert region.kind == ("whole_record" if whole else other)
            assert not whole or (region.start, region.end) == (0, store.lengths[record])
        assert all(a.end <= b.start for a, b in itertools.pairwise(found))
    rule = RegionRule(data.draw(st.integers(0, 700)), data.draw(st.integers(0, 6)))
    assert found_in(store, block, rule) == {
        record: kept
        for record, found in everything.items()
        if (
            kept := [
                r for r in found if r.end - r.start >= rule.min_length and r.chunks_virus >= rule.min_support
            ]
        )
    }


@given(st.lists(SCORE, min_size=10, max_size=10))
def test_a_record_without_overlaps_gives_mirrored_regions_from_its_reverse_complement(
    store: Chunks, scores: list[float]
) -> None:
    """600 bases in chunks of 60: the reverse complement has the same chunks, in reverse order."""
    length, record = 600, 3
    lo, hi = store.chunk_offsets[record], store.chunk_offsets[record + 1]
    score = np.full(store.n_chunks, np.nan)
    score[lo:hi] = scores
    forward = regions_of(store, score).get(record, [])
    score[lo:hi] = scores[::-1]
    backward = regions_of(store, score).get(record, [])
    assert [(length - r.end, length - r.start, r.chunks, r.kind) for r in backward[::-1]] == [
        (r.start, r.end, r.chunks, r.kind) for r in forward
    ]


@given(st.data())
def test_with_another_cutoff_regions_never_contradict_the_call(store: Chunks, data: st.DataObject) -> None:
    n, cutoff = store.n_chunks, data.draw(st.floats(0, 1).filter(lambda c: c != 0.5))
    near = st.floats(max(0, cutoff - 0.1), min(1, cutoff + 0.1)) | SCORE
    score = np.array(data.draw(st.lists(near, min_size=n, max_size=n)))
    (block,) = blocks_of(store, score, cutoff)
    for record, found in found_in(store, block, RegionRule(0, 1)).items():
        if block.call[record] == OTHERS:
            assert {r.kind for r in found} == {"provirus_candidate"}
        else:
            assert {r.kind for r in found} <= {"whole_record", "viral_part"}
        assert all(r.score > cutoff - 0.5 for r in found)
    one = 0  # a record of one chunk
    is_virus = block.call[one] == VIRUS
    assert (one in found_in(store, block, RegionRule(0, 1))) == is_virus


def test_a_stricter_cutoff_leaves_less_and_a_looser_one_more(store: Chunks) -> None:
    score = np.full(store.n_chunks, np.nan)
    score[store.chunk_offsets[3] :] = 0.7
    kinds = {c: [r.kind for b in blocks_of(store, score, c) for r in found_in(store, b, ANY).get(3, [])]
             for c in (0.5, 0.6, 0.7, 0.9)}  # fmt: skip
    assert kinds == {0.5: ["whole_record"], 0.6: ["whole_record"], 0.7: ["whole_record"], 0.9: []}
    score[store.chunk_offsets[3] :] = 0.4
    (block,) = blocks_of(store, score, 0.3)
    assert [(r.kind, r.chunks_virus) for r in found_in(store, block, RegionRule(0, 10))[3]] == [
        ("whole_record", 10)
    ]


def cases(*, n: int, viral: range, other: float = 0.02, sure: float = 0.98) -> NDArray[np.float64]:
    return np.array([sure if k in viral else other for k in range(n)])


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (cases(n=10, viral=range(4, 6)), [(240, 360, "provirus_candidate")]),
        (cases(n=10, viral=range(4, 5)), []),
        (cases(n=10, viral=range(1)), [(0, 60, "provirus_candidate")]),
        (cases(n=10, viral=range(10)), [(0, 600, "whole_record")]),
        (cases(n=10, viral=range(7)), [(0, 420, "viral_part")]),
        (cases(n=10, viral=range(0)), []),
        (np.array([0.98, 0.98, np.nan, np.nan, 0.98, *[0.02] * 5]), [(0, 300, "provirus_candidate")]),
        (np.array([np.nan, 0.9, 0.4, 0.9, *[np.nan] * 6]), [(0, 600, "whole_record")]),
        (np.array([np.nan, 0.9, np.nan, *[0.01] * 7]), []),
        (np.array([np.nan, 0.99, np.nan, *[0.01] * 7]), [(0, 120, "provirus_candidate")]),
        (np.array([*[0.01] * 5, np.nan, 0.98, 0.98, np.nan, 0.01]), [(360, 480, "provirus_candidate")]),
        (np.full(10, np.nan), []),
    ],
    ids=[
        "inside",
        "one_chunk",
        "at_the_end",
        "all",
        "most",
        "none",
        "bridged",
        "unscored_ends",
        "unsure_end",
        "sure_end",
        "unscored_borders",
        "unscored",
    ],
)
def test_what_becomes_a_region(
    store: Chunks, scores: NDArray[np.float64], expected: list[tuple[int, int, str]]
) -> None:
    score = np.full(store.n_chunks, np.nan)
    score[store.chunk_offsets[3] :] = scores
    found = regions_of(store, score).get(3, [])
    assert [(r.start, r.end, r.kind) for r in found] == expected


@given(SCORE)
def test_a_record_of_one_chunk_is_a_region_exactly_if_it_is_viral(store: Chunks, score: float) -> None:
    scores = np.full(store.n_chunks, np.nan)
    scores[0] = score
    found = regions_of(store, scores)
    assert [(r.start, r.end, r.kind) for r in found.get(0, [])] == (
        [(0, 41, "whole_record")] if score >= 0.5 else []
    )


def test_a_rule_below_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="below 0"):
        RegionRule(min_length=-1)


def test_the_counts_of_chunks_are_those_of_the_store(tmp_path: Path) -> None:
    """The windows that these tests make up are those of the store."""
    sample = scored_sample(tmp_path, f">a\n{sequence(1234, 1)}\n")
    made, stored = windows_of(1234, 60), sample.chunks.windows(0, sample.chunks.n_chunks)
    assert sample.chunks.n_chunks == chunk_counts(np.array([1234]), 60)[0]
    assert (made.start == stored.start).all()
    assert (made.length == stored.length).all()
