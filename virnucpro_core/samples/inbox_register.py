"""Turn what has arrived in the inbox into registered samples.

    s.fa                                  sample s
    run/1.fq run/2.fq run/3.fa            sample run: a folder is one sample
    run/a_R1.fq run/a_R2.fq run/b_R1.fq   samples a, b: names tell several apart, as for `virnucpro predict run`
    run/pat1_S1_L001_R1_001.fastq.gz ...  samples pat1, pat2, ...: a sequencer's run
    run/samples.csv run/...               the samples of the sheet, with its settings
    samples.csv s.fa t.fa                 the same: files of the inbox that a sheet names are no samples by themselves
    samples.csv                           the same; the files lie anywhere else

Of a run or a sheet, one sample that cannot be read stops no other. A fault in a sheet stops all of it.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virnucpro_core.errors import IncompleteError, InputError, UsageError, VirnucproError, printable
from virnucpro_core.files.digests import sha256_json
from virnucpro_core.samples.combined import check_exclusive, check_of_use, check_open_frames, layered
from virnucpro_core.samples.finding import FoundSample, find_samples, look_into, told_apart
from virnucpro_core.samples.inbox_entry import Entry
from virnucpro_core.samples.inbox_settings import SettingsFiles
from virnucpro_core.samples.inbox_state import shown
from virnucpro_core.samples.inputs import look_at_inputs, passing_error
from virnucpro_core.samples.naming import enter_unread, name_beside
from virnucpro_core.samples.sample import (
    NameTakenError,
    Sample,
    is_registered,
    open_sample,
    register_unread,
    taken,
)
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.samples.sheet import is_sheet, read_sheet
from virnucpro_core.samples.sheet_faults import SheetFaults
from virnucpro_core.sequences.names import Group, group_files, told_by_names

NO_FILES = "no FASTA or FASTQ file in this folder"
_SHOWN, _NOTES = 10, 3


@dataclass(frozen=True, slots=True)
class Arrival:
    """Entries of the inbox that are complete and belong together: one folder, one sheet, or the files of one sample.

    claimed: the entries that a sheet names.
    """

    name: str
    files: tuple[Path, ...]
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()
    claimed: tuple[Entry, ...] = ()

    @property
    def is_marked(self) -> bool:
        """Whether somebody has said that it is complete (NAME.done)."""
        return any(entry.marked for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Registered:
    """What some entries became.

    notes: what a person is told. hints: what the list of the inbox says as well. refused: samples of them that cannot
    be read, and why.
    """

    entries: tuple[Entry, ...]
    samples: tuple[str, ...]
    notes: tuple[str, ...]
    hints: tuple[str, ...] = ()
    refused: Mapping[str, VirnucproError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A sample whose settings, and the beginning of whose files, were checked.

    entries: those that it is made of. has_own: whether settings were given for it alone. hints: what a person should
    know about its files.
    """

    found: FoundSample
    entries: tuple[Entry, ...]
    settings: SampleSettings
    has_own: bool
    hints: tuple[str, ...]


