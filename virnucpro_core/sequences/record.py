"""One record of a sequence file, and the checks of ids and letters that are the same in every format."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from unicodedata import category

from virnucpro_core.errors import InputError

Duplicates = Literal["refuse", "rename"]
Format = Literal["fasta", "fastq", "genbank", "aligned"]

NUCLEOTIDES = b"ACGTURYSWKMBDHVNacgturyswkmbdhvn"
# All that nearly every sequence consists of: neither to be refused nor to be replaced.
ORDINARY = NUCLEOTIDES.translate(None, b"Uu")
# X is not in the list: it also masks vectors and repeats in DNA.
AMINO_ACIDS_ONLY = b"EFILPQZJO*efilpqzjo"
PROTEIN_SHARE = 0.1
DAMAGED = "the file was damaged or edited: fetch or make it again"
_STRANGE = re.compile(rb"[^" + NUCLEOTIDES + rb"]")
_BLANK = re.compile(rb"[ \t\x0b\x0c]")
_U_TO_T = bytes.maketrans(b"Uu", b"Tt")


@dataclass(slots=True)
class Record:
    """One entry of a sample. Do not change one: it is not frozen because it is then made in half the time.

    `description` is the rest of the header after the id. `sequence` has ASCII letters in their original case, with U
    replaced by T (`uracils` times). `file` is an index into the sample's files. `number` is the number of the record
    in its file, from 1. `reason` says why the record cannot be scored; empty if it can. `name` is the id in the file
    if `id` is another one (a mate's `/1`, a repeat's `_2`), else empty. `qualities` has one byte a letter, `!` to `~`;
    empty if the file has none. The last two are not compared by `==`.
    """

    id: str
    description: str
    sequence: bytes
    file: int
    number: int
    reason: str = ""
    uracils: int = 0
    name: str = field(default="", compare=False, repr=False)
    qualities: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What is read of the files, and how.

    interleaved: the records of each FASTQ file are mate 1, mate 2, mate 1, ... unmapped_only: of BAM and CRAM only the
    reads that are not aligned. min_length: records with fewer bases get a reason instead of a score.
    """

    interleaved: bool = False
    unmapped_only: bool = False
    min_length: int = 0


EVERYTHING = ReadOptions()


class Places:
    """Says in errors where a record is. This one is for files without lines."""

    def __init__(self, path: Path, kind: Format) -> None:
        self.path, self.kind = path, kind

    def of(self, number: int, letter: int | None = None) -> int | None:  # noqa: ARG002 - for others
        """Line (from 1) of the header of record `number` (from 1), or of a letter of it; None without lines."""
        return None

    def error(
        self, what: str, number: int, *, record: str = "", letter: int | None = None, remedy: str
    ) -> InputError:
        """An InputError that names file, record and line."""
        line = self.of(number, letter)
        return InputError(what, path=self.path, record=record, line=line, remedy=remedy)

    def close(self) -> None:
        """Close what was opened to find lines."""


def check_id(name: str, number: int, places: Places) -> None:
    """Raises InputError for an id with control characters."""
    if not (name.isprintable() or all(c.isprintable() or category(c) == "Zs" for c in name)):
        raise places.error("control characters in the id", number, record=name, remedy="rename the record")


def checked_letters(name: str, sequence: bytes, number: int, places: Places) -> tuple[bytes, str, int]:
    """(letters with U as T, reason why they are not scored or "", number of U). Raises InputError for a wrong file."""
    if sequence and not sequence.translate(None, ORDINARY):
        return sequence, "", 0
    reason = "" if sequence else "empty record"
    if sequence.translate(None, NUCLEOTIDES):
        reason = _strange(name, sequence, number, places)
    uracils = sequence.count(b"U") + sequence.count(b"u")
    if uracils:
        sequence = sequence.translate(_U_TO_T)
    return sequence, reason, uracils


def strange_letter(sequence: bytes) -> re.Match[bytes] | None:
    """The first letter that is not a nucleotide code."""
    return _STRANGE.search(sequence)


def _strange(name: str, sequence: bytes, number: int, places: Places) -> str:
    """Why a sequence with letters other than nucleotides is not scored. Raises InputError if the file is wrong."""
    at = _STRANGE.search(sequence)
    assert at is not None
    blank = _BLANK.search(sequence) if places.kind == "fastq" else None
    if blank is not None:
        what = f"a blank at position {blank.start() + 1:,} of the sequence"
        raise places.error(what, number, record=name, letter=blank.start(), remedy=DAMAGED)
    amino = len(sequence) - len(sequence.translate(None, AMINO_ACIDS_ONLY))
    if amino >= PROTEIN_SHARE * len(sequence):
        raise places.error("looks like protein", number, record=name, remedy="give nucleotide sequences")
    if b">" in sequence and places.kind == "fasta":
        what = "'>' inside a sequence"
        raise places.error(
            what, number, record=name, letter=sequence.index(b">"), remedy="a line end is missing before it"
        )
    letter = sequence[at.start() : at.start() + 4].decode(errors="replace")[0]
    line = places.of(number, at.start())
    where = "" if line is None else f" (line {line:,})"
    return f"letter {letter!r} at position {at.start() + 1:,}{where} is not a nucleotide code"
