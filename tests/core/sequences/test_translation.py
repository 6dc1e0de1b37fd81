"""The vectorised translation is the plain loop, frame for frame."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.reference_translation import frames
from virnucpro_core.sequences.translation import FRAMES, translate

LETTERS = st.sampled_from(["ACGT", "ACGTN", "ACGTacgtn", "ACGTURYSWKMBDHVNacgturyswkmbdhvn", "ACG", "N"])
CHUNK = LETTERS.flatmap(lambda letters: st.text(letters, min_size=1, max_size=90))
GENE = st.lists(st.sampled_from(["ATG", "GCC", "NNN", "gga", "TAA", "CTA", "ACR"]), min_size=1, max_size=30)


def fast(chunks: list[str], gap: int = 0) -> list[tuple[int, str, str, str]]:
    bases = ("-" * gap).join(chunks).encode()
    lengths = np.array([len(chunk) for chunk in chunks], np.int64)
    starts = np.cumsum(lengths + gap) - lengths - gap
    kept = translate(bases, starts, lengths)
    assert kept.code.dtype == np.uint8
    rows = zip(kept.chunk.tolist(), kept.code.tolist(), kept.nucleotides, kept.proteins, strict=True)
    return [(chunk, FRAMES[code], slice_.decode(), protein.decode()) for chunk, code, slice_, protein in rows]


def plain(chunks: list[str]) -> list[tuple[int, str, str, str]]:
    return [(i, *frame) for i, chunk in enumerate(chunks) for frame in frames(chunk)]


@given(st.lists(CHUNK | GENE.map("".join), min_size=1, max_size=8), st.integers(0, 3))
@example(["A"], 0)
@example(["AC", "G", "ACG", "ACGT", "ACGTA"], 0)
@example(["NNNATG", "NNNACG"], 0)
@example(["TTA", "TAA", "CTACTA"], 0)
def test_equals_the_plain_loop(chunks: list[str], gap: int) -> None:
    assert fast(chunks, gap) == plain(chunks)


@given(CHUNK, st.lists(st.tuples(st.integers(0, 90), st.integers(1, 40)), max_size=6))
def test_windows_may_overlap_and_come_in_any_order(bases: str, windows: list[tuple[int, int]]) -> None:
    windows = [(start % len(bases), n) for start, n in windows]
    chunks = [bases[start : start + n] for start, n in windows]
    starts = np.array([start for start, _ in windows], np.int64)
    kept = translate(bases.encode(), starts, np.array([len(chunk) for chunk in chunks], np.int64))
    expected = plain(chunks)
    assert [FRAMES[code] for code in kept.code] == [frame for _, frame, _, _ in expected]
    assert kept.chunk.tolist() == [chunk for chunk, *_ in expected]
    assert kept.nucleotides[:] == [letters.encode() for *_, letters, _ in expected]
    assert kept.proteins[:] == [protein.encode() for *_, protein in expected]


def test_one_base_more_than_the_codons() -> None:
    lengths = [len(letters) for _, _, letters, _ in fast(["GCC" * 166 + "GC"])]
    assert lengths[:3] == [499, 499, 498]


def test_no_windows() -> None:
    assert fast([]) == []
