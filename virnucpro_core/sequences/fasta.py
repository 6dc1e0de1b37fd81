"""Reads the files of a sample as one stream of records. No record is dropped silently.

A record that cannot be scored is returned with a reason. A damaged or wrong file raises InputError. Other modules parse
the formats; this one joins the files, pairs mates and keeps ids unique. Knows no chunk.
"""

import contextlib
import io
import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from virnucpro_core.errors import InputError
from virnucpro_core.sequences import alignments, genbank
from virnucpro_core.sequences.archives import first_bytes, is_cut_bgzip, open_text, unescape
from virnucpro_core.sequences.formats import GIVE, format_of
from virnucpro_core.sequences.identical import Identities
from virnucpro_core.sequences.names import in_order
from virnucpro_core.sequences.pairs import Agreement, Header, agree, files_in_pairs
from virnucpro_core.sequences.record import EVERYTHING, Duplicates, Format, ReadOptions, Record
from virnucpro_core.sequences.text import Lines, TextFormat, entries, header, parsed

__all__ = [
    "Duplicates",
    "ReadOptions",
    "Record",
    "check_head",
    "file_pairs",
    "line_of",
    "read_again",
    "read_entries",
    "read_records",
]
HEAD_BYTES = 1 << 20


def read_records(
    paths: Sequence[Path],
    *,
    duplicates: Duplicates = "refuse",
    options: ReadOptions = EVERYTHING,
    remedy: str = "make ids unique, or use `--duplicates rename`",
) -> Iterator[Record]:
    """All records of one sample's files, file by file in the given order.

    An id ends at the first ASCII white space. A FASTA line that begins with `#` is a comment. Blanks inside a FASTA
    sequence are dropped; in FASTQ they are refused, and so are qualities outside `!` to `~`. Mates get `/1` and `/2`
    after their id, and the ids of two files of mates must agree. Ids must be unique in the sample. With
    `duplicates="refuse"` a repeated id raises InputError after the last record; with "rename" repeats become `id_2`,
    `id_3`, ... (the files are then read twice). remedy: what that error says. Raises InputError; UsageError for BAM and
    CRAM without pysam.
    """
    files = in_order(paths)
    if duplicates == "rename":
        yield from _renamed(files, options)
        return
    identities, counts = Identities(), [0] * len(files)
    for record in _read_files(files, options):
        identities.add(record.id.encode())
        counts[record.file] = record.number
        yield record
    first = identities.first()
    repeats = np.flatnonzero(first != np.arange(len(first)))
    if len(repeats):
        _refuse_duplicate(files, options, counts, (int(first[repeats[0]]), int(repeats[0])), remedy)


def read_again(paths: Sequence[Path], *, options: ReadOptions = EVERYTHING) -> Generator[Record]:
    """As `read_records`, for files that were read before: repeated ids keep their name and are not refused."""
    yield from _read_files(in_order(paths), options)


def file_pairs(files: Sequence[Path]) -> list[tuple[int, int]]:
    """Indices of the files of a sample that are mates, (mate 1, mate 2). Raises InputError; see pairs.py."""
    return files_in_pairs(files, [first_header(path) for path in files]) if len(files) > 1 else []


def first_header(path: Path) -> Header | None:
    """Id and description of the first read of a FASTQ file; None for another format. Raises InputError."""
    if format_of(path) != "fastq":
        return None
    line = first_bytes(path, HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0][1:]
    words = [word.decode(errors="replace") for word in line.split(None, 1)]
    return Header(words[0] if words else "", words[1].strip() if len(words) > 1 else "")


