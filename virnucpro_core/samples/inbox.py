"""Scan the inbox: find the files that have arrived completely, register them as samples, move unusable entries away.

A scan ("look" in the names below) is short. It reads sizes, times and the beginning of new files; runs read the rest.
A file is complete when its size and time have not changed for `stable_seconds` as seen by the scans, or at once when a
file NAME.done lies next to it. Two mates (R1, R2) are one sample; a single mate waits PATIENCE times as long for the
other one. A folder with an unfinished file (NAME.part) waits for it. Which samples an entry makes says
`inbox_register.py`. A problem with one entry is recorded in its row and does not affect the other entries.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virnucpro_core.errors import IncompleteError, InputError, VirnucproError, printable
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.files.locks import locked
from virnucpro_core.samples.inbox_entry import Entry, examine, final_name, is_partial
from virnucpro_core.samples.inbox_moves import DONE, move_taken, set_aside
from virnucpro_core.samples.inbox_register import NO_FILES, Arrival, Registered, Registration, sheet_of
from virnucpro_core.samples.inbox_settings import SUFFIX, SettingsFiles, in_a_settings_file, is_settings_file
from virnucpro_core.samples.inbox_state import PROBLEMS, InboxState, Kind, Row, shown
from virnucpro_core.samples.inputs import passing_error
from virnucpro_core.samples.products import CHUNKS
from virnucpro_core.samples.removal import remove_sample
from virnucpro_core.samples.sample import REJECTED, Sample, is_registered, open_sample, read_refusal
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.samples.settings_file import NAME
from virnucpro_core.samples.sheet import files_named
from virnucpro_core.samples.sheet_faults import SheetError
from virnucpro_core.sequences.names import Group, group_files, named_as_mate, names_of, sample_name

PATIENCE = 20
# Dagster stops a scan after 60 s. Entries that are not registered within LOOK_SECONDS wait for the next scan.
LOOK_SECONDS = 15.0
# In a sample's folder: it has been called.
RESULTS = "results/run.json"
_NOT_MOVED = f"; not moved to {DONE}/: "
_OPTION = re.compile(r"`--([a-z-]+) ([a-z0-9]+)`")


@dataclass(frozen=True, slots=True)
class News:
    """One message for the user: which entries of the inbox, what happened to them (`kind`) and why (`said`)."""

    kind: Kind
    entries: tuple[bytes, ...]
    said: str
    sample: str = ""
    moved_to: Path | None = None


@dataclass(slots=True)
class Look:
    """The outcome of one scan.

    number: of this scan. registered: samples registered by scans after the last one that was reported (`heard`).
    removed: samples that were removed, because their run refused the files. arriving: number of entries that are not
    complete yet. problems: rows of entries with a problem.
    """

    number: int
    news: list[News] = field(default_factory=list)
    registered: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    arriving: int = 0
    problems: list[Row] = field(default_factory=list)


def look(
    home: Path,
    settings: Callable[[Mapping[str, Any]], SampleSettings],
    *,
    now: float,
    stable_seconds: float,
    heard: int | None = None,
    seconds: float = LOOK_SECONDS,
) -> Look:
    """Scan `home/inbox` once and register the entries that are complete.

    settings: makes the settings of a sample from those that the settings files of the inbox give. now: the time in
    seconds of `inbox_state.clock`. heard: number of the latest scan whose samples were reported; None if unknown.
    seconds: time limit, after which this scan registers nothing more. Raises StoreError if the inbox or its state file
    cannot be read, or if another process scans the inbox.
    """
    inbox = home / "inbox"
    with disk_errors(inbox):
        inbox.mkdir(parents=True, exist_ok=True)
    busy = "an earlier scan of the inbox is still running"
    with locked(home / "inbox.lock", busy=busy), InboxState(home) as state:
        found = Look(max(state.last_look, heard or 0) + 1)
        if state.damaged:
            said = f"{state.file} was damaged and was moved aside: all of the inbox is scanned again"
            found.news.append(News("failing", (), said))
        with disk_errors(inbox):
            names = sorted(os.listdir(inbox))  # noqa: PTH208 - names alone
        files = SettingsFiles(inbox, names)
        entries = list(_entries(inbox, names, state, now, files))
        looker = _Looker(home, settings, files, state, found, stable_seconds)
        looker.work(entries, names, time.monotonic() + seconds)
        rows = state.rows.values()
        found.arriving = sum(row.kind == "arriving" for row in rows)
        found.problems = [row for row in rows if row.kind in PROBLEMS]
        found.registered = sorted(
            {
                name
                for row in rows
                if row.kind in ("registered", "taken") and row.look > (heard or 0)
                for name in row.sample_names
            }
        )
        return found


def was_begun(sample: Sample) -> bool:
    """Whether a run or the command line has already read the sample's files, as they are registered now."""
    return sample.content != "" or sample.rejected.exists()


