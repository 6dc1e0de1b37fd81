"""Records of FASTA and FASTQ files: every one comes out, or one line says what is wrong and where."""

import gzip
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_core.errors import InputError
from virnucpro_core.sequences.fasta import Record, read_records


def records(folder: Path, data: bytes, name: str = "x.fa", duplicates: str = "refuse") -> list[Record]:
    (folder / name).write_bytes(data)
    return list(read_records([folder / name], duplicates=duplicates))  # type: ignore[arg-type]


def refusal(folder: Path, data: bytes, name: str = "x.fa") -> str:
    with pytest.raises(InputError) as caught:
        records(folder, data, name)
    text = str(caught.value)
    assert "\n" not in text
    return text.removeprefix(f"{folder / name}").removeprefix(", ").removeprefix(": ")


def fastq(*entries: tuple[str, str]) -> bytes:
    return "".join(f"@{name}\n{letters}\n+\n{'I' * len(letters)}\n" for name, letters in entries).encode()


@pytest.mark.parametrize(
    "data",
    [
        b">a x y\nACGT\nacgtn\n>b\nAC\n",
        b">a x y\r\nACGT\r\nacgtn\r\n>b\r\nAC\r\n",
        b"\xef\xbb\xbf>a x y\nACGTacgtn\n\n>b\nAC",
        b"\n\n# note\n>a x y\nACG Tac\tgtn\n>b\nAC\n\n\n",
        b">a x y\rACGTacgtn\r>b\rAC\r",
        gzip.compress(b">a x y\nACGTacgtn\n", mtime=0) + gzip.compress(b">b\nAC\n", mtime=0),
    ],
    ids=["wrapped", "CRLF", "BOM, no last line end", "comments and spaces", "CR", "two members"],
)
def test_fasta_forms(tmp_path: Path, data: bytes) -> None:
    assert records(tmp_path, data) == [
        Record("a", "x y", b"ACGTacgtn", file=0, number=1),
        Record("b", "", b"AC", file=0, number=2),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"@a x\nACGT\n+\nIIII\n@b\nac\n+b\n@@\n",
        b"@a x\r\nACGT\r\n+\r\nIIII\r\n@b\r\nac\r\n+\r\nII",
        b"\xef\xbb\xbf@a x\nACGT\n+\nIIII\n@b\nac\n+\nII\n\n\n",
        gzip.compress(b"@a x\nACGT\n+\nII", mtime=0) + gzip.compress(b"II\n@b\nac\n+\nII\n", mtime=0),
    ],
    ids=["plain", "CRLF", "BOM and empty last lines", "two members"],
)
def test_fastq_forms(tmp_path: Path, data: bytes) -> None:
    assert records(tmp_path, data) == [
        Record("a", "x", b"ACGT", file=0, number=1),
        Record("b", "", b"ac", file=0, number=2),
    ]


LETTERS = st.text("ACGTUNacgtun-XRY", max_size=30)
NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=8)


@given(st.lists(st.tuples(NAMES, LETTERS), min_size=1, max_size=8, unique_by=lambda entry: entry[0]))
def test_every_record_comes_out(entries: list[tuple[str, str]]) -> None:
    fasta = "".join(f">{name} d\n{letters}\n" for name, letters in entries).encode()
    with tempfile.TemporaryDirectory() as folder:
        for data in (fasta, fastq(*((f"{name} d", letters) for name, letters in entries))):
            found = records(Path(folder), data)
            assert [r.id for r in found] == [name for name, _ in entries]
            expected = [letters.replace("U", "T").replace("u", "t") for _, letters in entries]
            assert [r.sequence.decode() for r in found] == expected
            for record, (_, letters) in zip(found, entries, strict=True):
                assert bool(record.reason) == (not letters or "-" in letters or "X" in letters)
                assert record.uracils == letters.upper().count("U")
                assert record.description == "d"


def test_reasons(tmp_path: Path) -> None:
    data = (
        b"# note\n>a\n>b\nACGTACGTACGT\n\nAC GT?ACGT\n>c\nACGT\n"
        b">d\nACGTACGTACGT\xc3\xa9\n>e\nACGTACGTACGTAC*T\n"
    )
    assert [(r.id, r.reason) for r in records(tmp_path, data)] == [
        ("a", "empty record"),
        ("b", "letter '?' at position 17 (line 6) is not a nucleotide code"),
        ("c", ""),
        ("d", "letter 'é' at position 13 (line 10) is not a nucleotide code"),
        ("e", "letter '*' at position 15 (line 12) is not a nucleotide code"),
    ]


