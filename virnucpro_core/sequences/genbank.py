"""Reads GenBank flat files through Biopython: one record for each entry, its id is `ACCESSION.VERSION`.

Lines are counted here, because Biopython has no line numbers and accepts a file that was cut.
"""

import io
import re
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path

from virnucpro_core.errors import IncompleteError, InputError
from virnucpro_core.sequences.record import Places, Record, check_id, checked_letters

NO_SEQUENCE = "the GenBank entry has no sequence"
_PROTEIN = re.compile(r"LOCUS[^\n]*\s\d+\s+aa(\s|$)", re.MULTILINE)
_REMEDY = "fetch it again, or convert it to FASTA"


def parsed(path: Path, index: int, stream: io.BufferedReader) -> Generator[Record]:
    """The entries of the text in `stream`; `index` is the number of the file in its sample.

    An entry without a sequence, such as a CON entry, has a reason. Raises InputError, with the line of the entry.
    """
    for number, (line, text) in enumerate(_entries(path, stream), 1):
        yield _record(path, text, line, (index, number))


def _entries(path: Path, stream: io.BufferedReader) -> Iterator[tuple[int, str]]:
    """(line of LOCUS, text) of each entry, up to its `//`. Raises IncompleteError if the last one has no end."""
    held: list[str] = []
    first = 1
    for number, line in enumerate(stream, 1):
        if not held and not line.strip():
            continue
        if not held:
            first = number
        held.append(line.decode("ascii"))
        if line.rstrip() == b"//":
            yield first, "".join(held)
            held = []
    if held:
        what = "the last entry is incomplete: no `//` at its end"
        raise IncompleteError(what, path=path, line=first, remedy="it was cut: fetch it again")


def _record(path: Path, text: str, line: int, place: tuple[int, int]) -> Record:
    # Imported here: this takes half a second, and few samples are GenBank.
    from Bio import BiopythonParserWarning, SeqIO  # noqa: PLC0415
    from Bio.Seq import UndefinedSequenceError  # noqa: PLC0415

    index, number = place
    places = _Lines(path, text, line)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BiopythonParserWarning)
            entry = SeqIO.read(io.StringIO(text), "genbank")  # type: ignore[no-untyped-call]
    except (ValueError, AttributeError, IndexError, KeyError, AssertionError) as error:
        what = f"not a GenBank entry ({error})"
        raise InputError(what, path=path, line=line, remedy=_REMEDY) from error
    words = (entry.id or entry.name or "").split()
    if not words:
        raise places.error(f"entry {number:,} has no accession", number, remedy="give it one")
    check_id(words[0], number, places)
    if _PROTEIN.match(text):
        what = "a protein (its length on the line LOCUS is in aa)"
        raise places.error(what, number, record=words[0], remedy="give nucleotide sequences")
    try:
        letters = bytes(entry.seq)
    except UndefinedSequenceError:
        return Record(words[0], entry.description, b"", index, number, NO_SEQUENCE)
    sequence, reason, uracils = checked_letters(words[0], letters, number, places)
    return Record(words[0], entry.description, sequence, index, number, reason, uracils)


class _Lines(Places):
    """Line numbers inside one entry."""

    def __init__(self, path: Path, text: str, first: int) -> None:
        super().__init__(path, "genbank")
        self._text, self._first = text, first

    def of(self, number: int, letter: int | None = None) -> int:  # noqa: ARG002 - one entry
        if letter is None:
            return self._first
        passed, sequence = 0, False
        for line, text in enumerate(self._text.split("\n"), self._first):
            if sequence:
                passed += len(re.sub(r"[\s\d]", "", text))
                if passed > letter:
                    return line
            sequence = sequence or text.startswith("ORIGIN")
        return self._first
