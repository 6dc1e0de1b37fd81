"""Which reads and files are mates."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_core.errors import InputError
from virnucpro_core.sequences.fasta import ReadOptions, file_pairs, read_records
from virnucpro_core.sequences.pairs import Header, agree, pair_id

INTERLEAVED = ReadOptions(interleaved=True)


def fastq(path: Path, *headers: str) -> Path:
    path.write_text("".join(f"@{header}\nACGTAC\n+\nIIIIII\n" for header in headers))
    return path


@pytest.mark.parametrize(
    ("one", "two", "are_mates"),
    [
        ("r 1:N:0:ACGT", "r 2:N:0:ACGT", True),
        ("r/1", "r/2", True),
        ("r", "r", True),
        ("SRR9.5 5 length=100", "SRR9.5 5 length=100", True),
        ("SRR9.5.1 5", "SRR9.5.2 5", True),
        ("r 2:N:0:ACGT", "r 1:N:0:ACGT", False),
        ("r/2", "r/1", False),
        ("r", "s", False),
        ("SRR9.1", "SRR9.3", False),
        ("r/1", "r/1", False),
    ],
)
def test_headers_of_mates(tmp_path: Path, one: str, two: str, *, are_mates: bool) -> None:
    files = [fastq(tmp_path / "x_R1.fq", one), fastq(tmp_path / "x_R2.fq", two)]
    if are_mates:
        assert file_pairs(files) == [(0, 1)]
        assert len(list(read_records(files))) == 2
    else:
        with pytest.raises(InputError, match=r"x_R2\.fq: (not the mate of|R1 and R2 are swapped)"):
            list(read_records(files))


@pytest.mark.parametrize(
    ("one", "two"), [("r 2:N:0:A", "r 1:N:0:A"), ("r/2", "r/1"), ("SRR9.5.2 5", "SRR9.5.1 5")]
)
def test_swapped_mates_are_told(tmp_path: Path, one: str, two: str) -> None:
    files = [fastq(tmp_path / "x_R1.fq", one), fastq(tmp_path / "x_R2.fq", two)]
    with pytest.raises(
        InputError, match=r"R1 and R2 are swapped: this file holds mate 1, and .* holds mate 2"
    ):
        list(read_records(files))


def test_two_files_of_the_same_mate_are_told(tmp_path: Path) -> None:
    files = [fastq(tmp_path / "x_R1.fq", "r/1"), fastq(tmp_path / "x_R2.fq", "r/1")]
    with pytest.raises(InputError, match="both files hold mate 1; give the file with mate 2"):
        list(read_records(files))


@pytest.mark.parametrize(
    ("one", "two", "shared"),
    [
        ("r/1", "r/2", "r"),
        ("SRR5.0.1/1", "SRR5.0.2/2", "SRR5.0"),
        ("SRR5.0/1", "SRR5.0/2", "SRR5.0"),
        ("r/1_2", "r/2_2", "r_2"),
        ("SRR5.0.1/1_3", "SRR5.0.2/2_3", "SRR5.0_3"),
    ],
)
def test_the_id_of_a_pair(one: str, two: str, shared: str) -> None:
    assert pair_id(one, two) == shared


NAMES = st.text("ab.:/#12", min_size=1, max_size=6).filter(lambda s: not s.endswith(("/1", "/2")))


@given(NAMES, NAMES)
def test_mates_agree_and_other_ids_do_not(one: str, two: str) -> None:
    assert agree(Header(one), Header(one))
    assert agree(Header(f"{one}/1"), Header(f"{one}/2"))
    assert not agree(Header(f"{one}/2"), Header(f"{one}/1"))
    assert agree(Header(f"{one}/1"), Header(f"{two}/2")) == (one == two)


def test_files_of_any_name_are_mates_by_their_headers(tmp_path: Path) -> None:
    one, two = fastq(tmp_path / "forward.fq", "a 1:N:0:A", "b 1:N:0:A"), tmp_path / "back.fq"
    fastq(two, "a 2:N:0:A", "b 2:N:0:A")
    assert [r.id for r in read_records([one, two])] == ["a/1", "b/1", "a/2", "b/2"]
    assert [r.id for r in read_records([two, one])] == ["a/2", "b/2", "a/1", "b/1"]


def test_numbers_at_the_end_need_not_mean_mates(tmp_path: Path) -> None:
    files = [fastq(tmp_path / f"patient_{n}.fq", f"p{n}") for n in (1, 2)]
    assert file_pairs(files) == []
    assert [r.id for r in read_records(files)] == ["p1", "p2"]


@given(st.integers(2, 30), st.data())
def test_a_disagreement_is_found_wherever_it_is(reads: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, reads - 1))
    names = [f"r{k}" for k in range(reads)]
    with tempfile.TemporaryDirectory() as folder:
        one = fastq(Path(folder) / "x_R1.fq", *names)
        two = fastq(Path(folder) / "x_R2.fq", *names[:at], "other", *names[at + 1 :])
        with pytest.raises(InputError, match=f"read {at + 1} is 'other' here and 'r{at}' there"):
            list(read_records([one, two]))
        fastq(two, *names[:at])
        with pytest.raises(InputError, match=f"{at} reads, but its mate .* has {reads}"):
            list(read_records([one, two]))


def test_interleaved_files_are_checked_pair_by_pair(tmp_path: Path) -> None:
    path = fastq(tmp_path / "x.fq", "a", "a", "b/1", "b/2", "c 1:N:0", "c 2:N:0")
    ids = ["a/1", "a/2", "b/1", "b/2", "c/1", "c/2"]
    assert [r.id for r in read_records([path], options=INTERLEAVED)] == ids
    fastq(path, "a", "a", "b", "c")
    with pytest.raises(InputError, match=r"record 'c', line 13: not the mate of the read before it, 'b'"):
        list(read_records([path], options=INTERLEAVED))
    fastq(path, "a", "a", "b")
    with pytest.raises(InputError, match="record 'b', line 9: the last read has no mate"):
        list(read_records([path], options=INTERLEAVED))
    (tmp_path / "x.fa").write_text(">a\nACGT\n")
    with pytest.raises(InputError, match="--interleaved is for FASTQ"):
        list(read_records([tmp_path / "x.fa"], options=INTERLEAVED))


@given(st.lists(st.integers(0, 12), min_size=1, max_size=9), st.integers(0, 12))
def test_short_records_have_a_reason_and_all_are_there(lengths: list[int], least: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.fa"
        path.write_text("".join(f">r{k}\n{'A' * n}\n" for k, n in enumerate(lengths)))
        found = list(read_records([path], options=ReadOptions(min_length=least)))
    assert [len(r.sequence) for r in found] == lengths
    for record in found:
        short = 0 < len(record.sequence) < least
        assert (record.reason == f"shorter than the minimum length of {least} bases") == short
