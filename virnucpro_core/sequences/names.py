"""Groups files into samples by their names: suffixes, lanes, mates, order. Opens no file.

pat1_S1_L001_R1_001.fastq.gz  pat1_S1_L001_R2_001.fastq.gz  pat1_S1_L002_R1_001.fastq.gz ...   sample pat1
a_R1.fq  a_R2.fq      or  a.R1.fq  a.R2.fq      or  a_1.fq  a_2.fq                             sample a
a_1.fastp.fq  a_2.fastp.fq   or  a_1_val_1.fq  a_2_val_2.fq   or  a_forward.fq  a_reverse.fq    sample a_fastp, a, a
SRR9_1.fastq  SRR9_2.fastq  SRR9.fastq (reads without a mate, as SRA's tools write them)       sample SRR9
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from virnucpro_core.errors import InputError, UsageError
from virnucpro_core.sequences.mates import (
    ALIGNED_SUFFIXES,
    FASTQ_SUFFIXES,
    PACKED_SUFFIXES,
    Mark,
    mark_of,
    read_names,
    stem_of,
)


@dataclass(frozen=True, slots=True)
class Group:
    """The files of one sample, in the order in which they are read.

    left_out: files of it that hold no reads of the sample (index reads). lone: names that say R1 or R2, without the
    other mate. own: the name as the files have it, before characters that a sample's name cannot have were replaced.
    """

    name: str
    files: tuple[Path, ...]
    left_out: tuple[Path, ...] = ()
    lone: tuple[Path, ...] = ()
    own: str = ""

    def named(self, name: Callable[[str, Path], str]) -> "Group":
        """The group under the name `name(own name, first file)`."""
        return replace(self, name=name(self.name, self.files[0]))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about the files: a missing mate, files left out."""
        notes = []
        if self.lone:
            more = f" (and {len(self.lone) - 1} more)" if len(self.lone) > 1 else ""
            notes.append(f"{self.lone[0].name}{more}: no file of the other mate: taken as single reads")
        if self.left_out:
            names = ", ".join(path.name for path in self.left_out)
            notes.append(f"index reads, left out: {names}")
        return tuple(notes)


def in_order(paths: Sequence[Path]) -> list[Path]:
    """The files of a sample in the given order.

    Raises UsageError if there is none, InputError if one is given twice.
    """
    if not paths:
        raise UsageError("no input file")
    seen: set[Path] = set()
    for path in paths:
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
            raise InputError("a link that leads nowhere", path=path, remedy="give the file itself") from error
        if resolved in seen:
            raise InputError("the same file is given twice", path=path, remedy="give it once")
        seen.add(resolved)
    return list(paths)