@pytest.mark.parametrize("ends", ["", "\n", "\n\n", "\r\n", "\r\n\r\n\r\n"])
@pytest.mark.parametrize("last", ["@a\n\n+", "@a\r\n\r\n+a", "@a\nG\n+\n+", "@a\nGG\n+\n+A", "@a\nG\n+a\nI"])
def test_last_records_of_fastq(tmp_path: Path, last: str, ends: str) -> None:
    first = "@z\nACGT\n+\nIIII\n"
    if not ends.strip("\r") and "G" not in last:
        pytest.skip("cut before the empty line of qualities")
    found = records(tmp_path, (first + last + ends).encode(), "x.fq")
    assert [(r.id, r.sequence.decode()) for r in found] == [("z", "ACGT"), ("a", "G" * last.count("G"))]


def test_reasons_in_fastq(tmp_path: Path) -> None:
    data = b"@a\n\n+\n\n@b\nACG.\n+\nIIII\n@c\nAC>T\n+\nIIII\n"
    assert [(r.id, r.reason) for r in records(tmp_path, data)] == [
        ("a", "empty record"),
        ("b", "letter '.' at position 4 (line 6) is not a nucleotide code"),
        ("c", "letter '>' at position 3 (line 10) is not a nucleotide code"),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty; give FASTA, FASTQ, BAM, CRAM or GenBank"),
        (b"\n \n", "the file is empty; give FASTA, FASTQ, BAM, CRAM or GenBank"),
        (gzip.compress(b"", mtime=0), "the file is empty; give FASTA, FASTQ, BAM, CRAM or GenBank"),
        (b"# nothing\n", "no records; give FASTA, FASTQ, BAM, CRAM or GenBank"),
        (b"hello\n", "line 1: neither FASTA nor FASTQ: the first character is neither '>' nor '@'"),
        (b"\n\nACGT\n>a\nAC\n", "line 3: neither FASTA nor FASTQ"),
        (b"\x7fELF\x02\x01\x00\x00", "binary data, not text"),
        (">a\nACGT\n".encode("utf-16"), "binary data, not text"),
        (gzip.compress(gzip.compress(b">a\nACGT\n", mtime=1), mtime=0), "binary data, not text"),
        (b"@HD\tVN:1.6\n", "SAM, not FASTA or FASTQ"),
        (b"# note\nACGT\n", "line 2: Expected '>' at beginning of record, but got 'ACGT'."),
        (b"##gff-version 3\n", "GFF, not FASTA or FASTQ"),
        (b"LOCUS  X\n", "line 1: the last entry is incomplete: no `//` at its end; it was cut"),
        (b"LOCUS  X\n//\n", "line 1: not a GenBank entry"),
        (b">a\nACGT\n>\nAC\n", "line 3: record 2 has no id"),
        (b">a\nACGT\n> \t \nAC\n", "line 3: record 2 has no id"),
        (b">\xff\nACGT\n", "line 1: the header of record 1 is not UTF-8"),
        (b">a\x07b\nACGT\n", "record 'a\\x07b', line 1: control characters in the id"),
        (b">a\x1b[31m\nACGT\n", "control characters in the id"),
        (b">a\nACGT\nAC>b\nACGT\n", "record 'a', line 3: '>' inside a sequence; a line end is missing"),
        (b">a\nACGT\n>p\nMKVLFE\n", "record 'p', line 3: looks like protein; give nucleotide sequences"),
        (b">a x\nAC\n>b\nAC\n>a y\nGT\n", "record 'a', line 5: the same id as at line 1; make ids unique"),
    ],
)
def test_fasta_refusals(tmp_path: Path, data: bytes, message: str) -> None:
    assert message in refusal(tmp_path, data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"@a\nACGT\n+\nIIII\n@b\nAC\n", "the last record is incomplete; one FASTQ record is four lines"),
        (b"@a\nACGT\n+\nIII\n@b\nAC\n+\nII\n", "record 'a', line 4: 4 letters and 3 qualities; one FASTQ"),
        (b"@a x\nACGT\n+\nII\tI\n", "record 'a', line 4: byte 0x09 at position 3 of the qualities"),
        (b"@a\nACGT\n+\nII\x7fI\n", "record 'a', line 4: byte 0x7f at position 3 of the qualities"),
        (
            b"@a\nACGT\n+\nIII\r\r\n@b\nA\n+\nI\n",
            "record 'a', line 4: byte 0x0d at position 4 of the qualities",
        ),
        (b"@a\nACGT\n+\nII\xe9I\n", "record 'a', line 4: byte 0xe9 at position 3 of the qualities"),
        (b"@a\nACGT\n+\nI\x1bII\n", "record 'a', line 4: byte 0x1b at position 2 of the qualities"),
        (b"@a\nACGT\n+\nIIII \n", "record 'a', line 4: byte 0x20 at position 5 of the qualities"),
        (b"@a\nAC GT\n+\nIIIII\n", "record 'a', line 2: a blank at position 3 of the sequence"),
        (b"@a\n\tACGT\n+\nIIIII\n", "record 'a', line 2: a blank at position 1 of the sequence"),
        (b"@a\nACGT \n+\nIIII\n", "record 'a', line 2: byte 0x20 at position 5 of the sequence"),
        (
            b"@z\nA\n+\nI\n@a\nAC\xe9T\n+\nIIII\n",
            "record 'a', line 6: byte 0xe9 at position 3 of the sequence",
        ),
        (b"@a\nACGT\nACGT\n+\nIIIIIIII\n", "line 3: Line expected to start with '+'"),
        (b"@a\nACGT\n+\nIIII\n@\nAC\n+\nII\n", "line 5: record 2 has no id"),
        (
            b"@a\nACGT\n+\nIIII\n@b\nAC\n+\nII\n@a\nAC\n+\nII\n",
            "record 'a', line 9: the same id as at line 1",
        ),
    ],
)
def test_fastq_refusals(tmp_path: Path, data: bytes, message: str) -> None:
    assert message in refusal(tmp_path, data, "x.fq")


