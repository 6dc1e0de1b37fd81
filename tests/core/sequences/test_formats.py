"""Every format that is read, and those that are refused in one line."""

import gzip
import io
import shutil
import struct
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro_core.errors import IncompleteError, InputError, UsageError, VirnucproError
from virnucpro_core.sequences.fasta import ReadOptions, check_head, read_records
from virnucpro_core.sequences.record import Record

FASTA = b">a\nACGTACGT\n"
COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")


def archive(kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as made:
            made.writestr("a.fa", FASTA)
    else:
        with tarfile.open(fileobj=out, mode="w") as made:
            info = tarfile.TarInfo("a.fa")
            info.size = len(FASTA)
            made.addfile(info, io.BytesIO(FASTA))
    return out.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("packed", [False, True])
def test_archives_are_refused_in_one_clear_line(tmp_path: Path, kind: str, *, packed: bool) -> None:
    path = tmp_path / "reads.fa.gz"
    path.write_bytes(gzip.compress(archive(kind), mtime=0) if packed else archive(kind))
    with pytest.raises(InputError) as caught:
        list(read_records([path]))
    assert str(caught.value) == (
        f"{path}: a {kind} archive, not one sequence file; unpack it and give the files in it, or the folder"
    )


@pytest.fixture
def genbank(tmp_path: Path) -> Path:
    entries = [
        SeqRecord(Seq("ACGT" * 40), "NC_1.2", "NC_1", "A virus.", annotations={"molecule_type": "DNA"}),
        SeqRecord(Seq("GATTACA"), "X9", "X9", "Another one", annotations={"molecule_type": "RNA"}),
    ]
    SeqIO.write(entries, tmp_path / "x.gbk", "genbank")
    return tmp_path / "x.gbk"


@pytest.mark.parametrize("packed", [False, True])
def test_genbank(genbank: Path, *, packed: bool) -> None:
    if packed:
        genbank.write_bytes(gzip.compress(genbank.read_bytes(), mtime=0))
    found = list(read_records([genbank]))
    assert [(r.id, r.description, r.number) for r in found] == [
        ("NC_1.2", "A virus.", 1),
        ("X9", "Another one", 2),
    ]
    assert [r.sequence.upper() for r in found] == [b"ACGT" * 40, b"GATTACA"]
    assert check_head(genbank) == found


def test_genbank_without_a_sequence_cut_or_damaged(genbank: Path) -> None:
    text = genbank.read_text()
    second = text.index("LOCUS", 10)
    genbank.write_text(text[: text.index("ORIGIN")] + "CONTIG      join(X1:1..160)\n//\n" + text[second:])
    first, other = read_records([genbank])
    assert (first.reason, first.sequence, other.reason) == ("the GenBank entry has no sequence", b"", "")
    genbank.write_text(text[:-5])
    with pytest.raises(IncompleteError, match=rf"line {text[:second].count(chr(10)) + 1}: the last entry is"):
        list(read_records([genbank]))
    genbank.write_text(text.replace("gattaca", "gatefil"))
    with pytest.raises(InputError, match="looks like protein"):
        list(read_records([genbank]))


@pytest.fixture
def bam(tmp_path: Path) -> Path:
    """Two pairs (one of them on the reverse strand, one mate unaligned), a single read, and repeats of a read."""
    pysam: Any = pytest.importorskip("pysam", reason="pysam is not installed")
    head = pysam.AlignmentHeader.from_dict({"HD": {"VN": "1.6"}, "SQ": [{"SN": "host", "LN": 1000}]})
    rows = [
        ("p", 0x1 | 0x40 | 0x10, "AACCGGTTAC", range(30, 40)),
        ("p", 0x1 | 0x80, "ACGTACGTAC", range(10, 20)),
        ("p", 0x1 | 0x40 | 0x100, "AACC", range(4)),
        ("q", 0x1 | 0x40 | 0x10, "TACGTAAAAA", None),
        ("q", 0x1 | 0x80 | 0x4, "CCCCCACGTA", range(2, 12)),
        ("s", 0x0, "GGGGGACGTA", range(5, 15)),
        ("s", 0x800, "GGGGG", range(5)),
        ("u", 0x4, "ACACACACAC", range(5, 15)),
    ]
    with pysam.AlignmentFile(str(tmp_path / "x.bam"), "wb", header=head) as out:
        for name, flag, letters, qualities in rows:
            read = pysam.AlignedSegment(head)
            read.query_name, read.flag, read.query_sequence = name, flag, letters
            read.query_qualities = (
                None
                if qualities is None
                else pysam.qualitystring_to_array("".join(chr(33 + q) for q in qualities))
            )
            if not flag & 0x4:
                read.reference_id, read.reference_start, read.cigarstring = 0, 5, f"{len(letters)}M"
            out.write(read)
    return tmp_path / "x.bam"


def test_primary_reads_of_a_bam_as_they_were_sequenced(bam: Path) -> None:
    found = list(read_records([bam]))
    turned = b"AACCGGTTAC".translate(COMPLEMENT)[::-1]
    scores = bytes(range(33 + 30, 33 + 40))
    assert [(r.id, r.name, r.sequence, r.qualities) for r in found] == [
        ("p/1", "p", turned, scores[::-1]),
        ("p/2", "p", b"ACGTACGTAC", bytes(range(43, 53))),
        ("q/1", "q", b"TTTTTACGTA", b"B" * 10),
        ("q/2", "q", b"CCCCCACGTA", bytes(range(35, 45))),
        ("s", "", b"GGGGGACGTA", bytes(range(38, 48))),
        ("u", "", b"ACACACACAC", bytes(range(38, 48))),
    ]
    assert check_head(bam) == found
    only = list(read_records([bam], options=ReadOptions(unmapped_only=True)))
    assert [(r.id, r.number) for r in only] == [("q/2", 1), ("u", 2)]


def test_the_same_reads_as_samtools_writes(bam: Path, tmp_path: Path) -> None:
    samtools = shutil.which("samtools")
    if samtools is None:
        pytest.skip("samtools is not installed")
    for options, flags in ((ReadOptions(), []), (ReadOptions(unmapped_only=True), ["-f", "4"])):
        text = subprocess.run([samtools, "fastq", *flags, bam], capture_output=True, check=True).stdout
        written = tmp_path / "x.fq"
        written.write_bytes(text)
        expected = sorted((r.id, r.sequence, r.qualities) for r in read_records([written]))
        assert sorted(facts(r) for r in read_records([bam], options=options)) == expected


def facts(record: Record) -> tuple[str, bytes, bytes]:
    return record.id, record.sequence, record.qualities


def test_cram_and_damaged_files(bam: Path, tmp_path: Path) -> None:
    pysam: Any = pytest.importorskip("pysam", reason="pysam is not installed")
    (tmp_path / "host.fa").write_text(">host\n" + "ACGTACGTAC" * 100 + "\n")
    with (
        pysam.AlignmentFile(str(bam)) as source,
        pysam.AlignmentFile(
            str(tmp_path / "x.cram"),
            "wc",
            template=source,
            reference_filename=str(tmp_path / "host.fa"),
            format_options=[b"embed_ref=1"],
        ) as out,
    ):
        for read in source.fetch(until_eof=True):
            out.write(read)
    assert [r.id for r in read_records([tmp_path / "x.cram"])] == ["p/1", "p/2", "q/1", "q/2", "s", "u"]
    whole = bam.read_bytes()
    bam.write_bytes(whole[:-28])
    with pytest.raises(IncompleteError, match="its last block is missing"):
        list(read_records([bam]))
    bam.write_bytes(whole[:60] + bytes(20) + whole[80:])
    with pytest.raises(InputError):
        list(read_records([bam]))


def test_bam_without_pysam_says_what_to_install(bam: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pysam", None)
    with pytest.raises(UsageError, match=r"need pysam; pip install 'virnucpro\[bam\]'"):
        list(read_records([bam]))


@settings(max_examples=150)
@given(st.data())
def test_damaged_files_are_read_or_refused_in_one_line(whole: dict[str, bytes], data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(whole)))
    content = bytearray(whole[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        at, byte = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 255))
        content[at : at + data.draw(st.integers(0, 20))] = bytes([byte])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(bgzip(bytes(content)) if kind == "unpacked" else bytes(content))
        for read in (lambda: list(read_records([path], duplicates="rename")), lambda: check_head(path)):
            try:
                read()
            except VirnucproError as error:
                assert "\n" not in str(error)  # noqa: PT017 - either is right


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A GenBank file, a BAM file, and what is in the BAM file."""
    pysam: Any = pytest.importorskip("pysam", reason="pysam is not installed")
    folder = tmp_path_factory.mktemp("whole")
    entry = SeqRecord(Seq("ACGT" * 9), "X.1", "X", "x", annotations={"molecule_type": "DNA"})
    SeqIO.write([entry], folder / "x.gb", "genbank")
    head = pysam.AlignmentHeader.from_dict({"HD": {"VN": "1.6"}, "SQ": [{"SN": "h", "LN": 9}]})
    with pysam.AlignmentFile(str(folder / "x.bam"), "wb", header=head) as out:
        for number in range(9):
            read = pysam.AlignedSegment(head)
            read.query_name, read.flag, read.query_sequence = f"r{number}", 4, "ACGTTGCA"
            out.write(read)
    bam = (folder / "x.bam").read_bytes()
    return {"genbank": (folder / "x.gb").read_bytes(), "bam": bam, "unpacked": gzip.decompress(bam)}


def bgzip(content: bytes) -> bytes:
    """The bytes as one block of bgzip, and the empty block at the end."""
    packer = zlib.compressobj(wbits=-15)
    body = packer.compress(content) + packer.flush()
    head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + struct.pack("<H", len(body) + 25)
    tail = struct.pack("<II", zlib.crc32(content), len(content))
    return head + body + tail + bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def test_options_of_other_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.fa").write_bytes(FASTA)
    with pytest.raises(InputError, match="--unmapped-only is for them"):
        list(read_records([tmp_path / "a.fa"], options=ReadOptions(unmapped_only=True)))
