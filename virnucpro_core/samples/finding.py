"""Find the samples among the files and folders that somebody gives, and look into the files before any work begins.

The names say which files belong together (sequences/names.py); the first reads must agree. Reads only the beginning of
each file.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from virnucpro_core.errors import UsageError, VirnucproError, printable
from virnucpro_core.samples.inputs import check_inputs, files_of, ignored_in
from virnucpro_core.samples.sample import check_key
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.sequences.fasta import check_head, file_pairs, first_header
from virnucpro_core.sequences.names import (
    Group,
    group_samples,
    in_order,
    name_pairs,
    named_as_fastq,
    named_as_read,
    sample_name,
    without_index_reads,
)
from virnucpro_core.sequences.pairs import Header, agree, disagreement
from virnucpro_core.sequences.record import Record

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class FoundSample:
    """A sample that was asked for: its name and files, in the order in which they are read.

    settings: those that its rows of a sample sheet give. rows: their lines, from 1. notes: what a person should know,
    a line each. error: why it cannot be predicted, None if nothing is known that is wrong.
    """

    name: str
    files: tuple[Path, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    error: VirnucproError | None = None


def find_samples(
    paths: Sequence[Path], *, name: str | None = None, interleaved: bool = False
) -> list[FoundSample]:
    """The samples that files and folders make; with `name` they are one sample.

    interleaved: each file has both mates, so none is missing. What is wrong with one sample is its `error`. Raises
    InputError for a missing file, UsageError for a name that is not valid, or two samples with the same name.
    """
    check_inputs([path for path in paths if not path.is_dir()])
    files = files_of(paths)
    if name is not None:
        own, left_out = without_index_reads(in_order(files))
        found = [FoundSample(check_key(name), tuple(own), notes=Group(name, (), tuple(left_out)).notes)]
    else:
        groups = group_samples(files)
        if interleaved:
            groups = [replace(group, lone=()) for group in groups]
        found = [one for group in groups for one in _found(group)]
    return found


def stray_files(paths: Sequence[Path]) -> Iterator[str]:
    """Lines for each folder among the paths: files that `find_samples` leaves out, and how many are in subfolders."""
    for folder in paths:
        files = files_of([folder]) if folder.is_dir() else []
        if deeper := sum(1 for file in files if file.parent != folder):
            yield f"{printable(str(folder))}: {deeper:,} of {len(files):,} sequence files are in subfolders"
        if ignored := ignored_in([folder]):
            names = ", ".join(printable(path.name) for path in ignored[:_SHOWN])
            more = f" and {len(ignored) - _SHOWN:,} more" if len(ignored) > _SHOWN else ""
            yield f"{printable(str(folder))}: not sequence files, ignored: {names}{more}"


def _found(group: Group) -> list[FoundSample]:
    try:
        return [FoundSample(own.name, own.files, notes=own.notes) for own in told_apart(group)]
    except VirnucproError as error:
        return [FoundSample(group.name, group.files, error=error)]


def told_apart(group: Group) -> list[Group]:
    """The group, or its files as samples of their own: `a_1.fq` and `a_2.fq` may be two samples instead of two mates.

    Raises InputError if files are named R1 and R2 and their first reads do not have the same id, or cannot be read.
    """
    for i, j in name_pairs(group.files):
        one, two = group.files[i], group.files[j]
        heads = first_header(one), first_header(two)
        if None in heads or agree(heads[0] or Header(""), heads[1] or Header("")):
            continue
        if named_as_read(one):
            assert heads[0] is not None
            assert heads[1] is not None
            raise disagreement(one, two, heads[0], heads[1])
        return [Group(sample_name(path), (path,)) for path in group.files]
    return [group]


def look_into(files: Sequence[Path], settings: SampleSettings) -> tuple[str, ...]:
    """Check the beginning of each file of a sample. Returns hints for a person, a line each.

    Raises InputError for a file that would be refused; UsageError for BAM and CRAM without pysam.
    """
    check_inputs(files)
    hints: list[str] = []
    lengths: list[int] = []
    mates = file_pairs(files)
    if settings.interleaved and mates:
        one, two = (printable(files[k].name) for k in mates[0])
        what = f"--interleaved is for files that have both mates, and {one} and {two} have one each"
        raise UsageError(what, remedy="leave out --interleaved")
    pairs = {k for pair in mates for k in pair}
    for index, path in enumerate(files):
        head = check_head(path, settings.reading)
        lengths += [len(record.sequence) for record in head]
        if (
            named_as_fastq(path)
            and index not in pairs
            and not settings.interleaved
            and _looks_interleaved(head)
        ):
            what = "looks interleaved: mates follow each other"
            hints.append(f"{printable(path.name)}: {what}; with --interleaved every read must have its mate")
    typical = int(median(lengths)) if lengths else settings.chunk_size
    if 2 * typical < settings.chunk_size:
        smaller = "--chunk-size 300 fits better, " if settings.chunk_size > 300 else ""
        hints.append(
            f"records of about {typical:,} bases in chunks of {settings.chunk_size:,}: short records score less "
            f"reliably; {smaller}--min-length N leaves short ones uncalled"
        )
    return tuple(hints)


def _looks_interleaved(head: Iterable[Record]) -> bool:
    """Whether the first two reads of a FASTQ file are the mates of one pair."""
    first = [Header(r.name or r.id, r.description) for r in list(head)[:2] if r.qualities and r.number <= 2]
    return len(first) == 2 and first[0].id[:-1] == first[1].id[:-1] and agree(*first)