def test_a_record_reason_is_found_after_many_others(tmp_path: Path) -> None:
    lines = "".join(f">r{i}\nACGTACGTAC\n{'AC-' if i % 50 == 7 else 'ACG'}\n" for i in range(500))
    found = [(r.id, r.reason) for r in records(tmp_path, lines.encode()) if r.reason]
    assert found == [
        (f"r{i}", f"letter '-' at position 13 (line {3 * i + 3:,}) is not a nucleotide code")
        for i in range(7, 500, 50)
    ]


def test_mates_of_two_files(tmp_path: Path) -> None:
    one, two = tmp_path / "s_R1.fq", tmp_path / "s_R2.fq"
    one.write_bytes(fastq(("x 1:N", "AC"), ("y/1", "AC")))
    two.write_bytes(fastq(("x 2:N", "GT"), ("y/2", "GT")))
    found = list(read_records([one, two]))
    assert [(r.id, r.description, r.file, r.number) for r in found] == [
        ("x/1", "1:N", 0, 1),
        ("y/1", "", 0, 2),
        ("x/2", "2:N", 1, 1),
        ("y/2", "", 1, 2),
    ]


def test_interleaved_mates(tmp_path: Path) -> None:
    data = fastq(
        ("x 1", "A"), ("x 2", "C"), ("single", "G"), ("y", "T"), ("y", "A"), ("z/1", "A"), ("z/2", "A")
    )
    found = [r.id for r in records(tmp_path, data, "x.fq")]
    assert found == ["x/1", "x/2", "single", "y/1", "y/2", "z/1", "z/2"]
    assert "the same id as at line 1" in refusal(tmp_path, b">x\nA\n>x\nC\n")


def test_duplicates_over_two_files_name_both(tmp_path: Path) -> None:
    one, two = tmp_path / "a.fa", tmp_path / "b.fq"
    one.write_bytes(b">q\nAC\n\n>x\nAC\n")
    two.write_bytes(fastq(("y", "AC"), ("x", "AC")))
    with pytest.raises(InputError) as caught:
        list(read_records([one, two]))
    assert str(caught.value) == (
        f"{two}, record 'x', line 5: the same id as at {one}, line 4; "
        "make ids unique, or use `--duplicates rename`"
    )