def name_pairs(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Indices of the files that are named as mates, (mate 1, mate 2).

    Mates have a FASTQ suffix, and their names differ only in what says the mate: see `mates.py`.
    """
    places = {path: index for index, path in enumerate(paths)}
    units: dict[tuple[Path, str], dict[int, int]] = {}
    for path, mark in read_names(paths)[1].items():
        units.setdefault(mark.unit, {})[mark.mate] = places[path]
    return [(unit[1], unit[2]) for unit in units.values()]


def named_as_fastq(path: Path) -> bool:
    """Whether the suffix is that of FASTQ, compressed or not."""
    return stem_of(path)[1] in FASTQ_SUFFIXES


def named_as_mate(path: Path) -> bool:
    """Whether the name of a FASTQ file says that it is one of two mates. A number inside the name does not."""
    mark = mark_of(path)
    return mark is not None and mark.is_alone_said


def named_as_read(path: Path) -> bool:
    """Whether the name says R1 or R2, which nothing but mates has. A 1 or 2 at the end may be any number."""
    return named_as_mate(path) and re.search(r"[._-][Rr][12](?:[._-]|$)", stem_of(path)[0]) is not None


def told_by_names(files: Sequence[Path]) -> list[str]:
    """The samples of which the names leave no doubt: those of a sequencer's run, of two mates, or of an R1 alone."""
    marks, paired = read_names(files)
    sure = {
        path
        for path, mark in marks.items()
        if path in paired or (mark is not None and (mark.by_lane or mark.level == 0))
    }
    return [group.name for group in group_files(files) if sure & {*group.files}]


def sample_name(path: Path) -> str:
    """The sample name of a single file: the file name without suffixes.

    Characters other than `[A-Za-z0-9_-]` become `_`; at most 64 characters. Raises InputError if the file name
    consists of suffixes only.
    """
    return _clean(stem_of(path)[0], path)


def names_of(path: Path) -> list[str]:
    """The names that people give to the files beside this one: without suffixes, and for a mate without R1 or R2."""
    stem = stem_of(path)[0]
    mark = mark_of(path)
    return [name for name in dict.fromkeys((mark.sample if mark else stem, stem)) if name]


def group_samples(paths: Sequence[Path]) -> list[Group]:
    """The samples that the files make, in the order of their first files. See the examples at the top.

    Samples of equal names get the names of their folders before it: `A_contigs`, `B_contigs`; in one folder, their
    suffixes after it: `a_fa`, `a_fq`. File names that differ only in what a sample's name cannot have, such as `a b.fa`
    and `a_b.fa`, get a part of a digest after it. Raises UsageError if there is no file.
    """
    groups = _told_by_digest(group_files(in_order(paths)))
    places = Counter((group.name, group.files[0].parent) for group in groups)
    groups = [
        group if places[group.name, group.files[0].parent] == 1 else group.named(with_suffix)
        for group in groups
    ]
    for level in range(max(len(path.resolve().parts) for path in paths)):
        names = Counter(group.name for group in groups)
        if len(names) == len(groups):
            break
        groups = [
            group if names[group.name] == 1 else group.named(partial(with_folder, level=level))
            for group in groups
        ]
    names = Counter(group.name for group in groups)
    return [
        group if names[group.name] == 1 else _with_digest(group, str(group.files[0].resolve()))
        for group in groups
    ]


def _told_by_digest(groups: Sequence[Group]) -> list[Group]:
    """Groups of one folder whose file names differ, but not their names as samples, get names of their own."""
    owns: dict[tuple[str, Path], set[str]] = {}
    for group in groups:
        owns.setdefault((group.name, group.files[0].parent), set()).add(group.own)
    return [
        _with_digest(group, group.own) if len(owns[group.name, group.files[0].parent]) > 1 else group
        for group in groups
    ]


def _with_digest(group: Group, text: str) -> Group:
    """The group with six digits of the sha256 of a text after its name. At most 64 characters."""
    digest = hashlib.sha256(os.fsencode(text)).hexdigest()[:6]
    return replace(group, name=f"{group.name[:57]}_{digest}")


def with_suffix(name: str, file: Path) -> str:
    """The name with the suffixes of the file after it: `a_fq`, `a_fq_gz`. At most 64 characters."""
    suffixes = file.name[len(stem_of(file)[0]) :].strip(".")
    after = re.sub(r"[^A-Za-z0-9_-]", "_", suffixes)
    return f"{name[: 63 - len(after)]}_{after}" if after else name


def with_folder(name: str, file: Path, level: int) -> str:
    """The name with that of a folder of the file before it: level 0 is the folder it lies in. At most 64 characters."""
    folders = file.resolve().parents
    folder = folders[level].name if level < len(folders) else ""
    before = re.sub(r"[^A-Za-z0-9_-]", "_", folder)
    return f"{before}_{name}"[:64] if before and len(before) + len(name) < 64 else name


def group_files(files: Sequence[Path]) -> list[Group]:
    """As `group_samples`, but without its errors: names may repeat, and `files` may be empty."""
    marks, paired = read_names(files)
    runs = {(path.parent, mark.sample): mark.library for path in paired if (mark := marks[path])}
    found: dict[object, list[Path]] = {}
    for path in files:
        mark, stem = marks[path], stem_of(path)
        key: object = path
        if mark is not None and (mark.by_lane or path in paired):
            key = mark.library
        elif stem[1] in FASTQ_SUFFIXES and (path.parent, stem[0]) in runs:
            key = runs[path.parent, stem[0]]  # reads of the run that have no mate
        found.setdefault(key, []).append(path)
    named = [_group(own, marks, paired) for own in _lanes_joined(list(found.values()), marks)]
    names = Counter((group.name, group.files[0].parent) for group in named)
    return [
        _with_number(group, marks[group.files[0]]) if names[group.name, group.files[0].parent] > 1 else group
        for group in named
    ]


def without_index_reads(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(files with reads, files with the index reads of those)."""
    groups = group_files(files)
    left_out = {path for group in groups for path in group.left_out}
    return [path for path in files if path not in left_out], [path for path in files if path in left_out]


def looks_like_sequence_file(path: Path) -> bool:
    """Whether the suffix is that of a format that is read, compressed or not, and the file is not hidden."""
    return stem_of(path)[1] != "" and not path.name.startswith(".")


def is_packed(path: Path) -> bool:
    """Whether the suffix is that of a compressed file."""
    return path.name.lower().endswith((*PACKED_SUFFIXES, *ALIGNED_SUFFIXES))


def _lanes_joined(groups: Sequence[list[Path]], marks: Mapping[Path, Mark | None]) -> list[list[Path]]:
    """The groups, with the lanes of one library joined that lie in folders side by side, as BaseSpace has them.

    The names of the folders are equal up to the lane: `a_L001-ds.x`, `a_L002-ds.y`. The same lane in two of them is
    another run.
    """
    joined: dict[object, list[Path]] = {}
    lanes: dict[object, set[str]] = {}
    for number, own in enumerate(groups):
        mark = marks[own[0]]
        here = {m.lane for path in own if (m := marks[path]) is not None}
        key: object = number
        before, lane, _ = own[0].parent.name.partition(mark.lane.strip("_") if mark and mark.lane else "\0")
        if mark is not None and mark.by_lane and lane and len(here) == 1:
            key = (own[0].parent.parent, before, mark.library[1])
            if lanes.setdefault(key, set()) & here:
                key = number
            else:
                lanes[key] |= here
        joined.setdefault(key, []).extend(own)
    return list(joined.values())


def _group(own: list[Path], marks: Mapping[Path, Mark | None], paired: Mapping[Path, Mark]) -> Group:
    """The group of files that belong together: two mates follow each other, whatever the given order."""
    reads = [path for path in own if (mark := marks[path]) is None or not mark.is_index]
    if not reads:
        reads = own  # index reads alone: somebody wants them
    units: dict[object, list[tuple[int, Path]]] = {}
    for path in reads:
        mark = marks[path]
        key, mate = (mark.unit, mark.mate) if mark and path in paired else (path, 0)
        units.setdefault(key, []).append((mate, path))
    files = tuple(path for unit in units.values() for _, path in sorted(unit))
    mark = next((m for path in files if (m := marks[path]) and (m.by_lane or path in paired)), None)
    name = stem_of(files[0])[0] if mark is None or (reads is own and mark.is_index) else mark.sample
    lone = tuple(
        p for p in files if (m := marks[p]) and m.is_alone_said and not m.is_index and p not in paired
    )
    left_out = tuple(path for path in own if path not in reads)
    return Group(_clean(name, own[0]), files, left_out, lone, name)


def _with_number(group: Group, mark: Mark | None) -> Group:
    """The group with the sample number of bcl2fastq in its name: two libraries of one sample in one folder."""
    if mark is None or not mark.by_lane:
        return group
    name = mark.library[1].split("/")[0]
    return replace(group, name=_clean(name, group.files[0]), own=name)


def _clean(stem: str, path: Path) -> str:
    if not stem:
        raise InputError("no name before the suffix", path=path, remedy="rename the file")
    return re.sub(r"[^A-Za-z0-9_-]|^-", "_", stem)[
        :64
    ]  # a name with - before it would be taken for an option
