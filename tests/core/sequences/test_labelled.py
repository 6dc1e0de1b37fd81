"""Labels and groups of records, and parts that never share a group."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_core.errors import InputError, UsageError
from virnucpro_core.sequences.fasta import read_records
from virnucpro_core.sequences.labelled import (
    LabelledInput,
    Truth,
    divide_groups,
    read_labels,
    write_pieces,
)

A, B, C = "ACGTACGGTA" * 4, "GGTACCATTA" * 5, "TTACCAGGAA" * 6


def fasta(path: Path, **records: str) -> Path:
    path.write_text("".join(f">{name}\n{letters}\n" for name, letters in records.items()))
    return path


def complement(letters: str) -> str:
    return letters.translate(str.maketrans("ACGT", "TGCA"))[::-1]


def test_labels_come_from_the_file(tmp_path: Path) -> None:
    virus, others = fasta(tmp_path / "z.fa", a=A, b=B), fasta(tmp_path / "o.fa", c=C)
    found = LabelledInput((virus,), (others,)).truth()
    assert found == {"c": Truth(0, "c"), "a": Truth(1, "a"), "b": Truth(1, "b")}
    assert list(found) == ["a", "b", "c"]  # the order in which a sample reads the files


def test_labels_and_groups_come_from_the_table(tmp_path: Path) -> None:
    file = fasta(tmp_path / "x.fa", a=A, b=B, c=C)
    table = tmp_path / "t.tsv"
    table.write_text("id\tlabel\tgroup\nb\tvirus\tg\na\tvirus\tg\nc\tothers\th\n")
    found = LabelledInput(fasta=(file,), labels=table).truth()
    assert found == {"a": Truth(1, "g"), "b": Truth(1, "g"), "c": Truth(0, "h")}
    table.write_text("id\tlabel\r\nb\tvirus\r\na\tvirus\r\nc\tothers\r\n")
    assert LabelledInput(fasta=(file,), labels=table).truth()["a"] == Truth(1, "a")


@pytest.mark.parametrize("change", [str, str.lower, complement])
def test_groups_with_the_same_sequence_are_one(tmp_path: Path, change) -> None:
    virus, others = fasta(tmp_path / "z.fa", a=A, b=B, again=change(A)), fasta(tmp_path / "o.fa", c=C)
    found = LabelledInput((virus,), (others,)).truth()
    assert found["a"].group == found["again"].group != found["b"].group


def test_a_sequence_with_both_labels_is_refused(tmp_path: Path) -> None:
    virus, others = fasta(tmp_path / "z.fa", a=A), fasta(tmp_path / "o.fa", c=complement(A))
    with pytest.raises(
        InputError, match=r"o\.fa, record 'c': the same sequence is virus as 'a' and others here"
    ):
        LabelledInput((virus,), (others,)).truth()


def test_mates_are_one_group(tmp_path: Path) -> None:
    for n in (1, 2):
        (tmp_path / f"v_R{n}.fq").write_text(f"@x\n{A[n:]}\n+\n{'I' * len(A[n:])}\n")
    files = (tmp_path / "v_R1.fq", tmp_path / "v_R2.fq")
    found = LabelledInput(files, (fasta(tmp_path / "o.fa", c=C),)).truth()
    assert found["x/1"] == found["x/2"] == Truth(1, "x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the first line is ''"),
        ("id label\na virus\n", "the first line is 'id label'"),
        ("id\tlabel\na\tphage\n", "line 2: 'a.+phage' is not an id, a label"),
        ("id\tlabel\tgroup\na\tvirus\n", "line 2: .*and a group"),
        ("id\tlabel\tgroup\na\tvirus\t\n", "line 2: .*and a group"),
        ("id\tlabel\tgroup\na\tvirus\tx\x1b[2J\n", "line 2: .*and a group"),
        ("id\tlabel\na\tvirus\na\tvirus\n", "record 'a', line 3: this id is in the table twice"),
        ("id\tlabel\nb\tvirus\n", "record 'a': no line in .* has this id"),
        ("id\tlabel\na\tvirus\nb\tvirus\n", "record 'b': this id is in the table, but no sequence has it"),
    ],
)
def test_a_wrong_table_names_the_line(tmp_path: Path, text: str, said: str) -> None:
    table = tmp_path / "t.tsv"
    table.write_text(text)
    with pytest.raises(InputError, match=said):
        LabelledInput(fasta=(fasta(tmp_path / "x.fa", a=A),), labels=table).truth()


def test_blank_lines_of_a_table_and_ids_that_are_there_twice(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("id\tlabel\na\tvirus\n\n\n")
    assert read_labels(tmp_path / "t.tsv") == {"a": Truth(1, "a")}
    (tmp_path / "t.tsv").write_text("id\tlabel\na\tvirus\n \n")
    with pytest.raises(InputError, match="line 3: ' ' is not an id"):
        read_labels(tmp_path / "t.tsv")
    twice = tmp_path / "twice.fa"
    twice.write_text(f">a\n{A}\n>a\n{C}\n")
    with pytest.raises(InputError, match=r"the same id as at .*; make ids unique$"):
        LabelledInput((twice,), (fasta(tmp_path / "o.fa", b=C + C),)).truth()


def test_a_table_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"id\tlabel\n\xff\xfe\tvirus\n")
    for path in (tmp_path / "t", tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match="cannot be read"):
            read_labels(path)


@pytest.mark.parametrize("given_", [{}, {"virus": 1}, {"virus": 1, "labels": 1}, {"fasta": 1}, {"labels": 1}])
def test_half_an_input_is_refused(given_: dict[str, int]) -> None:
    parts = {name: Path("x") if name == "labels" else (Path("x"),) for name in given_}
    with pytest.raises(UsageError, match="give --virus FASTA --others FASTA, or FASTA --labels TABLE"):
        LabelledInput(**parts)


def test_a_pipe_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """`--labels <(...)`: the table is read, and its digest is computed."""
    file = fasta(tmp_path / "x.fa", a=A)
    end, start = os.pipe()
    try:
        os.write(start, b"id\tlabel\na\tvirus\n")
        pipe = Path(f"/dev/fd/{end}")
        ways: tuple[dict[str, Any], ...] = (
            {"fasta": (file,), "labels": pipe},
            {"virus": (pipe,), "others": (file,)},
        )
        for given_, option in zip(ways, ("--labels", "--virus"), strict=True):
            with pytest.raises(
                UsageError, match=f"{option} is read more than once, and {pipe} is a pipe or no"
            ):
                LabelledInput(**given_)
        assert os.read(end, 100)  # nothing was taken from it
    finally:
        os.close(end)
        os.close(start)


def test_pieces_have_the_label_and_the_group_of_their_record(tmp_path: Path) -> None:
    labelled = LabelledInput((fasta(tmp_path / "z.fa", a=A, b=B),), (fasta(tmp_path / "o.fa", c=C),))
    truth = labelled.truth()
    found = write_pieces(labelled, truth, (20, 50), tmp_path / "pieces.fa")
    letters = {r.id: r.sequence.decode() for r in read_records([tmp_path / "pieces.fa"])}
    assert list(letters) == list(found)
    assert len(found) == (2 + 2 + 3) + (0 + 1 + 1)
    for name, one in found.items():
        record, _, place = name.rpartition(":")
        first, last = map(int, place.split("-"))
        assert letters[name] == {"a": A, "b": B, "c": C}[record][first - 1 : last]
        assert one == truth[record]
    with pytest.raises(UsageError, match="no others record is as long as 70 bases"):
        write_pieces(labelled, truth, (70,), tmp_path / "none.fa")


@given(st.data())
def test_no_group_is_in_two_parts(data: st.DataObject) -> None:
    n = data.draw(st.integers(6, 60))
    groups = data.draw(st.lists(st.sampled_from("abcdefghijklmno"), min_size=n, max_size=n))
    labels = np.array([int(g in "abcdefg") for g in groups])
    sizes = np.array(data.draw(st.lists(st.integers(1, 90_000), min_size=n, max_size=n)))
    counts = [len({g for g, k in zip(groups, labels, strict=True) if k == label}) for label in (0, 1)]
    seed = data.draw(st.integers(0, 99))
    if min(counts) < 3:
        with pytest.raises(UsageError, match="3 or more are needed"):
            divide_groups(groups, labels, sizes, (0.15, 0.2), seed)
        return
    part = divide_groups(groups, labels, sizes, (0.15, 0.2), seed)
    assert (part == divide_groups(groups, labels, sizes, (0.15, 0.2), seed)).all()
    for group in set(groups):
        assert len({int(p) for p, g in zip(part, groups, strict=True) if g == group}) == 1
    for label in (0, 1):
        assert {int(p) for p in part[labels == label]} == {0, 1, 2}


def test_parts_have_about_their_share() -> None:
    generator = np.random.default_rng(1)
    sizes = generator.integers(1_000, 20_000, 2_000)
    labels = np.arange(2_000) % 2
    part = divide_groups([str(k) for k in range(2_000)], labels, sizes, (0.15, 0.2), 3)
    for label in (0, 1):
        mine = labels == label
        shares = [sizes[mine & (part == p)].sum() / sizes[mine].sum() for p in range(3)]
        assert shares == pytest.approx([0.65, 0.15, 0.2], abs=0.02)
