"""The vectorised translation is the plain loop, frame for frame."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.reference_translation import COMPLEMENT, frames, open_frames
from tests.support.reference_translation import translate as translate_plainly
from virnucpro_core.sequences.translation import FRAMES, translate

LETTERS = st.sampled_from(["ACGT", "ACGTN", "ACGTacgtn", "ACGTURYSWKMBDHVNacgturyswkmbdhvn", "ACG", "N"])
CHUNK = LETTERS.flatmap(lambda letters: st.text(letters, min_size=1, max_size=90))
GENE = st.lists(st.sampled_from(["ATG", "GCC", "NNN", "gga", "TAA", "CTA", "ACR"]), min_size=1, max_size=30)


def fast(chunks: list[str], gap: int = 0, least: int = 0) -> list[tuple[int, str, str, str]]:
    bases = ("-" * gap).join(chunks).encode()
    lengths = np.array([len(chunk) for chunk in chunks], np.int64)
    starts = np.cumsum(lengths + gap) - lengths - gap
    kept = translate(bases, starts, lengths, least)
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


STOPPED = st.lists(st.sampled_from(["TAA", "CTA", "ATG", "GCC", "NNN", "a", "GC"]), min_size=1, max_size=40)


@given(st.lists(CHUNK | STOPPED.map("".join), min_size=1, max_size=8), st.integers(0, 3), st.integers(1, 12))
@example(["TAACTAATTAGTTAACTAATTAG"], 0, 1)
@example(["NNNTAANNNCTAGTTAG", "NNN", "TAA", "ATGGCC"], 1, 1)
def test_open_frames_equal_the_plain_loop(chunks: list[str], gap: int, least: int) -> None:
    expected = [
        (i, *row) for i, chunk in enumerate(chunks) for row in frames(chunk) or open_frames(chunk, least)
    ]
    assert fast(chunks, gap, least) == expected


@given(st.lists(CHUNK | STOPPED.map("".join), min_size=1, max_size=8), st.integers(1, 12))
def test_an_open_frame_is_a_stretch_without_a_stop_inside_a_frame_and_no_stretch_is_longer(
    chunks: list[str], least: int
) -> None:
    lengths = np.array([len(chunk) for chunk in chunks], np.int64)
    kept = translate("".join(chunks).encode(), np.cumsum(lengths) - lengths, lengths, least)
    has_frame = [bool(frames(chunk)) for chunk in chunks]
    assert kept.is_open.tolist() == [not has_frame[k] for k in kept.chunk.tolist()]
    rows = zip(kept.chunk.tolist(), kept.code.tolist(), kept.nucleotides, kept.proteins, strict=True)
    for (chunk, code, letters, protein), is_open in zip(rows, kept.is_open.tolist(), strict=True):
        strand = chunks[chunk].upper()
        if code >= 3:
            strand = "".join(COMPLEMENT.get(letter, letter) for letter in reversed(strand))
        whole = translate_plainly(strand, code % 3)
        assert protein.decode() in whole.split("*")
        assert strand[code % 3 :].startswith(letters.decode())
        assert len(letters) in (3 * len(whole), 3 * len(whole) + 1)
        if is_open:
            assert least <= len(protein) == max(map(len, whole.split("*")))


@given(st.lists(CHUNK, min_size=1, max_size=8), st.integers(1, 12))
def test_chunks_with_a_frame_are_as_without_open_frames(chunks: list[str], least: int) -> None:
    published = fast(chunks)
    with_frame = {chunk for chunk, *_ in published}
    assert [row for row in fast(chunks, 0, least) if row[0] in with_frame] == published


def test_the_longest_stretch_of_each_frame() -> None:
    found = fast(["GCC" * 9 + "TAA" + "GAC" * 12 + "TAGTTAACTAACTAGTTAG"], 0, 10)
    assert found[0][1:] == ("F1", "GCC" * 9 + "TAA" + "GAC" * 12 + "TAGTTAACTAACTAGTTAG", "D" * 12)
    assert all(len(protein) >= 10 for *_, protein in found)
