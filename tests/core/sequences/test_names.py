"""File names and the samples they make."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_core.errors import InputError, UsageError
from virnucpro_core.sequences.names import (
    group_files,
    group_samples,
    in_order,
    looks_like_sequence_file,
    name_pairs,
    named_as_mate,
    sample_name,
    without_index_reads,
)


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        ("a.fa", "a"),
        ("a.b.fasta.gz", "a_b"),
        ("A-1_x.FASTQ.GZ", "A-1_x"),
        ("ä b.fna.zst", "__b"),
        ("reads", "reads"),
        ("x" * 99 + ".fq", "x" * 64),
        ("genome.txt.xz", "genome_txt"),
        ("s_R1.fastq", "s_R1"),
    ],
)
def test_sample_name(name: str, sample: str) -> None:
    assert sample_name(Path("some/folder") / name) == sample


def groups(*names: str) -> dict[str, list[str]]:
    return {group.name: [str(path) for path in group.files] for group in group_samples([*map(Path, names)])}


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        ("s_R?.fq.gz", "s"),
        ("S_S1_L001_R?_001.fastq.gz", "S"),
        ("pat1_S12_R?_001.fastq.gz", "pat1"),
        ("pat1_L002_R?.fq", "pat1"),
        ("pat1_R?_001.fq", "pat1"),
        ("pat_R1_S1_L001_R?_001.fastq", "pat_R1"),
        ("pat1_S1_L001_R?_001_val_?.fq.gz", "pat1"),
        ("q_S1_R1_001_kneaddata_paired_?.fastq", "q_kneaddata_paired"),
        ("q_R1_001_kneaddata_paired_?.fastq", "q_kneaddata_paired"),
        ("q_R1_kneaddata_paired_?.fastq", "q_R1_kneaddata_paired"),
        ("GH_mate?.fq", "GH"),
        ("pat1_S1_L001_R?_001.trimmed.fq.gz", "pat1_trimmed"),
        ("SRR1_?.fastq", "SRR1"),
        ("a.R?.trimmed.fq", "a_trimmed"),
        ("a.r?.fq", "a"),
        ("x_?.fastp.fastq.gz", "x_fastp"),
        ("un_?.unmapped.fastq.gz", "un_unmapped"),
        ("y_?_val_?.fq.gz", "y"),
        ("trim_?P.fq.gz", "trim"),
        ("p.read?.fq", "p"),
    ],
)
def test_two_mates_are_a_sample_without_r1_in_its_name(name: str, sample: str) -> None:
    both = [name.replace("?", "1"), name.replace("?", "2")]
    assert groups(*both) == {sample: both}
    assert groups(*reversed(both)) == {sample: both}


@pytest.mark.parametrize(
    ("one", "two", "sample"),
    [
        ("k_forward.fq", "k_reverse.fq", "k"),
        ("k.fwd.fq.gz", "k.rev.fq.gz", "k"),
        ("run7/R1.fastq", "run7/R2.fastq", "run7"),
        ("run7/1.fastq", "run7/2.fastq", None),
    ],
)
def test_mates_that_words_or_their_folder_name(one: str, two: str, sample: str | None) -> None:
    assert groups(one, two) == ({sample: [one, two]} if sample else {"1": [one], "2": [two]})


def test_a_number_after_the_mate_is_a_part_if_all_parts_are_there() -> None:
    parts = [f"pt_S1_L001_R{mate}_001_{part}.fastq" for part in (1, 2) for mate in (1, 2)]
    assert groups(*parts) == {"pt": parts}
    assert name_pairs([*map(Path, parts)]) == [(0, 1), (2, 3)]


def test_lanes_in_folders_side_by_side_are_one_sample() -> None:
    lanes = [f"run/b_L00{k}-ds.x{k}/b_S1_L00{k}_R{mate}_001.fastq.gz" for k in (1, 2) for mate in (1, 2)]
    assert groups(*lanes) == {"b": lanes}
    # In folders of other names they are of other patients.
    people = [name.replace("b_L001-ds.x1", "ProjX").replace("b_L002-ds.x2", "ProjY") for name in lanes]
    assert groups(*people) == {"ProjX_b": people[:2], "ProjY_b": people[2:]}
    # The same lane twice is another run, and another sample number another library.
    again = [name.replace("b_L001-ds.x1", "later").replace("b_L002-ds.x2", "later") for name in lanes]
    assert groups(*lanes, *again) == {"b_L001-ds_x1_b": lanes, "later_b": again}
    other = [lanes[0], lanes[1], lanes[2].replace("b_S1", "b_S2"), lanes[3].replace("b_S1", "b_S2")]
    assert {*groups(*other)} == {"b_L001-ds_x1_b", "b_L002-ds_x2_b"}


def test_letters_and_words_are_mates_if_there_are_both() -> None:
    for one, two, sample in (("AB_F.fq", "AB_R.fq", "AB"), ("cut_f1.fq", "cut_r2.fq", "cut")):
        assert groups(one, two) == {sample: [one, two]}
        assert groups(one) == {Path(one).stem: [one]}
        assert group_samples([Path(one)])[0].notes == ()


def test_a_number_inside_the_name_of_a_lone_file_says_nothing() -> None:
    (group,) = group_samples([Path("exp_1_repeat.fq")])
    assert (group.name, group.notes) == ("exp_1_repeat", ())
    assert not named_as_mate(Path("exp_1_repeat.fq"))


def test_all_lanes_are_one_sample_and_mates_follow_each_other() -> None:
    names = [f"pat1_S1_L00{lane}_R{mate}_001.fq" for mate in (1, 2) for lane in (2, 1)]
    assert groups(*names) == {"pat1": [names[0], names[2], names[1], names[3]]}


def test_index_reads_are_left_out_and_said() -> None:
    names = [Path(f"p_S1_L001_{read}_001.fastq.gz") for read in ("I1", "I2", "R1", "R2")]
    (group,) = group_samples(names)
    assert group.files == tuple(names[2:])
    assert group.notes == (f"index reads, left out: {names[0]}, {names[1]}",)
    assert without_index_reads(names) == (names[2:], names[:2])
    (alone,) = group_samples(names[:1])
    assert alone.files == tuple(names[:1])
    assert alone.notes == ()


def test_two_libraries_of_a_sample_keep_their_numbers() -> None:
    names = [f"pat1_S{number}_L001_R1_001.fq" for number in (1, 2)]
    assert groups(*names) == {"pat1_S1": names[:1], "pat1_S2": names[1:]}


def test_the_three_files_of_a_run_of_sra() -> None:
    assert groups("SRR9.fastq", "SRR9_1.fastq", "SRR9_2.fastq", "SRR8.fastq") == {
        "SRR9": ["SRR9.fastq", "SRR9_1.fastq", "SRR9_2.fastq"],
        "SRR8": ["SRR8.fastq"],
    }
    # An assembly is no read without a mate.
    assert groups("SRR9.fasta", "SRR9_1.fastq", "SRR9_2.fastq") == {
        "SRR9_fasta": ["SRR9.fasta"],
        "SRR9_fastq": ["SRR9_1.fastq", "SRR9_2.fastq"],
    }


@pytest.mark.parametrize("name", ["solo_R1.fastq", "solo_2.fq.gz", "p_S1_L001_R1_001.fq"])
def test_a_lone_mate_is_said(name: str) -> None:
    (group,) = group_samples([Path("x.fq"), Path(name)])[1:]
    assert group.notes == (f"{name}: no file of the other mate: taken as single reads",)


STEMS = st.text("abS1L0R2_.-", min_size=1, max_size=12).filter(lambda s: s.strip("._-") == s)


@given(
    st.lists(
        st.tuples(STEMS, st.sampled_from(["", "_1", "_2", "_R1", "_R2", "_S1_L001_R1_001"])), unique=True
    )
)
def test_every_file_is_in_one_group_and_mates_are_together(names: list[tuple[str, str]]) -> None:
    files = [Path(f"{stem}{end}.fq") for stem, end in dict.fromkeys(names)]
    files = list(dict.fromkeys(files))
    found = group_files(files)
    assert sorted(path for group in found for path in (*group.files, *group.left_out)) == sorted(files)
    pairs = {(files[i], files[j]) for i, j in name_pairs(files)}
    for group in found:
        assert not {*group.lone} & {path for pair in pairs for path in pair}
    for one, two in pairs:
        assert any(two in group.files[group.files.index(one) + 1 :] for group in found if one in group.files)


def test_a_name_of_suffixes_only() -> None:
    with pytest.raises(InputError, match="no name"):
        sample_name(Path(".fa.gz"))


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["a_R1.fq", "a_R2.fq"], [1, 2]),
        (["a_2.fastq.gz", "a_1.fastq.gz"], [2, 1]),
        (["a_R1.fq", "b_R2.fq"], [0, 0]),
        (["a_R1.fq", "a_R2.fq.gz"], [0, 0]),
        (["a_1.fa", "a_2.fa"], [0, 0]),
        (["a_R1.fq"], [0]),
        (["p_1_R1.fq", "p_1_R2.fq", "p_2_R1.fq", "p_2_R2.fq"], [1, 2, 1, 2]),
        (["x/a_R1.fq", "y/a_R2.fq"], [0, 0]),
        (["aR1.fq", "aR2.fq"], [0, 0]),
    ],
)
def test_name_pairs(names: list[str], numbers: list[int]) -> None:
    found = [0] * len(names)
    for one, two in name_pairs([Path(name) for name in names]):
        found[one], found[two] = 1, 2
    assert found == numbers


def test_groups_come_in_the_given_order() -> None:
    assert groups("z.fa", "s_R2.fq", "c_1.fa", "s_R1.fq", "t_R1.fq") == {
        "z": ["z.fa"],
        "s": ["s_R1.fq", "s_R2.fq"],
        "c_1": ["c_1.fa"],
        "t_R1": ["t_R1.fq"],
    }


def test_files_of_equal_names_get_folder_or_suffix() -> None:
    files = [
        Path(p)
        for p in (
            "/r/x/a.fq",
            "/r/x/a.fa",
            "/r/A/contigs.fa",
            "/r/B/contigs.fa",
            "/s/B/contigs.fa",
            "/r/b.fa",
        )
    ]
    assert [group.name for group in group_samples(files)] == [
        "a_fq",
        "a_fa",
        "A_contigs",
        "r_B_contigs",
        "s_B_contigs",
        "b",
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["a b.fa", "a.b.fa", "a_b.fa"],
        ["患者一.fa", "患者二.fa"],
        ["23.1234_S5_L001_R1_001.fastq.gz", "23_1234_S5_L001_R1_001.fastq.gz"],
        ["x" * 70 + "1.fa", "x" * 70 + "2.fa"],
    ],
)
def test_file_names_that_become_one_name_get_a_digest_each(names: list[str]) -> None:
    files = [Path("/r") / name for name in names]
    found = [group.name for group in group_samples([*files, Path("/r/z.fa")])]
    assert len(set(found)) == len(found) == len(files) + 1
    assert found[-1] == "z"
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,57}_[0-9a-f]{6}", name) for name in found[:-1])
    again = [group.name for group in group_samples([Path("/r/z.fa"), *reversed(files)])]
    assert again == ["z", *reversed(found[:-1])]


def test_in_order(tmp_path: Path) -> None:
    assert in_order([Path("y/a"), Path("x/b"), Path("x/a")]) == [Path("y/a"), Path("x/b"), Path("x/a")]
    with pytest.raises(UsageError, match="no input file"):
        in_order([])
    with pytest.raises(InputError, match="given twice"):
        in_order([tmp_path / "a", tmp_path / "x" / ".." / "a"])


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("a.fa", True),
        ("a.FQ.bz2", True),
        ("a.bam", True),
        ("a.gbk.gz", True),
        ("a.bam.bai", False),
        ("a.faa", False),
        (".tmp-a.fa", False),
        ("a.gz", False),
        ("a", False),
    ],
)
def test_looks_like_sequence_file(name: str, *, looks: bool) -> None:
    assert looks_like_sequence_file(Path(name)) is looks