class Registration:
    """Registers arrivals. settings: makes the settings of a sample from those that files of the inbox give."""

    def __init__(
        self, home: Path, settings: Callable[[Mapping[str, Any]], SampleSettings], files: SettingsFiles
    ) -> None:
        self._home, self._settings, self._files = home, settings, files

    def register(self, arrival: Arrival, *, may_wait: bool) -> Iterator[Registered]:
        """Register the samples of the arrival, as far as they are not registered yet.

        may_wait: a file that looks incomplete is reason to wait for the rest, not to refuse it. Before the first sample
        is registered, raises InputError for files that cannot be read, UsageError for settings and for a sheet with
        faults.
        """
        entry = arrival.entries[0]
        if entry.refusal:
            raise InputError(entry.refusal, path=entry.path, remedy="give FASTA or FASTQ files")
        sheet = sheet_of(entry)
        if sheet is None and not arrival.files:
            raise InputError(_no_files(entry), path=entry.path, remedy="give FASTA or FASTQ files")
        if sheet is None and not entry.is_folder:
            yield from self._of_files(arrival)
            return
        found = self._of_sheet(sheet, arrival) if sheet else _of_folder(arrival)
        good, refused = self._sorted_out(found, arrival, may_wait=may_wait)
        before = _Before(self._home, entry.row.sample_names)
        samples: list[str] = []
        notes: list[str] = []
        hints: list[str] = []
        of_claimed = {file.path: (file, file.row.sample_names) for file in arrival.claimed}
        for one in good:
            earlier = before.of(one.found, is_chosen=sheet is not None, is_alone=len(found) == 1)
            sample, note = self._named(one, earlier, of_run=sheet is None and len(found) > 1)
            samples.append(sample.name)
            for file in one.entries[1:]:
                of_claimed[file.path][1].append(sample.name)
            before_it = f"{sample.name}: " if len(found) > 1 else ""
            notes += [before_it + text for text in (*filter(None, [note]), *one.found.notes)]
            hints += [before_it + text for text in one.hints]
        notes = [*_shortened(notes), *_left_out(entry, found, sheet), *self._stay([entry], samples)]
        if len(found) > 1:
            notes.insert(0, f"samples {some(samples)}")
        yield Registered((entry,), tuple(samples), tuple(notes), _shortened(hints), refused)
        for file, names in of_claimed.values():
            if names:
                yield Registered((file,), tuple(dict.fromkeys(names)), ())

    def _ready(self, found: FoundSample, entries: tuple[Entry, ...]) -> _Ready:
        """Raises UsageError for settings that exclude each other or cannot be used, InputError for the files."""
        paths = [entry.path for entry in entries]
        own = layered(self._files.given(paths, alone=True), found.settings)
        check_exclusive(own)
        settings = self._settings(layered(self._files.given(paths), own))
        check_of_use(own, [(settings, found.files)])
        check_open_frames(settings)
        has_own = bool(found.settings) or any(self._files.own(e.path, is_folder=e.is_folder) for e in entries)
        return _Ready(found, entries, settings, has_own, look_into(found.files, settings))

    def _sorted_out(
        self, found: Sequence[FoundSample], arrival: Arrival, *, may_wait: bool
    ) -> tuple[list[_Ready], dict[str, VirnucproError]]:
        """The samples whose files can be read, and why the others cannot. Raises the error if none can."""
        entry = arrival.entries[0]
        good: list[_Ready] = []
        refused: dict[str, VirnucproError] = {}
        for one in found:
            try:
                if one.error is not None:
                    raise one.error
                good.append(self._ready(one, (entry, *self._claimed(arrival, one))))
            except InputError as error:
                is_passing = passing_error(error) is not None
                if len(found) == 1 or is_passing or (may_wait and isinstance(error, IncompleteError)):
                    raise
                refused[one.name] = error
        if not good:
            name, first = next(iter(refused.items()))
            what = f"none of its {len(found):,} samples can be read; {name}: {first}"
            raise InputError(what, path=entry.path, remedy="give FASTA or FASTQ files")
        return good, refused

    def _stay(self, entries: Sequence[Entry], samples: Sequence[str]) -> list[str]:
        """A note on samples that these entries were before they changed, and are no more."""
        before = {name for entry in entries for name in entry.row.sample_names} - {*samples}
        names = sorted(name for name in before if is_registered(self._home, name))
        if not names:
            return []
        one = len(names) == 1
        what = (
            f"earlier sample{'' if one else 's'} {some(names)}, of other files, {'stays' if one else 'stay'}"
        )
        return [f"{what}; `virnucpro samples remove {names[0]}` deletes {'it' if one else 'one'}"]

    def _claimed(self, arrival: Arrival, found: FoundSample) -> tuple[Entry, ...]:
        """The entries of which a sample of a sheet is made."""
        inbox = (self._home / "inbox").resolve()
        names = {file.name for file in found.files if file.parent.resolve() == inbox}
        return tuple(entry for entry in arrival.claimed if entry.path.name in names)

    def _of_files(self, arrival: Arrival) -> Iterator[Registered]:
        for group in told_apart(Group(arrival.name, arrival.files)):
            own = tuple(e for e in arrival.entries if e.path in group.files or e.path not in arrival.files)
            if not all(e.is_handled for e in own):
                found, before = FoundSample(group.name, group.files), ""
                if len({entry.row.samples for entry in own}) == 1:
                    names = own[0].row.sample_names
                    before = _Before(self._home, names).of(found, is_chosen=False, is_alone=True)
                ready = self._ready(found, own)
                sample, note = self._named(ready, before)
                notes = (*arrival.notes, *filter(None, [note]), *self._stay(own, [sample.name]))
                yield Registered(own, (sample.name,), notes, ready.hints)

    def _of_sheet(self, sheet: Path, arrival: Arrival) -> list[FoundSample]:
        """The samples of a sheet, all checked. Raises SheetError."""
        entry, faults = arrival.entries[0], SheetFaults(sheet)
        found = read_sheet(sheet, faults)
        before = _Before(self._home, entry.row.sample_names)
        for one in found:
            if one.error is not None or faults.concern(one.rows):
                continue
            with faults.of(one.name, one.rows):
                claimed = self._claimed(arrival, one)
                self._check_places(one, entry, [file.path for file in claimed])
                self._ready(one, (entry, *claimed))
                is_new = not before.of(one, is_chosen=True)
                if is_new and name_beside(self._home, one.name, one.files) != one.name:
                    what = taken(open_sample(self._home, one.name)).what
                    raise UsageError(what, remedy="give this sample another name")
        faults.tell()
        return found

    def _check_places(self, found: FoundSample, entry: Entry, claimed: Sequence[Path]) -> None:
        """Raises UsageError for a file of a sheet that belongs to another entry of the inbox."""
        inbox, own = (self._home / "inbox").resolve(), entry.path.resolve()
        mine = {path.name for path in claimed}
        for file in found.files:
            place = file.parent.resolve()
            is_here = (place == inbox and file.name in mine) or (
                entry.is_folder and own in (place, *place.parents)
            )
            if inbox in (place, *place.parents) and not is_here:
                what = f"{printable(file.name)} is in another folder of the inbox"
                raise UsageError(what, remedy="put the sheet into that folder")

    def _named(self, ready: _Ready, before: str, *, of_run: bool = False) -> tuple[Sample, str]:
        """Register a sample under its own name or a free one. Returns the sample and a note on its name, or "".

        before: the sample that these files were registered as before they changed; "" if there is none.
        """
        found, settings = ready.found, ready.settings

        def enter(name: str, *, replaces: bool = False) -> Sample:
            # A sample without settings of its own keeps those that it has, whatever holds for the inbox now.
            enter_as = enter_unread if ready.has_own or replaces else register_unread
            return enter_as(self._home, name, found.files, settings, replaces=replaces)

        name, note = found.name, ""
        if before and is_registered(self._home, before):
            name = open_sample(self._home, before).base
        elif of_run and (name := name_beside(self._home, name, found.files)) != found.name:
            note = f"sample {found.name!r} already stands for other sequences: this one is sample {name!r}"
        try:
            sample = enter(name)
            if sample.variant_of and sample.name != before:
                note = f"other settings: a variant of sample {sample.variant_of!r}"
            return sample, note
        except NameTakenError as error:
            known, files = open_sample(self._home, name), look_at_inputs(found.files)
            # `unread`: an earlier scan was killed after it registered the sample and before it saved its row. No run
            # has read the earlier files, so the changed files may replace them.
            unread = not known.content and {f.path for f in known.inputs} & {f.path for f in files}
            if before or unread:
                sample = enter(name, replaces=True)
                if sample.name != (before or name):
                    return sample, f"changed, with other settings: a variant of sample {sample.variant_of!r}"
                what = f"changed after it became sample {sample.name!r}, which now stands for the later files"
                return sample, f"{what}; results of the earlier ones move to superseded/"
            own = sha256_json([[str(f.path), f.bytes, f.mtime_ns] for f in files])[:8]
            sample = enter(f"{name[:55]}-{own}")
            return sample, f"{error.what}: this one is sample {sample.name!r}"