def _entries(
    inbox: Path, names: Sequence[str], state: InboxState, now: float, files: SettingsFiles
) -> Iterator[Entry]:
    """All entries that may become a sample, with their rows. Rows of entries that no longer exist are dropped."""
    gone = set(state.rows)
    for name in names:
        if name.startswith(".") or is_partial(name) or is_settings_file(name):
            continue
        key = os.fsencode(name)
        entry = examine(inbox / name, state.rows.get(key) or Row(key), now, files)
        if entry is not None:
            gone.discard(key)
            state.rows[key] = entry.row
            yield entry
    for key in gone:
        del state.rows[key]


class _Looker:
    """Processes the entries of one scan."""

    def __init__(
        self,
        home: Path,
        settings: Callable[[Mapping[str, Any]], SampleSettings],
        files: SettingsFiles,
        state: InboxState,
        found: Look,
        stable_seconds: float,
    ) -> None:
        self.home, self.files, self.state, self.found = home, files, state, found
        self.registration = Registration(home, settings, files)
        self.stable = stable_seconds

    def work(self, entries: Sequence[Entry], names: Sequence[str], deadline: float) -> None:
        for entry in entries:
            if entry.trouble:
                self._note((entry,), "unreadable", entry.trouble)
        self._follow(entries)
        arrivals = list(self._whole(entries, names))
        # Entries that failed before come last, so that they cannot use up the time of every scan.
        for arrival in sorted(arrivals, key=lambda a: any(e.row.kind in PROBLEMS for e in a.entries)):
            if time.monotonic() > deadline:
                new = [entry for entry in arrival.entries if entry.row.kind == "arriving"]
                self._wait(new, "more files than one scan can register: waits for the next scan")
            else:
                self._take(arrival)

    def _follow(self, entries: Sequence[Entry]) -> None:
        """See what became of the registered entries: refused by their runs, or taken."""
        moves = self.files.moves_taken()
        together: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.row.kind == "registered" or (moves and entry.row.kind == "taken"):
                together.setdefault(entry.row.samples, []).append(entry)
        for names, own in together.items():
            samples = [name for name in names.split() if is_registered(self.home, name)]
            read = {name for name in samples if (self.home / "samples" / name / CHUNKS).exists()}
            others = [name for name in samples if name not in read]
            refused = [name for name in others if (self.home / "samples" / name / REJECTED).exists()]
            if not samples or len(read) + len(refused) < len(samples):
                continue
            if refused == [names]:
                self._take_back(names, own)
                continue
            if own[0].row.kind == "registered":
                self._tell_refused({name: self._refusal(name, own[0]) for name in refused}, own)
            for entry in own:
                entry.row.kind = "taken"
            # What was refused, or has failed, may be corrected where it lies.
            if moves and all((self.home / "samples" / name / RESULTS).exists() for name in samples):
                self._move(samples, own)

    def _refusal(self, name: str, entry: Entry) -> str:
        """Why the run of a sample has refused its files. An option of `predict` is a line of a settings file here."""
        file = f"{names_of(entry.path)[0]}{SUFFIX} beside the file"
        if entry.tables:
            file = "the sample sheet"
        elif entry.is_folder:
            file = f"{NAME} in the folder"
        return _OPTION.sub(rf'`\1 = "\2"` in {file}', read_refusal(open_sample(self.home, name)))

    def _take_back(self, name: str, entries: Sequence[Entry]) -> None:
        """Remove a sample that its run has refused, for which nothing was computed, and set its entries aside."""
        with contextlib.suppress(VirnucproError):  # a process works on it: the next scan does it
            reason = self._refusal(name, entries[0])
            remove_sample(self.home, name)
            self.found.removed.append(name)
            self._refuse(Arrival(name, (), tuple(entries)), reason)

    def _move(self, names: Sequence[str], entries: Sequence[Entry]) -> None:
        try:
            own = {file for e in entries for file in self.files.own(e.path, is_folder=e.is_folder)}
            beside = [file for file in own if file.parent == entries[0].path.parent]
            samples = [open_sample(self.home, name) for name in names]
            targets = move_taken(samples, [entry.path for entry in entries], beside)
        except (VirnucproError, OSError) as error:
            for entry in entries:
                entry.row.said = f"{_without_move(entry.row.said)}{_NOT_MOVED}{error}"
            return
        for entry in entries:
            entry.row.said = _without_move(entry.row.said)
            self.state.leave(entry.row, "taken", entry.row.said, targets[entry.path])

    def _whole(self, entries: Sequence[Entry], names: Sequence[str]) -> Iterator[Arrival]:
        """Samples whose entries have stopped changing, or are marked as complete (NAME.done)."""
        for entry in entries:
            if entry.trouble or entry.is_handled:
                continue
            if entry.refusal:
                yield Arrival("", (), (entry,))
            elif entry.is_folder and self._is_whole_folder(entry):
                yield Arrival(sample_name(entry.path), entry.files, (entry,))
        claims = self._claims(entries)
        for sheet, named in claims:
            if self._is_whole_sheet(sheet, named, names):
                yield Arrival("", (), (sheet,), claimed=named)
        claimed = {entry.path for _, named in claims for entry in named}
        files = {e.path: e for e in entries if e.files and not e.is_folder and e.path not in claimed}
        # Wait for a mate that cannot be read now or that still has a partial name.
        absent = {e.path for e in entries if e.trouble}
        absent |= {self.home / "inbox" / final_name(name) for name in names if is_partial(name)}
        absent -= files.keys()
        if all(e.is_handled for e in files.values()):
            return
        for group in group_files(sorted({*files, *filter(named_as_mate, absent)})):
            present = tuple(files[p] for p in (*group.files, *group.left_out) if p in files)
            if present and not all(e.is_handled for e in present):
                missing = [p for p in group.files if p not in files]
                if self._is_whole_group(group, present, missing):
                    yield Arrival(group.name, group.files, present, group.notes)

    def _claims(self, entries: Sequence[Entry]) -> list[tuple[Entry, tuple[Entry, ...]]]:
        """The files of the inbox that each new sheet names: they become its samples, not samples by themselves."""
        inbox = (self.home / "inbox").resolve()
        files = {e.path.name: e for e in entries if e.files and not e.is_folder and not e.trouble}
        claims = []
        for entry in entries:
            if not entry.tables or entry.is_folder or entry.trouble:
                continue
            own = {*entry.row.sample_names}
            if entry.is_handled and not any(
                own & {*e.row.sample_names} for e in files.values() if not e.is_handled
            ):
                continue
            named = {file.name for file in files_named(entry.path) if file.parent.resolve() == inbox}
            claimed = tuple(files[name] for name in sorted(named & files.keys()))
            if entry.is_handled:
                if all(e.is_handled for e in claimed):
                    continue
                entry.row.kind = "arriving"  # a file that it names has changed
            claims.append((entry, claimed))
        return claims

    def _is_whole_sheet(self, sheet: Entry, named: Sequence[Entry], names: Sequence[str]) -> bool:
        self._wait(named, f"waits for {shown(sheet.row.name)}, which names it")
        late = [
            e.path.name for e in (sheet, *named) if not (e.is_handled or e.marked or e.age >= self.stable)
        ]
        wanted = {file.name for file in files_named(sheet.path)}
        late += [name for name in names if is_partial(name) and final_name(name) in wanted]
        if late:
            first = shown(os.fsencode(late[0]))
            self._wait((sheet,), "" if late == [sheet.path.name] else f"waits for {first}")
        return not late

    def _is_whole_folder(self, entry: Entry) -> bool:
        if entry.partial:
            more = f" (and {len(entry.partial) - 1:,} more)" if len(entry.partial) > 1 else ""
            what = f"{shown(os.fsencode(entry.partial[0]))}{more} is still arriving"
            self._wait((entry,), f"{what}: waits until it is complete or deleted")
        elif not (entry.marked or entry.age >= self.stable):
            self._wait((entry,), "")
        elif not entry.files and not entry.others and not entry.marked:
            self._wait((entry,), "an empty folder")
        elif not (entry.files or entry.marked or entry.age >= PATIENCE * self.stable or _has_sheet(entry)):
            self._wait((entry,), f"{NO_FILES}: waiting for more files")
        else:
            return True
        return False

    def _is_whole_group(self, group: Group, present: tuple[Entry, ...], missing: Sequence[Path]) -> bool:
        late = [e.path for e in present if not (e.is_handled or e.marked or e.age >= self.stable)]
        marked = any(e.marked for e in present)
        if late or (missing and not marked):
            others = [shown(os.fsencode(p.name)) for p in (*late, *missing)]
            self._wait(present, f"waits for {others[0]}" if len(present) + len(missing) > 1 else "")
            return False
        age = min(e.age for e in present if not e.is_handled)
        if group.lone and not marked and age < PATIENCE * self.stable:
            self._wait(present, "waits for its mate")
            return False
        return True

    def _take(self, arrival: Arrival) -> None:
        """Register the arrival or record why that failed. An error here never stops the other arrivals."""
        ages = [entry.age for entry in arrival.entries if not entry.is_handled]
        may_wait = not arrival.is_marked and min(ages) < PATIENCE * self.stable
        try:
            for one in self.registration.register(arrival, may_wait=may_wait):
                self._record(one)
        except (VirnucproError, OSError, ValueError) as error:
            passing, text = passing_error(error), in_a_settings_file(str(error))
            if isinstance(error, SheetError):
                text = f"{printable(Path(error.where).name)}: {'; '.join(error.faults)}"
            if isinstance(error, IncompleteError) and may_wait:
                self._wait(arrival.entries, f"looks incomplete: {text}")
            elif not all(path.exists() for path in arrival.files):
                self._wait(arrival.entries, "vanished during the scan")
            elif isinstance(error, InputError) and passing is None:
                self._refuse(arrival, text)
            else:
                is_file = isinstance(error, (InputError, OSError))
                self._note(arrival.entries, "unreadable" if is_file else "failing", text)

    def _record(self, one: Registered) -> None:
        """Note in the rows of its entries what an arrival became."""
        said = "; ".join(one.notes)
        for entry in one.entries:
            row = entry.row
            row.kind, row.samples = "registered", " ".join(one.samples)
            row.said = "; ".join((*one.notes, *map(in_a_settings_file, one.hints)))
            row.look, row.marker = self.found.number, entry.marker or row.marker
        if said:
            self._tell(one.entries, "registered", said, one.samples[0] if len(one.samples) == 1 else "")
        self._tell_refused({name: str(error) for name, error in one.refused.items()}, one.entries)

    def _tell_refused(self, refused: Mapping[str, str], entries: Sequence[Entry]) -> None:
        """Report samples of a run or a sheet that cannot be read, while the others go on."""
        for name, reason in refused.items():
            for entry in entries:
                entry.row.said += f"{'; ' if entry.row.said else ''}{name} was refused: {reason}"
            self._tell(entries, "refused", f"sample {name!r}: {reason}", "")

    def _refuse(self, arrival: Arrival, reason: str) -> None:
        """Move entries that cannot become a sample to `set_aside`. If that fails, report it once and leave it."""
        for entry in arrival.entries:
            try:
                moved_to = set_aside(self.home, entry.path, reason)
            except OSError as error:
                said = f"{reason}; left in the inbox, it cannot be moved: {error.strerror or error}"
                entry.row.marker = entry.marker or entry.row.marker
                self._note((entry,), "refused", said)
            else:
                entry.row.samples = ""
                self.state.leave(entry.row, "refused", reason, moved_to)
                self.found.news.append(News("refused", (entry.row.name,), reason, moved_to=moved_to))

    def _wait(self, entries: Sequence[Entry], said: str) -> None:
        for entry in entries:
            if not entry.is_handled:
                entry.row.kind, entry.row.said = "arriving", said

    def _note(self, entries: Sequence[Entry], kind: Kind, said: str) -> None:
        """Record a problem in the entries' rows. It is reported once, when it first occurs."""
        concerned = [entry for entry in entries if not entry.is_handled]
        is_news = any(entry.row.kind != kind for entry in concerned)
        for entry in concerned:
            entry.row.kind, entry.row.said = kind, said
        if is_news:
            self._tell(concerned, kind, said, "")

    def _tell(self, entries: Sequence[Entry], kind: Kind, said: str, sample: str) -> None:
        self.found.news.append(News(kind, tuple(e.row.name for e in entries), said, sample))


def _without_move(said: str) -> str:
    """What was said of an entry, without why it was not moved."""
    return said.partition(_NOT_MOVED)[0]


def _has_sheet(entry: Entry) -> bool:
    try:
        return sheet_of(entry) is not None
    except VirnucproError:  # the registration says what is wrong
        return True