def check_head(path: Path, options: ReadOptions = EVERYTHING) -> list[Record]:
    """The records in the first HEAD_BYTES of a file, or the first 1,000 reads of BAM or CRAM.

    They are checked as in `read_records`, if they are complete in these bytes. Raises InputError, or IncompleteError
    for a file that ends too early.
    """
    kind = _checked_format(path, options)
    if kind == "aligned":
        with contextlib.closing(alignments.parsed(path, 0, unmapped_only=options.unmapped_only)) as reads:
            found = list(itertools.islice(reads, 1000))
        if not found:
            _check_end(path, 0, kind, options)
        return found
    with open_text(path) as stream:
        head = stream.read(HEAD_BYTES)
    is_whole = len(head) < HEAD_BYTES
    if kind == "genbank":
        if not is_whole:  # up to the last complete entry
            head = head[: head.rfind(b"\n//") + 4]
        return list(genbank.parsed(path, 0, io.BufferedReader(io.BytesIO(head))))
    if not is_whole:  # up to the last complete record
        ends = head.rfind(b"\n>") + 1 if kind == "fasta" else _fastq_end(head)
        head = head[:ends] if ends else head
        if not ends and kind == "fastq":
            return []  # a long read; its end is checked when the sample is read
    with contextlib.closing(Lines(path, kind)) as lines:
        found = list(parsed(path, 0, io.BufferedReader(io.BytesIO(head)), lines))
        if options.interleaved:
            found = found if is_whole else found[: len(found) // 2 * 2]
            list(_in_turn(iter(found), lines))
    if not found and is_whole:
        raise InputError("no records", path=path, remedy=GIVE)
    return found


def _fastq_end(head: bytes) -> int:
    """Where the last complete record of four lines ends."""
    lines = head.count(b"\n")
    at = len(head)
    for _ in range(lines % 4 + 1):
        at = head.rfind(b"\n", 0, at)
    return at + 1 if lines >= 4 else 0


def _checked_format(path: Path, options: ReadOptions) -> Format:
    """The format of the file. Raises InputError if an option is not for it."""
    kind = format_of(path)
    if options.interleaved and kind != "fastq":
        raise InputError("not FASTQ", path=path, remedy="--interleaved is for FASTQ: leave it out")
    if options.unmapped_only and kind != "aligned":
        raise InputError("not BAM or CRAM", path=path, remedy="--unmapped-only is for them: leave it out")
    return kind


def _read_files(files: Sequence[Path], options: ReadOptions) -> Iterator[Record]:
    heads = [first_header(path) for path in files] if len(files) > 1 else [None]
    agreements: dict[int, tuple[int, Agreement]] = {}
    for one, two in files_in_pairs(files, heads) if not options.interleaved else []:
        head_1, head_2 = heads[one], heads[two]
        assert head_1 is not None
        assert head_2 is not None
        agreement = Agreement(files[one], files[two], (head_1, head_2))
        agreements |= {one: (1, agreement), two: (2, agreement)}
    for index, path in enumerate(files):
        for record in _read_file(path, index, options, is_mate=index in agreements):
            if index in agreements:
                mate, agreement = agreements[index]
                agreement.add(mate, record.id)
                yield _with_reason(_named_mate(record, mate), options)
            else:
                yield _with_reason(record, options)
    for agreement in {id(a): a for _, a in agreements.values()}.values():
        agreement.check(_ids_side_by_side(agreement.files))


def _with_reason(record: Record, options: ReadOptions) -> Record:
    if record.reason or len(record.sequence) >= options.min_length:
        return record
    return replace(record, reason=f"shorter than the minimum length of {options.min_length:,} bases")


def _read_file(path: Path, index: int, options: ReadOptions, *, is_mate: bool) -> Iterator[Record]:
    """The records of one file. Mates within it have `/1` and `/2`."""
    kind, count = _checked_format(path, options), 0
    for record in _parsed(path, index, kind, options, is_mate=is_mate):
        count += 1
        yield record
    _check_end(path, count, kind, options)


def _parsed(
    path: Path, index: int, kind: Format, options: ReadOptions, *, is_mate: bool = False
) -> Generator[Record]:
    if kind == "aligned":
        yield from alignments.parsed(path, index, unmapped_only=options.unmapped_only)
        return
    with open_text(path) as stream:
        if kind == "genbank":
            yield from genbank.parsed(path, index, stream)
            return
        with contextlib.closing(Lines(path, kind)) as lines:
            records: Iterator[Record] = parsed(path, index, stream, lines)
            if options.interleaved:
                records = _in_turn(records, lines)
            elif kind == "fastq" and not is_mate:
                records = _interleaved(records)
            yield from records


def _check_end(path: Path, count: int, kind: Format, options: ReadOptions) -> None:
    """Raises InputError for a file without records, or for text in bgzip format without the last block."""
    if not count and options.unmapped_only:
        raise InputError("no unmapped reads", path=path, remedy="leave out --unmapped-only")
    if not count:
        raise InputError("no records", path=path, remedy=GIVE)
    if kind in ("fasta", "genbank") and is_cut_bgzip(path):
        raise InputError(
            "the bgzip file lacks its last block", path=path, remedy="it was cut: fetch it again"
        )


def _text_format(path: Path) -> TextFormat:
    kind = format_of(path)
    if kind in ("fasta", "fastq"):
        return kind
    what = {"genbank": "GenBank", "aligned": "BAM or CRAM"}[kind]
    raise InputError(f"{what}, not FASTA or FASTQ", path=path, remedy="convert it to FASTA")


def read_entries(path: Path) -> Iterator[tuple[str, bytes]]:
    """(id, letters) of every record, in order. Letters may be of any alphabet; blanks are dropped.

    Ids need not be unique. Raises InputError if the file is not FASTA or FASTQ, is cut, or has a record without an id.
    """
    number, kind = 0, _text_format(path)
    with open_text(path) as stream, contextlib.closing(Lines(path, kind)) as lines:
        for number, entry in entries(path, stream, lines):
            name, _ = header(entry, number, lines)
            yield name, unescape(entry.sequence).translate(None, b" \t")
    _check_end(path, number, kind, EVERYTHING)


def line_of(path: Path, number: int, letter: int | None = None) -> int:
    """Line number, from 1, of the header of record `number` (from 1) in a FASTA or FASTQ file.

    With `letter`: line number of that letter of the sequence, counted from 0 without blanks.
    """
    with contextlib.closing(Lines(path, _text_format(path))) as lines:
        return lines.of(number, letter)


def _ids_side_by_side(files: tuple[Path, Path]) -> Iterator[tuple[str, str]]:
    one, two = (_parsed(path, 0, "fastq", EVERYTHING, is_mate=True) for path in files)
    with contextlib.closing(one), contextlib.closing(two):
        for first, second in zip(one, two, strict=False):  # unequal numbers are the caller's
            yield first.id, second.id


def _named_mate(record: Record, mate: int) -> Record:
    if record.id.endswith(("/1", "/2")):
        return record
    return replace(record, id=f"{record.id}/{mate}", name=record.id)


def _in_turn(records: Iterator[Record], lines: Lines) -> Iterator[Record]:
    """Mate 1, mate 2, mate 1, ... Raises InputError where two of them are no mates, or the last one is alone."""
    for one in records:
        two = next(records, None)
        if two is None:
            raise lines.error("the last read has no mate", one.number, record=one.id, remedy=_NOT_INTERLEAVED)
        if not agree(Header(one.id, one.description), Header(two.id, two.description)):
            what = f"not the mate of the read before it, {one.id[:80]!r}"
            raise lines.error(what, two.number, record=two.id, remedy=_NOT_INTERLEAVED)
        yield _named_mate(one, 1)
        yield _named_mate(two, 2)


_NOT_INTERLEAVED = "mates must follow each other; leave out --interleaved if they are not mates"


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


def _refuse_duplicate(
    files: Sequence[Path], options: ReadOptions, counts: Sequence[int], repeated: tuple[int, int], remedy: str
) -> None:
    first, second = repeated
    places = [_place(files, counts, first), _place(files, counts, second)]
    (first_path, first_number), (path, number) = places
    record = next(r.id for i, r in enumerate(_read_files(files, options)) if i == second)
    where = "" if first_path == path else f"{first_path}, "
    line, first_line = _line_if_any(path, number), _line_if_any(first_path, first_number)
    there = f"{where}line {first_line:,}" if first_line else f"{where}record {first_number:,}"
    raise InputError(f"the same id as at {there}", path=path, record=record, line=line, remedy=remedy)


def _line_if_any(path: Path, number: int) -> int | None:
    return line_of(path, number) if format_of(path) in ("fasta", "fastq") else None


def _renamed(files: Sequence[Path], options: ReadOptions) -> Iterator[Record]:
    """Records with `_2`, `_3`, ... added to the second, third, ... use of an id, skipping ids that exist."""
    identities = Identities()
    for record in _read_files(files, options):
        identities.add(record.id.encode())
    is_taken = identities.lookup()
    first = identities.first()
    next_suffix = np.full(len(first), 2, np.int32)
    for ordinal, record in enumerate(_read_files(files, options)):
        if first[ordinal] == ordinal:
            yield record
            continue
        suffix = int(next_suffix[first[ordinal]])
        while is_taken(f"{record.id}_{suffix}".encode()):
            suffix += 1
        next_suffix[first[ordinal]] = suffix + 1
        yield replace(record, id=f"{record.id}_{suffix}", name=record.name or record.id)
