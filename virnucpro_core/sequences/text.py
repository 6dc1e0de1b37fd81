"""Parses FASTA and FASTQ text into records. dnaio parses; this module checks headers, letters and qualities.

Errors name record and line. Knows one file at a time: no mates and no sample.
"""

import io
import itertools
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal

import dnaio

from virnucpro_core.errors import IncompleteError, InputError
from virnucpro_core.sequences.archives import open_text, unescape
from virnucpro_core.sequences.record import (
    DAMAGED,
    ORDINARY,
    Places,
    Record,
    check_id,
    checked_letters,
    strange_letter,
)

TextFormat = Literal["fasta", "fastq"]

# A FASTQ quality is a printable ASCII character.
_QUALITIES = bytes(range(ord("!"), ord("~") + 1))
_WRAPPED = "one FASTQ record is four lines; the file may be cut or wrapped"


def parsed(path: Path, index: int, stream: io.BufferedReader, lines: "Lines") -> Generator[Record]:
    """The records of the text in `stream`; `index` is the number of the file in its sample. Raises InputError."""
    for number, entry in entries(path, stream, lines):
        yield _record(entry, index, number, lines)


def entries(
    path: Path, stream: io.BufferedReader, lines: "Lines"
) -> Iterator[tuple[int, dnaio.SequenceRecord]]:
    """The entries of the text as dnaio reads them, numbered from 1. Raises InputError."""
    try:
        with dnaio.open(stream, fileformat=lines.text) as reader:
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


def header(entry: dnaio.SequenceRecord, number: int, lines: "Lines") -> tuple[str, str]:
    """Id and description. Raises InputError for a missing or invalid id."""
    # Most headers: nothing is escaped, and a space is the only white space.
    if entry.name.isascii() and entry.name.isprintable():
        name, *rest = entry.name.split(None, 1) or [""]
        if name:
            return name, rest[0] if rest else ""
    try:  # split as bytes: only ASCII white space ends an id, not a no-break space of Unicode
        words = [word.decode() for word in unescape(entry.name).split(None, 1)]
    except UnicodeDecodeError as error:
        raise lines.error(
            f"the header of record {number:,} is not UTF-8", number, remedy="save the file as UTF-8"
        ) from error
    if not words:
        raise lines.error(f"record {number:,} has no id", number, remedy="give it one")
    name, description = words[0], words[1] if len(words) > 1 else ""
    check_id(name, number, lines)
    return name, description


def _record(entry: dnaio.SequenceRecord, index: int, number: int, lines: "Lines") -> Record:
    name, description = header(entry, number, lines)
    sequence, qualities = entry.sequence.encode("ascii"), b""
    if lines.kind == "fastq":
        qualities = (entry.qualities or "").encode("ascii")
        _check_qualities(qualities, name, number, lines.path)
    if sequence.translate(None, ORDINARY):
        if lines.kind == "fasta":
            sequence = sequence.translate(None, b" \t")
        sequence = unescape(sequence.decode())
    sequence, reason, uracils = checked_letters(name, sequence, number, lines)
    return Record(name, description, sequence, index, number, reason, uracils, qualities=qualities)


def _check_qualities(qualities: bytes, name: str, number: int, path: Path) -> None:
    """Raises InputError for a byte that is not a quality: the file was damaged, or edited as text."""
    wrong = qualities.translate(None, _QUALITIES)
    if wrong:
        at = qualities.index(wrong[:1])
        byte = unescape(qualities[at : at + 3].decode("latin-1"))[0] if wrong[:1] == b"\x1b" else wrong[0]
        what = f"byte 0x{byte:02x} at position {at + 1:,} of the qualities; only '!' to '~' are allowed"
        raise InputError(what, path=path, record=name, line=4 * number, remedy=DAMAGED)


def _unequal(path: Path, number: int) -> InputError:
    """The error for a record with unequal numbers of letters and qualities.

    The numbers of the parser may be wrong, since it counts escaped bytes. So the record is read again here.
    """
    with open_text(path) as stream:
        head, letters, _, qualities = (
            unescape(line.decode("ascii").removesuffix("\n").removesuffix("\r"))
            for line in itertools.islice(stream, 4 * number - 4, 4 * number)
        )
    name = b" ".join(head[1:].split(None, 1)[:1]).decode(errors="replace")
    try:
        _check_qualities(qualities, name, number, path)
    except InputError as error:
        return error
    strange = strange_letter(letters)
    if strange is not None:
        what = f"byte 0x{strange[0][0]:02x} at position {strange.start() + 1:,} of the sequence"
        return InputError(what, path=path, record=name, line=4 * number - 2, remedy=DAMAGED)
    what = f"{len(letters):,} letters and {len(qualities):,} qualities"
    return InputError(what, path=path, record=name, line=4 * number, remedy=_WRAPPED)


class Lines(Places):
    """Finds line numbers of records for messages. The parser has none, so the file is read a second time if needed.

    Ask for records in ascending order; then one more pass over the file is enough.
    """

    def __init__(self, path: Path, kind: TextFormat) -> None:
        super().__init__(path, kind)
        self.text = kind
        self._stream: io.TextIOWrapper | None = None
        self._line = self._records = 0

    def of(self, number: int, letter: int | None = None) -> int:
        """Line number, from 1, of record `number`, or of one of its letters (from 0, without blanks)."""
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

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _next(self) -> str:
        assert self._stream is not None
        self._line += 1
        return next(self._stream).strip()
