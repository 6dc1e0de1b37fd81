"""Reads BAM and CRAM files, aligned or not, through pysam (the extra `bam`): primary reads only, as sequenced.

A read on the reverse strand is turned back. Secondary and supplementary alignments are left out: they repeat a read
that is there. Mates (flags 0x40 and 0x80) get `/1` and `/2` after their id. Qualities that a file does not have are
written as `B`, as `samtools fastq` does.
"""

import contextlib
import importlib
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from virnucpro_core.errors import IncompleteError, InputError, UsageError
from virnucpro_core.sequences.record import Places, Record, check_id, checked_letters

_SECONDARY, _SUPPLEMENTARY = 0x100, 0x800
_PAIRED, _UNMAPPED, _FIRST, _LAST = 0x1, 0x4, 0x40, 0x80
_DAMAGE = (OSError, ValueError, NotImplementedError)
_NO_QUALITY = b"B"
_PHRED = bytes(min(33 + q, ord("~")) for q in range(256))
_REMEDY = "check it with `samtools quickcheck`, and fetch or make it again"
_REFERENCE = (
    "CRAM needs its reference: set REF_PATH, or give the reads by `samtools fastq` and `virnucpro predict -`"
)


def parsed(path: Path, index: int, *, unmapped_only: bool = False) -> Generator[Record]:
    """The primary reads of a BAM or CRAM file, in its order; `index` is the number of the file in its sample.

    unmapped_only: only the reads that are not aligned. Raises InputError for a damaged or cut file, UsageError without
    pysam.
    """
    places, number = Places(path, "aligned"), 0
    file = _opened(path)
    try:
        for read in _reads(file, path):
            if read.flag & (_SECONDARY | _SUPPLEMENTARY) or (unmapped_only and not read.flag & _UNMAPPED):
                continue
            number += 1
            yield _record(read, index, number, places)
    except BaseException:
        with contextlib.suppress(OSError):  # of a damaged file; the first error says more
            file.close()
        raise
    try:
        file.close()
    except OSError as error:
        raise InputError("damaged at its end", path=path, remedy=_REMEDY) from error


def _pysam() -> Any:
    try:
        return importlib.import_module("pysam")
    except ImportError as error:
        raise UsageError("BAM and CRAM need pysam", remedy="pip install 'virnucpro[bam]'") from error


def _opened(path: Path) -> Any:
    pysam = _pysam()
    pysam.set_verbosity(0)  # its library would print to standard error
    try:
        with _unsaid():
            return pysam.AlignmentFile(str(path.resolve()), "r", check_sq=False)
    except _DAMAGE as error:
        is_cut = "EOF marker" in str(error) or "truncated" in str(error)
        kind = IncompleteError if is_cut else InputError
        what = (
            "the BAM file is cut: its last block is missing"
            if is_cut
            else f"not a whole BAM or CRAM ({error})"
        )
        raise kind(what, path=path, remedy=_REMEDY) from error


@contextlib.contextmanager
def _unsaid() -> Iterator[None]:
    """Print nothing of the errors that pysam meets when it drops a file that it could not open."""
    hooks = sys.unraisablehook, sys.excepthook
    sys.unraisablehook, sys.excepthook = (lambda _: None), (lambda *_: None)
    try:
        yield
    finally:
        sys.unraisablehook, sys.excepthook = hooks


def _reads(file: Any, path: Path) -> Iterator[Any]:
    try:
        yield from file.fetch(until_eof=True)
    except _DAMAGE as error:
        remedy = _REFERENCE if file.is_cram else _REMEDY
        raise InputError(f"damaged, or it cannot be decoded ({error})", path=path, remedy=remedy) from error


def _record(read: Any, index: int, number: int, places: Places) -> Record:
    try:
        name = read.query_name or ""
    except UnicodeDecodeError as error:
        what = f"the name of read {number:,} is not UTF-8"
        raise places.error(what, number, remedy=_REMEDY) from error
    if not name or name == "*":
        raise places.error(f"read {number:,} has no name", number, remedy="give it one")
    check_id(name, number, places)
    letters = b"" if read.query_sequence is None else read.get_forward_sequence().encode("ascii")
    scores = None if read.query_qualities is None else read.get_forward_qualities()
    qualities = _NO_QUALITY * len(letters) if scores is None else bytes(scores).translate(_PHRED)
    sequence, reason, uracils = checked_letters(name, letters, number, places)
    mate = {_FIRST: 1, _LAST: 2}.get(read.flag & (_FIRST | _LAST), 0) if read.flag & _PAIRED else 0
    named = f"{name}/{mate}" if mate and not name.endswith(("/1", "/2")) else name
    return Record(
        named,
        "",
        sequence,
        index,
        number,
        reason,
        uracils,
        name=name if named != name else "",
        qualities=qualities,
    )