def test_duplicates_renamed(tmp_path: Path) -> None:
    data = b"".join(b">%b\nAC\n" % name for name in (b"a", b"a", b"a_2", b"a", b"a_2", b"b", b"a"))
    found = [r.id for r in records(tmp_path, data, duplicates="rename")]
    assert found == ["a", "a_3", "a_2", "a_4", "a_2_2", "b", "a_5"]


@given(st.lists(st.sampled_from(["a", "a_2", "a_2_2", "b", "b_3"]), min_size=1, max_size=12))
def test_renamed_ids_are_unique_and_first_uses_stay(names: list[str]) -> None:
    data = "".join(f">{name}\nAC\n" for name in names).encode()
    with tempfile.TemporaryDirectory() as folder:
        found = [r.id for r in records(Path(folder), data, duplicates="rename")]
    assert len(set(found)) == len(names)
    for i, (old, new) in enumerate(zip(names, found, strict=True)):
        assert (new == old) == (old not in names[:i])
        assert new == old or new.removeprefix(f"{old}_").isdigit()


def test_a_reader_left_early_closes_its_file(tmp_path: Path) -> None:
    (tmp_path / "x.fa").write_bytes(b">a\nAC\n>b\nAC\n")
    stream = read_records([tmp_path / "x.fa"])
    assert next(stream).id == "a"  # type: ignore[attr-defined]
    stream.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("blank_in_sequence", "record 'a', line 4: byte 0x20 at position 21 of the qualities"),
        ("delete_character", "record 'a', line 4: byte 0x7f at position 31 of the qualities"),
        ("tab_in_quality", "record 'a', line 4: byte 0x09 at position 60 of the qualities"),
        ("unit_separator", "record 'a', line 4: byte 0x1f at position 31 of the qualities"),
    ],
)
def test_damaged_qualities_are_refused_with_record_and_line(shared: Path, file: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        list(read_records([shared / "cases" / "quality" / f"{file}.fastq"]))
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_every_printable_character_is_a_quality_and_no_other_byte(tmp_path: Path) -> None:
    qualities = bytes(range(0x21, 0x7F))
    path = tmp_path / "x.fq"
    path.write_bytes(b"@a\n" + b"A" * len(qualities) + b"\n+\n" + qualities + b"\n")
    assert [len(r.sequence) for r in read_records([path])] == [len(qualities)]
    for code in {*range(256)} - {*qualities} - set(b"\0\n"):
        path.write_bytes(b"@a\nACGT\n+\nII" + bytes([code]) + b"I\n")
        with pytest.raises(InputError, match=f"line 4: byte 0x{code:02x} at position 3"):
            list(read_records([path]))


@pytest.mark.parametrize("space", "\u00a0\u1680\u2000\u2003\u2007\u202f\u205f\u3000")
def test_an_id_ends_at_ascii_white_space_only(tmp_path: Path, space: str) -> None:
    path = tmp_path / "x.fa"
    path.write_text(f">contig{space}1 first {space}\nACG\n>contig{space}2\tsecond\nACG\n", encoding="utf-8")
    found = [(record.id, record.description) for record in read_records([path])]
    assert found == [(f"contig{space}1", f"first {space}"), (f"contig{space}2", "second")]


@pytest.mark.parametrize("character", "\u0085\u2028\u2029\u200b\u202e\x07")
def test_line_ends_and_control_characters_in_ids_are_refused(tmp_path: Path, character: str) -> None:
    path = tmp_path / "x.fa"
    path.write_bytes(f">contig{character}1\nACG\n".encode())
    with pytest.raises(InputError, match="control characters in the id"):
        list(read_records([path]))


def test_the_case_of_a_no_break_space(shared: Path) -> None:
    found = list(read_records([shared / "cases" / "no_break_space.fa"]))
    assert len({record.id for record in found}) == 2


def test_genpept_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prot.gb"
    head = "LOCUS       AAA00001                  12 aa            linear   VRL 01-JAN-2000\n"
    path.write_text(
        f"{head}ACCESSION   AAA00001\nVERSION     AAA00001.1\nORIGIN\n        1 mkvlaagagv ka\n//\n"
    )
    with pytest.raises(InputError, match=r"a protein \(its length on the line LOCUS is in aa\)"):
        list(read_records([path]))
