"""What a laboratory hands in: sample sheets, pipes, lanes and BAM files, by the commands that people type."""

import gzip
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.assets.cli.test_main import Shell
from virnucpro_core.files.disk import shown_bytes
from virnucpro_core.samples.standard_input import KEPT

LETTERS = "ACCAGGACAGGCAAGCACGACCAGCAGGACACCGACAAGGCAAGCA" * 8


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def reads(path: Path, *headers: str) -> Path:
    texts = []
    for n, header in enumerate(headers):
        letters = LETTERS[7 * n : 7 * n + 300]
        texts.append(f"@{header}\n{letters}\n+\n{'I' * len(letters)}\n")
    path.write_text("".join(texts))
    return path


def test_a_sheet_with_faults_begins_nothing_and_tells_them_all(shell: Shell) -> None:
    (shell.folder / "s.csv").write_text("sample,fastq_1,chunk_size\na,none.fq,\nb,none.fq,many\n")
    done = shell.run("predict", "--sheet", "s.csv", "-o", "out")
    assert done.returncode == 2
    told, lines = done.stderr, done.stderr.splitlines()
    assert lines[0].startswith("virnucpro: s.csv, row 2 (a): none.fq: no such file")
    assert "row 3 (b): chunk_size is 'many'; give a whole number" in told
    assert lines[-1] == "virnucpro: s.csv: 3 faults in the sample sheet; nothing was begun"
    (shell.folder / "one.csv").write_text("sample,fasta\na,none.fa\n")
    said = shell.refused("predict", "--sheet", "one.csv", "-o", "out")  # one line, not two
    assert said.startswith(
        "virnucpro: one.csv: one fault in the sample sheet: row 2 (a): none.fa: no such file;"
    )
    assert not (shell.folder / "out").exists()
    assert not (shell.folder / "home" / "samples").exists()
    together = shell.refused("predict", "x.fa", "--sheet", "s.csv", "-o", "out")
    assert "a sample sheet names files and samples itself" in together
    assert "give FILES, or --sheet" in shell.refused("predict", "-o", "out")
    assert "give --sample NAME" in shell.refused("predict", "-", "-o", "out")
    assert "it begins with '-', as options do" in shell.refused(
        "predict", "one.csv", "--sample", "-x", "-o", "out"
    )
    (shell.folder / "-x.fa").touch()
    assert "if the file is meant, give ./-x.fa" in shell.refused("predict", "-x.fa", "-o", "out")


