"""File names and the samples they make."""

from pathlib import Path

import pytest

from virnucpro_core.errors import InputError, UsageError
from virnucpro_core.sequences.names import (
    group_samples,
    in_order,
    looks_like_sequence_file,
    mates,
    sample_name,
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


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        ("s_R1.fq.gz", "s"),
        ("S_S1_L001_R2_001.fastq.gz", "S_S1_L001_001"),
        ("SRR1_2.fastq", "SRR1"),
        ("a.R1.trimmed.fq", "a_trimmed"),
    ],
)
def test_a_mates_sample_has_no_mate_in_its_name(name: str, sample: str) -> None:
    assert sample_name(Path(name), is_mate=True) == sample


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
def test_mates(names: list[str], numbers: list[int]) -> None:
    assert mates([Path(name) for name in names]) == numbers


def test_group_samples() -> None:
    paths = [Path(name) for name in ("z.fa", "s_R2.fq", "c_1.fa", "s_R1.fq", "t_R1.fq")]
    assert group_samples(paths) == [
        ("c_1", [Path("c_1.fa")]),
        ("s", [Path("s_R1.fq"), Path("s_R2.fq")]),
        ("t_R1", [Path("t_R1.fq")]),
        ("z", [Path("z.fa")]),
    ]


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
    assert [name for name, _ in group_samples(files)] == [
        "A_contigs",
        "a_fa",
        "a_fq",
        "b",
        "r_B_contigs",
        "s_B_contigs",
    ]
    with pytest.raises(UsageError, match="makes the sample 'r_a_b_fa', and so does"):
        group_samples([Path("/r/a b.fa"), Path("/r/a.b.fa")])


def test_in_order(tmp_path: Path) -> None:
    assert in_order([Path("y/a"), Path("x/b"), Path("x/a")]) == [Path("x/a"), Path("y/a"), Path("x/b")]
    with pytest.raises(UsageError, match="no input file"):
        in_order([])
    with pytest.raises(InputError, match="given twice"):
        in_order([tmp_path / "a", tmp_path / "x" / ".." / "a"])


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("a.fa", True),
        ("a.FQ.bz2", True),
        ("a.faa", False),
        (".tmp-a.fa", False),
        ("a.gz", False),
        ("a", False),
    ],
)
def test_looks_like_sequence_file(name: str, *, looks: bool) -> None:
    assert looks_like_sequence_file(Path(name)) is looks