def sheet_of(entry: Entry) -> Path | None:
    """The sample sheet that the entry is, or that lies at the top of the folder; None if there is none.

    Raises UsageError if a folder has several.
    """
    sheets = [table for table in entry.tables if is_sheet(table, certain=entry.is_folder)]
    if len(sheets) > 1:
        names = " and ".join(printable(sheet.name) for sheet in sheets[:2])
        raise UsageError(
            f"two sample sheets: {names}", where=entry.path, remedy="leave one of them in the folder"
        )
    return sheets[0] if sheets else None


def some(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are, for people."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(shown(os.fsencode(name)) for name in names[:_SHOWN]) + more


def _shortened(texts: Sequence[str]) -> tuple[str, ...]:
    """The first notes of many samples, and how many more there are."""
    more = (f"and {len(texts) - _NOTES:,} more notes",) if len(texts) > _NOTES else ()
    return (*texts[:_NOTES], *more)


def _of_folder(arrival: Arrival) -> list[FoundSample]:
    """One sample, or several that names tell apart, which are never mixed."""
    if len(told_by_names(arrival.files)) > 1:
        return find_samples(arrival.files)
    by_names = len(group_files(arrival.files))
    note = (
        f"one sample of {len(arrival.files):,} files; `virnucpro predict FOLDER` makes {by_names:,} of them"
    )
    return [FoundSample(arrival.name, arrival.files, notes=(note,) if by_names > 1 else ())]


def _left_out(entry: Entry, found: Sequence[FoundSample], sheet: Path | None) -> list[str]:
    """Notes on the files of a folder that no sample is made of."""
    if not entry.is_folder:
        return []
    notes = []
    tables = [str(table.relative_to(entry.path)) for table in entry.tables if table != sheet]
    if others := sorted([*entry.ignored, *tables]):
        notes.append(f"not sequence files, ignored: {some(others)}")
    read = {file.resolve() for one in found for file in one.files}
    if sheet is not None and (left := [file for file in entry.files if file.resolve() not in read]):
        notes.append(f"not in {printable(sheet.name)}, left out: {some([file.name for file in left])}")
    return notes


class _Before:
    """The samples that an entry became before it changed."""

    def __init__(self, home: Path, names: Sequence[str]) -> None:
        self._known = [open_sample(home, name) for name in names if is_registered(home, name)]
        self._by_file = {file.path: sample.name for sample in self._known for file in sample.inputs}
        self._by_name = {sample.base: sample.name for sample in self._known}

    def of(self, found: FoundSample, *, is_chosen: bool, is_alone: bool = False) -> str:
        """The name of the sample that this one was, "" if it was none.

        is_chosen: by its name, which a person has chosen, else by its files. is_alone: the only one of its entry.
        """
        if is_chosen:
            return self._by_name.get(found.name, "")
        if is_alone and len(self._known) == 1:
            return self._known[0].name
        return self._by_file.get(found.files[0].resolve(), "")


def _no_files(entry: Entry) -> str:
    return NO_FILES if entry.is_folder else "neither a sample sheet nor a file of sequences"