def test_a_sheet_of_lanes_and_contigs(shell: Shell) -> None:
    for lane in (1, 2):
        for mate in (1, 2):
            reads(shell.folder / f"l{lane}_{mate}.fq", f"{lane}:a {mate}:N:0:A", f"{lane}:b {mate}:N:0:A")
    (shell.folder / "contigs.fa").write_text(f">long\n{LETTERS}\n>short\nACGTACGT\n")
    rows = ["sample,fastq_1,fastq_2,fasta,min_length,pairs", "pat,l2_1.fq,l2_2.fq,,,both"]
    rows += ["pat,l1_1.fq,l1_2.fq,,,", "contigs,,,contigs.fa,100,"]
    (shell.folder / "samples.csv").write_text("\n".join(rows))
    shell.good("predict", "--sheet", "samples.csv", "-o", "out")
    table = (shell.folder / "out" / "pat" / "contigs.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[0] for row in table] == [
        f"{lane}:{name}/{mate}" for lane in (2, 1) for mate in (1, 2) for name in "ab"
    ]
    pairs = (shell.folder / "out" / "pat" / "pairs.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in pairs[1:]] == ["2:a", "2:b", "1:a", "1:b"]
    contigs = (shell.folder / "out" / "contigs" / "contigs.tsv").read_text()
    assert "short\t8\tno_call\t\t0\t0\t0\tshorter than the minimum length of 100 bases\n" in contigs


def test_samtools_pipes_into_predict_and_the_bytes_are_kept(shell: Shell) -> None:
    pysam: Any = pytest.importorskip("pysam", reason="pysam is not installed")
    head = pysam.AlignmentHeader.from_dict({"HD": {"VN": "1.6"}})
    bam = shell.folder / "x.bam"
    with pysam.AlignmentFile(str(bam), "wb", header=head) as out:
        for name, flag in (("a", 0x4D), ("a", 0x8D), ("b", 0x4D), ("b", 0x8D), ("s", 0x4)):
            one = pysam.AlignedSegment(head)
            one.query_name, one.flag, one.query_sequence = name, flag, LETTERS[len(name) : 300 + flag % 7]
            out.write(one)
    samtools = shutil.which("samtools")
    text = (
        subprocess.run([samtools, "fastq", "x.bam"], cwd=shell.folder, capture_output=True, check=True).stdout
        if samtools
        else pysam.fastq(str(bam)).encode()
    )
    command = [
        sys.executable,
        "-m",
        "virnucpro_assets.cli.main",
        "predict",
        "-",
        "--sample",
        "x",
        "-o",
        "out",
    ]
    for _ in range(2):  # the second time resumes: the same bytes are the same sample
        done = subprocess.run(
            command, cwd=shell.folder, env=shell.environment, input=text, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said = done.stderr.decode()
        assert (
            f"x: standard input: {shown_bytes(len(text))} kept in {shell.folder / 'home' / KEPT}, so that"
            in said
        )
        assert "\nx: standard input\n" in said
        assert hashlib.sha256(text).hexdigest() not in said
    (kept,) = (shell.folder / "home" / KEPT).iterdir()
    assert kept.read_bytes() == text
    for word in ("-", "/dev/stdin"):
        wrong = [word if one == "-" else one for one in command]
        done = subprocess.run(
            wrong, cwd=shell.folder, env=shell.environment, input=b"x\n", capture_output=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr.startswith(b"virnucpro: standard input, line 1: neither FASTA nor FASTQ"), (
            done.stderr
        )
    shell.good("predict", "x.bam", "--sample", "bam", "-o", "bam")
    for name in ("contigs.tsv", "pairs.tsv"):
        rows = [sorted((shell.folder / out / name).read_text().splitlines()) for out in ("out", "bam")]
        assert rows[0] == rows[1]
    viral = [
        gzip.decompress((shell.folder / out / "viral_R1.fastq.gz").read_bytes()) for out in ("out", "bam")
    ]
    assert viral[0].replace(b"/1\n", b"\n") == viral[1].replace(b"/1\n", b"\n")


def test_faults_of_settings_in_a_sheet_have_their_rows_and_begin_nothing(shell: Shell) -> None:
    reads(shell.folder / "r.fq", "a", "b")
    (shell.folder / "c.fa").write_text(f">c\n{LETTERS[:400]}\n")
    rows = (
        "a,r.fq,,precision,fp8",
        "b,,c.fa,min_open,40",
        "c,,d.fa,pairs,both",
        "d,,e.fa,unmapped_only,yes",
        "e,s.fq,,interleaved,yes",
        "f,,f.fa,profile,none",
    )
    for name in ("d.fa", "e.fa", "f.fa"):
        (shell.folder / name).write_text(f">{name}\n{LETTERS[:400]}\n")
    reads(shell.folder / "s.fq", "a", "b")
    columns = ["precision", "min_open", "pairs", "unmapped_only", "interleaved", "profile"]
    lines = [",".join(["sample", "fastq_1", "fasta", *columns])]
    for row in rows:
        sample, fastq, fasta, column, value = row.split(",")
        lines.append(",".join([sample, fastq, fasta, *(value if name == column else "" for name in columns)]))
    (shell.folder / "s.csv").write_text("\n".join(lines) + "\n")
    done = shell.run("predict", "--sheet", "s.csv", "-o", "out", "--check")
    assert done.returncode == 2
    told = done.stderr
    for said in (
        "row 2 (a): ",
        "row 3 (b): min_open is for open frames; give frames open as well",
        "row 4 (c): pairs both is for reads",
        "row 5 (d): e.fa: not BAM or CRAM; unmapped_only is for them",
        "row 6 (e): ",
        "row 7 (f): there is no profile 'none'",
    ):
        assert f"s.csv, {said}" in told, told
    assert "not the mate of the read before it" in told
    assert "6 faults in the sample sheet; nothing was begun" in told
    assert "--pairs both is for reads" in shell.refused("predict", "c.fa", "--pairs", "both", "-o", "out")


def test_a_name_of_a_sheet_that_is_taken_begins_nothing(shell: Shell) -> None:
    for name in ("old.fa", "new.fa", "b.fa"):
        (shell.folder / name).write_text(f">{name}\n{LETTERS[len(name) :][:400]}\n")
    (shell.folder / "one.csv").write_text("sample,fasta\nntc,old.fa\n")
    shell.good("predict", "--sheet", "one.csv", "-o", "out")
    (shell.folder / "two.csv").write_text("sample,fasta\nb,b.fa\nntc,new.fa\n")
    for more in ([], ["--check"]):
        said = shell.refused("predict", "--sheet", "two.csv", "-o", "out2", *more)
        assert "row 3 (ntc): sample 'ntc' already stands for other sequences (old.fa)" in said
        assert "give another name in the column sample" in said
        assert not (shell.folder / "home" / "samples" / "b").exists()


def test_all_paths_that_cannot_be_read_are_told(shell: Shell) -> None:
    (shell.folder / "loop.fa").symlink_to("loop.fa")
    (shell.folder / "ok.fa").write_text(">a\nACGT\n")
    said = shell.refused("predict", "loop.fa", "nofile", "ok.fa", "/dev/null", "-o", "out")
    assert (
        "3 of the paths cannot be read: Too many levels of symbolic links: loop.fa; no such file: nofile; "
        in said
    )
    assert "not a regular file: /dev/null" in said
    assert "cannot be used together" in shell.refused("predict", "ok.fa", "-q", "-v", "-o", "out")


def test_a_folder_and_a_sheet_have_one_layout_however_many_samples_they_have(shell: Shell) -> None:
    grow = shell.folder / "grow"
    grow.mkdir()
    (grow / "g1.fa").write_text(f">a\n{LETTERS[:400]}\n")
    (shell.folder / "one.csv").write_text("sample,fasta\ng1,grow/g1.fa\n")
    predict = ("predict", "--profile", "demo", "--chunk-size", "300", "-o")
    assert shell.run(*predict, "by_name", "grow/g1.fa").returncode == 0
    assert (shell.folder / "by_name" / "contigs.tsv").exists()
    for out, given in (("o", ("grow",)), ("s", ("--sheet", "one.csv"))):
        assert shell.run(*predict, out, *given).returncode == 0
        assert (shell.folder / out / "g1" / "contigs.tsv").exists()
        rows = (shell.folder / out / "summary.tsv").read_text().splitlines()[1:]
        assert [row.split("\t")[0] for row in rows] == ["g1"]
    (grow / "g2.fa").write_text(f">b\n{LETTERS[7:400]}\n")
    assert shell.run(*predict, "o", "grow").returncode == 0
    (grow / "g1.fa").unlink()
    done = shell.run(*predict, "o", "grow")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "1 called, 0 failed")
    assert [file.name for file in sorted((shell.folder / "o").glob("*/run.json"), key=str)] == [
        "run.json"
    ] * 2
    # Results of one sample in the folder itself are not mixed with subfolders.
    said = shell.refused(*predict, "by_name", "grow")
    assert (
        "by_name: holds the results of sample 'g1' itself; pages across samples need another folder" in said
    )
    done = shell.run(*predict, "by_name", "grow", "--force")
    assert f"deleted {Path('by_name') / 'contigs.tsv'}: it was of results" in done.stderr
    assert sorted(file.name for file in (shell.folder / "by_name").iterdir() if file.name[0] != ".") == [
        "g2", "index.html", "summary.tsv", "virnucpro_calls_mqc.json", "virnucpro_general_mqc.json",
    ]  # fmt: skip
