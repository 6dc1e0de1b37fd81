"""Rows that are built together are those that a loop builds one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_core.results import rows as module
from virnucpro_core.results.region_files import MARK, numbered
from virnucpro_core.results.rows import Texts, decimals, fasta, joined, numbers, words

IDS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1).map(str.encode)
SHARE = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 5e-324, 1e-5, 1e-4, 0.5, 1.0]), st.just(np.nan))
ROW = st.tuples(IDS, st.integers(0, 10**12), SHARE, st.integers(0, 2), st.booleans())


@given(st.lists(ROW, max_size=30), st.integers(1, 7), st.integers(1, 200))
def test_rows_are_those_of_a_plain_loop(
    table: list[tuple[bytes, int, float, int, bool]], at_a_time: int, most_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS", at_a_time)
        patch.setattr(module, "_BYTES", most_bytes)
        ids, whole, share, which, chosen = (
            (list(column) for column in zip(*table, strict=True)) if table else [()] * 5
        )
        doubles, singles = np.array(share, np.float64), np.array(share, np.float32)
        names = Texts(ids)
        columns = [names, b"\t", numbers(np.array(whole, np.int64)), b"\t", decimals(doubles), b"\t"]
        columns += [decimals(singles), b"\t", words(np.array(which, np.int64), ("virus", "others", ""))]
        mask = np.array(chosen, np.bool_)
        written = joined(len(table), [*columns, (mask, b"+"), (mask, names), b"\n"])
    expected = b""
    for k, (name, number, value, word, is_chosen) in enumerate(table):
        texts = ["" if np.isnan(value) else repr(value), "" if np.isnan(value) else str(singles[k])]
        cells = [str(number), *texts, ("virus", "others", "")[word]]
        expected += name + b"\t" + "\t".join(cells).encode() + (b"+" + name if is_chosen else b"") + b"\n"
    assert written == expected


@given(st.lists(IDS, min_size=1, max_size=9), st.data())
def test_a_text_can_have_many_rows(ids: list[bytes], data: st.DataObject) -> None:
    which = sorted(data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=30)))
    written = joined(len(which), [Texts(ids, np.array(which, np.int64)), b"\n"])
    assert written == b"".join(ids[k] + b"\n" for k in which)


def test_letters_come_in_lines_and_marks_become_numbers() -> None:
    assert fasta([b"a b", b"c"], [b"ACGTA", b"AC"], 2) == b">a b\nAC\nGT\nA\n>c\nAC\n"
    assert numbered(b"x " + MARK + b" y " + MARK, 9) == b"x 9 y 10"
    assert numbered(b"none", 9) == b"none"
