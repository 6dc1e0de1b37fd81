"""Reads FASTA and FASTQ files as a stream of records. No record is dropped silently.

A record that cannot be scored is returned with a reason. A damaged or wrong file raises InputError. dnaio parses the
files; this module checks ids and letters and pairs mates. Knows no chunk.
"""

import contextlib
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from unicodedata import category

import dnaio
import numpy as np

from virnucpro_core.errors import IncompleteError, InputError
from virnucpro_core.sequences.archives import is_cut_bgzip, open_text, unescape
from virnucpro_core.sequences.identical import Identities
from virnucpro_core.sequences.names import in_order, mates

Duplicates = Literal["refuse", "rename"]
Format = Literal["fasta", "fastq"]

# A FASTQ quality is a printable ASCII character.
_QUALITIES = bytes(range(ord("!"), ord("~") + 1))
_BLANK = re.compile(rb"[ \t\x0b\x0c]")
_WRAPPED = "one FASTQ record is four lines; the file may be cut or wrapped"
_DAMAGED = "the file was damaged or edited: fetch or make it again"
NUCLEOTIDES = b"ACGTURYSWKMBDHVNacgturyswkmbdhvn"
# X is not in the list: it also masks vectors and repeats in DNA.
AMINO_ACIDS_ONLY = b"EFILPQZJO*efilpqzjo"
HEAD_BYTES = 1 << 20
PROTEIN_SHARE = 0.1
_STRANGE = re.compile(rb"[^" + NUCLEOTIDES + rb"]")
_U_TO_T = bytes.maketrans(b"Uu", b"Tt")
_FOREIGN = (
    (b"@HD\t", "SAM", "convert it with `samtools fasta`"),
    (b"@SQ\t", "SAM", "convert it with `samtools fasta`"),
    (b"LOCUS ", "GenBank", "convert it to FASTA"),
    (b"##gff-version", "GFF", "give the sequences as FASTA"),
    (b"##fileformat=VCF", "VCF", "give the sequences as FASTA"),
)


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of a sample.

    `description` is the rest of the header after the id. `sequence` has ASCII letters in their original case, with U
    replaced by T (`uracils` times). `file` is an index into the sample's files sorted by name. `number` is the number
    of the record in its file, from 1. `reason` says why the record cannot be scored; empty if it can.
    """

    id: str
    description: str
    sequence: bytes
    file: int
    number: int
    reason: str = ""
    uracils: int = 0


def read_records(paths: Sequence[Path], *, duplicates: Duplicates = "refuse") -> Iterator[Record]:
    """All records of one sample's files, in the order of the file names.

    An id ends at the first ASCII white space. A FASTA line that begins with `#` is a comment. Blanks inside a FASTA
    sequence are dropped; in FASTQ they are refused, and so are qualities outside `!` to `~`. Mates get `/1` and `/2`
    after their id. Ids must be unique in the sample. With `duplicates="refuse"` a repeated id raises InputError after
    the last record; with "rename" repeats become `id_2`, `id_3`, ... (the files are then read twice).
    Raises InputError.
    """
    files = in_order(paths)
    if duplicates == "rename":
        yield from _renamed(files)
        return
    identities, counts = Identities(), [0] * len(files)
    for record in _read_files(files):
        identities.add(record.id.encode())
        counts[record.file] = record.number
        yield record
    first = identities.first()
    repeats = np.flatnonzero(first != np.arange(len(first)))
    if len(repeats):
        _refuse_duplicate(files, counts, int(first[repeats[0]]), int(repeats[0]))


def check_head(path: Path) -> None:
    """Check the first HEAD_BYTES of a file: is it FASTA or FASTQ?

    The first record is checked as in `read_records`, if it is complete in these bytes. Raises InputError, or
    IncompleteError for a file that ends too early.
    """
    with open_text(path) as stream:
        head = stream.read(HEAD_BYTES)
    kind = _format(path, head)
    if kind == "fastq" and len(head) == HEAD_BYTES and head.count(b"\n") < 4:
        return  # a long read; its end is checked when the sample is read
    with contextlib.closing(_Lines(path, kind)) as lines:
        first = next(_parsed(path, 0, io.BufferedReader(io.BytesIO(head)), lines), None)
    if first is None and len(head) < HEAD_BYTES:
        raise InputError("no records", path=path, remedy="give FASTA or FASTQ")


def _read_files(files: Sequence[Path]) -> Iterator[Record]:
    for index, (path, mate) in enumerate(zip(files, mates(files), strict=True)):
        yield from _read_file(path, index, mate)


def _read_file(path: Path, index: int, mate: int) -> Iterator[Record]:
    count = 0
    with open_text(path) as stream:
        kind = _format(path, stream.peek(1 << 12))
        with contextlib.closing(_Lines(path, kind)) as lines:
            records = _parsed(path, index, stream, lines)
            if kind == "fastq":
                records = (_named_mate(r, mate) for r in records) if mate else _interleaved(records)
            for record in records:
                count += 1
                yield record
    _check_end(path, count, kind)


def _check_end(path: Path, count: int, kind: Format) -> None:
    """Raises InputError for a file without records, or for FASTA in bgzip format without the last block."""
    if not count:
        raise InputError("no records", path=path, remedy="give FASTA or FASTQ")
    if kind == "fasta" and is_cut_bgzip(path):
        raise InputError(
            "the bgzip file lacks its last block", path=path, remedy="it was cut: fetch it again"
        )


def _format(path: Path, head: bytes) -> Format:
    text = head.lstrip()
    if not text:
        raise IncompleteError("the file is empty", path=path, remedy="give FASTA or FASTQ")
    for start, name, remedy in _FOREIGN:
        if text.startswith(start):
            raise InputError(f"{name}, not FASTA or FASTQ", path=path, remedy=remedy)
    if text[:1] in (b">", b"#"):
        return "fasta"
    if text[:1] == b"@":
        return "fastq"
    what = "neither FASTA nor FASTQ: the first character is neither '>' nor '@'"
    raise InputError(
        what, path=path, line=1 + head[: len(head) - len(text)].count(b"\n"), remedy="give FASTA or FASTQ"
    )


def read_entries(path: Path) -> Iterator[tuple[str, bytes]]:
    """(id, letters) of every record, in order. Letters may be of any alphabet; blanks are dropped.

    Ids need not be unique. Raises InputError if the file is not FASTA or FASTQ, is cut, or has a record without an id.
    """
    number = 0
    with open_text(path) as stream:
        with contextlib.closing(_Lines(path, _format(path, stream.peek(1 << 12)))) as lines:
            for number, entry in _entries(path, stream, lines):
                name, _ = _header(entry, number, lines)
                yield name, unescape(entry.sequence).translate(None, b" \t")
        _check_end(path, number, lines.kind)


def line_of(path: Path, number: int, letter: int | None = None) -> int:
    """Line number, from 1, of the header of record `number` (from 1) in a file.

    With `letter`: line number of that letter of the sequence, counted from 0 without blanks.
    """
    with open_text(path) as stream:
        kind = _format(path, stream.peek(1 << 12))
    with contextlib.closing(_Lines(path, kind)) as lines:
        return lines.of(number, letter)


def _parsed(path: Path, index: int, stream: io.BufferedReader, lines: "_Lines") -> Iterator[Record]:
    for number, entry in _entries(path, stream, lines):
        yield _record(entry, index, number, lines)


def _entries(
    path: Path, stream: io.BufferedReader, lines: "_Lines"
) -> Iterator[tuple[int, dnaio.SequenceRecord]]:
    try:
        with dnaio.open(stream, fileformat=lines.kind) as reader:
            yield from enumerate(reader, 1)
    except dnaio.FileFormatError as error:
        what = error.message.splitlines()[0].replace(r"'\n'", "an empty line")
        is_cut = "Premature end" in what
        if is_cut:
            what = "the last record is incomplete"
        line = None if error.line is None else error.line + 1
        if line is not None and "qualities differ" in what:
            raise _unequal(path, -(-line // 4)) from error
        remedy = _WRAPPED if lines.kind == "fastq" else ""
        kind = IncompleteError if is_cut else InputError
        raise kind(what, path=path, line=line, remedy=remedy) from error


def _header(entry: dnaio.SequenceRecord, number: int, lines: "_Lines") -> tuple[str, str]:
    """Id and description. Raises InputError for a missing or invalid id."""
    try:  # split as bytes: only ASCII white space ends an id, not a no-break space of Unicode
        words = [word.decode() for word in unescape(entry.name).split(None, 1)]
    except UnicodeDecodeError as error:
        raise lines.error(
            f"the header of record {number:,} is not UTF-8", number, remedy="save the file as UTF-8"
        ) from error
    if not words:
        raise lines.error(f"record {number:,} has no id", number, remedy="give it one")
    name, description = words[0], words[1] if len(words) > 1 else ""
    if not (name.isprintable() or all(c.isprintable() or category(c) == "Zs" for c in name)):
        raise lines.error("control characters in the id", number, record=name, remedy="rename the record")
    return name, description


def _record(entry: dnaio.SequenceRecord, index: int, number: int, lines: "_Lines") -> Record:
    name, description = _header(entry, number, lines)
    sequence = entry.sequence.encode("ascii")
    if lines.kind == "fastq":
        _check_qualities((entry.qualities or "").encode("ascii"), name, number, lines.path)
    elif b" " in sequence or b"\t" in sequence:
        sequence = sequence.translate(None, b" \t")
    reason = "" if sequence else "empty record"
    if sequence.translate(None, NUCLEOTIDES):
        sequence = unescape(sequence.decode())
        reason = _strange(name, sequence, number, lines)
    uracils = sequence.count(b"U") + sequence.count(b"u")
    if uracils:
        sequence = sequence.translate(_U_TO_T)
    return Record(name, description, sequence, index, number, reason, uracils)


def _check_qualities(qualities: bytes, name: str, number: int, path: Path) -> None:
    """Raises InputError for a byte that is not a quality: the file was damaged, or edited as text."""
    wrong = qualities.translate(None, _QUALITIES)
    if wrong:
        at = qualities.index(wrong[:1])
        byte = unescape(qualities[at : at + 3].decode("latin-1"))[0] if wrong[:1] == b"\x1b" else wrong[0]
        what = f"byte 0x{byte:02x} at position {at + 1:,} of the qualities; only '!' to '~' are allowed"
        raise InputError(what, path=path, record=name, line=4 * number, remedy=_DAMAGED)


def _unequal(path: Path, number: int) -> InputError:
    """The error for a record with unequal numbers of letters and qualities.

    The numbers of the parser may be wrong, since it counts escaped bytes. So the record is read again here.
    """
    with open_text(path) as stream:
        header, letters, _, qualities = (
            unescape(line.decode("ascii").removesuffix("\n").removesuffix("\r"))
            for line in itertools.islice(stream, 4 * number - 4, 4 * number)
        )
    name = b" ".join(header[1:].split(None, 1)[:1]).decode(errors="replace")
    try:
        _check_qualities(qualities, name, number, path)
    except InputError as error:
        return error
    strange = _STRANGE.search(letters)
    if strange is not None:
        what = f"byte 0x{strange[0][0]:02x} at position {strange.start() + 1:,} of the sequence"
        return InputError(what, path=path, record=name, line=4 * number - 2, remedy=_DAMAGED)
    what = f"{len(letters):,} letters and {len(qualities):,} qualities"
    return InputError(what, path=path, record=name, line=4 * number, remedy=_WRAPPED)


def _strange(name: str, sequence: bytes, number: int, lines: "_Lines") -> str:
    """Why a sequence with letters other than nucleotides is not scored. Raises InputError if the file is wrong."""
    at = _STRANGE.search(sequence)
    assert at is not None
    blank = _BLANK.search(sequence) if lines.kind == "fastq" else None
    if blank is not None:
        what = f"a blank at position {blank.start() + 1:,} of the sequence"
        raise lines.error(what, number, record=name, letter=blank.start(), remedy=_DAMAGED)
    amino = len(sequence) - len(sequence.translate(None, AMINO_ACIDS_ONLY))
    if amino >= PROTEIN_SHARE * len(sequence):
        raise lines.error("looks like protein", number, record=name, remedy="give nucleotide sequences")
    if b">" in sequence and lines.kind == "fasta":
        what = "'>' inside a sequence"
        raise lines.error(
            what, number, record=name, letter=sequence.index(b">"), remedy="a line end is missing before it"
        )
    letter = sequence[at.start() : at.start() + 4].decode(errors="replace")[0]
    line = lines.of(number, at.start())
    return f"letter {letter!r} at position {at.start() + 1:,} (line {line:,}) is not a nucleotide code"


class _Lines:
    """Finds line numbers of records for messages. The parser has none, so the file is read a second time if needed.

    Ask for records in ascending order; then one more pass over the file is enough.
    """

    def __init__(self, path: Path, kind: Format) -> None:
        self.path, self.kind = path, kind
        self._stream: io.TextIOWrapper | None = None
        self._line = self._records = 0

    def of(self, number: int, letter: int | None = None) -> int:
        """As `line_of`, for record `number`."""
        if self.kind == "fastq":
            return 4 * number - (3 if letter is None else 2)
        if self._stream is None:
            self._stream = io.TextIOWrapper(open_text(self.path), encoding="ascii")
        while self._records < number:
            self._records += self._next().startswith(">")
        if letter is not None:
            passed = 0
            while passed <= letter:
                text = unescape(self._next())
                passed += 0 if text.startswith(b"#") else len(text.translate(None, b" \t"))
        return self._line

    def error(
        self, what: str, number: int, *, record: str = "", letter: int | None = None, remedy: str
    ) -> InputError:
        """An InputError that names file, record and line."""
        line = self.of(number, letter)
        return InputError(what, path=self.path, record=record, line=line, remedy=remedy)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _next(self) -> str:
        assert self._stream is not None
        self._line += 1
        return next(self._stream).strip()


def _named_mate(record: Record, mate: int) -> Record:
    return record if record.id.endswith(("/1", "/2")) else replace(record, id=f"{record.id}/{mate}")


def _interleaved(records: Iterator[Record]) -> Iterator[Record]:
    """Two consecutive records with the same id are mates; they get `/1` and `/2`."""
    held: Record | None = None
    for record in records:
        if held is not None and record.id == held.id:
            yield _named_mate(held, 1)
            yield _named_mate(record, 2)
            held = None
            continue
        if held is not None:
            yield held
        held = record
    if held is not None:
        yield held


def _place(files: Sequence[Path], counts: Sequence[int], ordinal: int) -> tuple[Path, int]:
    """File and number in the file (from 1) of record `ordinal` of the sample (from 0)."""
    for path, count in zip(files, counts, strict=True):
        if ordinal < count:
            return path, ordinal + 1
        ordinal -= count
    raise AssertionError


def _refuse_duplicate(files: Sequence[Path], counts: Sequence[int], first: int, second: int) -> None:
    places = []
    for path, number in (_place(files, counts, first), _place(files, counts, second)):
        places.append((path, line_of(path, number)))
    (first_path, first_line), (path, line) = places
    where = "" if first_path == path else f"{first_path}, "
    record = next(r.id for i, r in enumerate(_read_files(files)) if i == second)
    what = f"the same id as at {where}line {first_line:,}"
    raise InputError(
        what, path=path, record=record, line=line, remedy="make ids unique, or use `--duplicates rename`"
    )


def _renamed(files: Sequence[Path]) -> Iterator[Record]:
    """Records with `_2`, `_3`, ... added to the second, third, ... use of an id, skipping ids that exist."""
    identities = Identities()
    for record in _read_files(files):
        identities.add(record.id.encode())
    is_taken = identities.lookup()
    first = identities.first()
    next_suffix = np.full(len(first), 2, np.int32)
    for ordinal, record in enumerate(_read_files(files)):
        if first[ordinal] == ordinal:
            yield record
            continue
        suffix = int(next_suffix[first[ordinal]])
        while is_taken(f"{record.id}_{suffix}".encode()):
            suffix += 1
        next_suffix[first[ordinal]] = suffix + 1
        yield replace(record, id=f"{record.id}_{suffix}")
