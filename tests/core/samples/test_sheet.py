"""A sample sheet: its samples, and all its faults at once, each with its row."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from virnucpro_core.errors import InputError, UsageError
from virnucpro_core.samples.finding import FoundSample
from virnucpro_core.samples.sheet import read_sheet as read
from virnucpro_core.samples.sheet_faults import SheetError, SheetFaults


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, mate in (("a1", 1), ("a2", 2), ("b1", 1), ("b2", 2), ("c", 0)):
        header = f"{name[0]}:1 {mate}:N:0" if mate else name
        (tmp_path / f"{name}.fq").write_text(f"@{header}\nACGT\n+\nIIII\n")
    (tmp_path / "x.fa").write_text(">x\nACGT\n")
    (tmp_path / "y.fa").write_text(">y\nACGT\n")
    return tmp_path


def read_sheet(path: Path) -> list[FoundSample]:
    found = SheetFaults(path)
    samples = read(path, found)
    found.tell()
    return samples


def sheet(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "samples.csv"
    path.write_bytes(text.encode(encoding))
    return path


def faults(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(SheetError) as caught:
        read_sheet(sheet(folder, text))
    assert caught.value.exit_code == 2
    return tuple(fault.replace(f"{folder}/", "") for fault in caught.value.faults)


@pytest.mark.parametrize("comma", [",", "\t", ";"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_rows_of_a_sample_are_joined_in_order(folder: Path, comma: str, end: str, encoding: str) -> None:
    rows = (
        "sample,fastq_1,fastq_2,fasta,chunk-size,min_length,interleaved",
        "pat,b1.fq,b2.fq,,300,,",
        "",
        "other,,,x.fa,,50,no",
        'pat,"a1.fq",a2.fq,,,,',
    )
    found = read_sheet(sheet(folder, end.join(rows).replace(",", comma) + end, encoding))
    assert [(one.name, [f.name for f in one.files], dict(one.settings)) for one in found] == [
        ("pat", ["b1.fq", "b2.fq", "a1.fq", "a2.fq"], {"chunk_size": 300}),
        ("other", ["x.fa"], {"min_length": 50, "interleaved": False}),
    ]
    assert all(file.is_absolute() for one in found for file in one.files)


def test_all_faults_are_told_each_with_its_row(folder: Path) -> None:
    found = faults(
        folder,
        "sample,fastq_1,fastq_2,fasta,chunk_size,pairs\n"
        "p q,c.fq,,,,\n"
        "s,nofile.fq,,,,\n"
        "s,,,,,\n"
        "t,a1.fq,b2.fq,,x,either\n"
        "u,x.fa,,,300,\n"
        "u,,,y.fa,500,\n"
        "v,,a2.fq,,,\n"
        "w,c.fq,b1.fq,x.fa,2,\n"
        "x,too,many,cells,in,it,all\n",
    )
    assert found == (
        "row 2: 'p q' is not a sample name: use 1 to 64 letters, digits, '_' and '-'",
        "row 3 (s): nofile.fq: no such file; paths are relative to the folder of the sheet",
        "rows 4 and 8 (s, v): one of fastq_1, fasta and bam is needed, this row has none",
        "row 5 (t): b2.fq: not the mate of a1.fq: read 1 is 'b:1' here and 'a:1' there; put both files in the same "
        "order (for example with `seqkit pair`), or predict each alone with --sample",
        "row 5 (t): chunk_size is 'x'; give a whole number",
        "row 5 (t): pairs is 'either'; give any or both",
        "row 6 (u): x.fa in column fastq_1 is FASTA",
        "row 7 (u): chunk_size is 500, and 300 in row 6 of the same sample",
        "row 9 (w): c.fq is given in row 2, too",
        "row 9 (w): chunk_size is 2; give 6 to 1,000,000 bases",
        "row 9 (w): one of fastq_1, fasta and bam is needed, this row has fastq_1 and fasta",
        "row 9 (w): x.fa is given in row 6, too",
        "row 10 (x): 7 cells, but the header has 6",
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("sample,fastq\nx,c.fq\n", "row 1: unknown column 'fastq'; known are sample, fastq_1"),
        ("name,fasta\nx,x.fa\n", "row 1: there is no column 'sample'"),
        ("sample,chunk_size\nx,300\n", "row 1: there is no column with files"),
        ("sample,fasta,fasta\n", "row 1: the column 'fasta' is there twice"),
        ("sample,fastq_1,fastq_2\nx,c.fq,./c.fq\n", "row 2 (x): fastq_1 and fastq_2 are the same file"),
        ("sample,fasta\n\n", "row 1: no row below the header"),
        ("", "row 1: there is no column 'sample'"),
        (
            "sample,fasta,classifier\nx,x.fa,nowhere\n",
            "row 2 (x): classifier: no such folder or file: nowhere",
        ),
        ("sample,fasta,interleaved\nx,x.fa,maybe\n", "row 2 (x): interleaved is 'maybe'; give yes or no"),
    ],
)
def test_one_fault(folder: Path, text: str, fault: str) -> None:
    assert any(one.startswith(fault) for one in faults(folder, text))


def test_a_fault_of_the_header_hides_no_other(folder: Path) -> None:
    found = faults(
        folder,
        "sample,fastq1,fasta,sex,chunk_size\ns,,x.fa,m,many\nt,,none.fa,f,\nu,,none.fa,f,\nv,,none.fa,f,\n",
    )
    assert [one.split("; known")[0] for one in found] == [
        "row 1: unknown columns 'fastq1', 'sex'",
        "row 2 (s): chunk_size is 'many'; give a whole number",
        "row 3 (t): none.fa: no such file; paths are relative to the folder of the sheet",
        "row 4 (u): none.fa is given in row 3, too (and in row 5)",
    ]
    first, second, third = faults(folder, "name,fasta\nx,none.fa\ny,x.fa\n")
    assert first == "row 1: there is no column 'sample'"
    assert second.startswith("row 1: unknown column 'name'")
    assert third.startswith("row 2: none.fa: no such file")
    assert len(faults(folder, "@read 1\nACGT\n+\nIIII\n")) == 3  # not a sheet: nothing is said of its rows


def test_a_file_of_two_samples_is_told_once(folder: Path) -> None:
    assert faults(folder, "sample,fasta\na,x.fa\nb,./x.fa\n") == ("row 3 (b): x.fa is given in row 2, too",)
    assert faults(folder, "sample,fastq_1,fastq_2\na,a1.fq,b2.fq\nb,a1.fq,b2.fq\n")[1:] == (
        "row 3 (b): a1.fq is given in row 2, too",
        "row 3 (b): b2.fq is given in row 2, too",
    )


def test_columns_of_other_pipelines_are_no_faults(folder: Path) -> None:
    text = "sample,fastq_1,fastq_2,strandedness\npat,a1.fq,a2.fq,auto\n"
    (found,) = read_sheet(sheet(folder, text))
    assert (found.name, found.settings) == ("pat", {})


def test_what_is_no_table(folder: Path) -> None:
    for text, encoding, what in (
        (
            "sample,fasta\nä,x.fa\n",
            "latin-1",
            r"not UTF-8 text \(byte 0xe4 in row 2\); save the sheet as CSV in UTF-8",
        ),
        ("sample,fasta\n", "utf-16", "UTF-16 text, not UTF-8; save the sheet as CSV in UTF-8"),
        ("sample,fasta\na,x.fa\n", "utf-16-le", "UTF-16 text, not UTF-8; save the sheet as CSV in UTF-8"),
        ("sample,fasta\nä,x.fa\n", "utf-16-be", "UTF-16 text, not UTF-8; save the sheet as CSV in UTF-8"),
        ("\xd0\xcf\x11\xe0" + 80 * "\0", "latin-1", r"a spreadsheet \(XLS\), not CSV"),
        ("PK\3\4\xff", "latin-1", "a spreadsheet .*, not CSV"),
    ):
        with pytest.raises(InputError, match=what):
            read_sheet(sheet(folder, text, encoding))
    with pytest.raises(UsageError, match="a sample sheet cannot come through a pipe"):
        read_sheet(Path("-"))
    with pytest.raises(InputError, match="No such file"):
        read_sheet(folder / "none.csv")


def test_a_path_with_a_nul_is_told(folder: Path) -> None:
    assert faults(folder, "sample,fasta\na,x\0.fa\n") == (
        "row 2 (a): fasta: a path cannot hold the character NUL",
    )
    (told,) = faults(folder, "sample,fasta,classifier\na,x.fa,c\0\n")
    assert told.startswith("row 2 (a): classifier: a path cannot hold the character NUL")


@given(st.text(max_size=60))
@example(",\0")
def test_rubbish_below_the_header_is_told_row_by_row(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = sheet(Path(folder), "sample,fasta\n" + text)
        with pytest.raises(SheetError) as caught:  # no file that it names is there
            read_sheet(path)
    assert caught.value.faults
    assert all(fault.startswith("row") for fault in caught.value.faults)
    assert "\n" not in str(caught.value)


def test_an_address_is_no_path(folder: Path) -> None:
    (told,) = faults(folder, "sample,fasta\na,s3://bucket/x.fa\n")
    assert told.startswith(
        "row 2 (a): fasta: s3://bucket/x.fa is an address, not a path; fetch the file first"
    )


def test_swapped_mates_are_told(folder: Path) -> None:
    (told,) = faults(folder, "sample,fastq_1,fastq_2\na,a2.fq,a1.fq\n")
    assert told.startswith(
        "row 2 (a): a1.fq: R1 and R2 are swapped: this file holds mate 1, and a2.fq holds mate 2"
    )


def test_an_empty_file_stops_its_sample_only(folder: Path) -> None:
    (folder / "none.fq").touch()
    empty, good = read_sheet(sheet(folder, "sample,fastq_1\nntc,none.fq\na,c.fq\n"))
    assert "the file is empty" in str(empty.error)
    assert good.error is None


def test_faults_of_settings_are_told_with_all_their_rows(folder: Path) -> None:
    found = SheetFaults(folder / "s.csv")
    for row, sample in ((2, "a"), (5, "b")):
        with found.of(sample, [row]):
            raise UsageError("--min-open is for open frames", remedy="use --frames open or --relaxed")
    with pytest.raises(SheetError) as caught:
        found.tell()
    assert caught.value.faults == (
        "rows 2 and 5 (a, b): min_open is for open frames; use frames open or preset relaxed",
    )
    with pytest.raises(UsageError, match="--min-open"), SheetFaults(None).of("a", []):
        raise UsageError("--min-open is wrong")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[Header],,\nIEMFileVersion,4,\n[Data],,\n",
            "Illumina sequencer.*; give the folder with the FASTQ files",
        ),
        ("PK\x03\x04junk\n", r"a spreadsheet \(XLSX or ODS\), not CSV; save the sheet as CSV"),
    ],
)
def test_what_is_often_taken_for_a_sheet_is_told(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "SampleSheet.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        read_sheet(file)
