"""Examine one entry of the inbox: a file, a folder, a sample sheet, or something else.

Reads names, sizes and times, no contents.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from virnucpro_core.files.digests import sha256_json
from virnucpro_core.samples.inbox_settings import SettingsFiles
from virnucpro_core.samples.inbox_state import Row
from virnucpro_core.samples.settings_file import NAME
from virnucpro_core.sequences.names import looks_like_sequence_file

MARKER = ".done"
UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".filepart")
TABLES = (".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry and its updated row. A change restarts the waiting time.

    files: sequence files, sorted. tables: files named .csv or .tsv, the file itself or those at the top of the folder,
    one of which may be a sample sheet. partial: names of files in the folder that are still arriving. ignored: names of
    other files. others: whether the folder holds anything at all. age: seconds since the entry last changed.
    marker: identifies its NAME.done, "" for none. marked: there is a NAME.done that was not acted on yet.
    trouble: why the entry cannot be examined now. refusal: why it can never become a sample.
    """

    path: Path
    row: Row
    is_folder: bool = False
    files: tuple[Path, ...] = ()
    tables: tuple[Path, ...] = ()
    partial: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    others: bool = False
    age: float = 0.0
    marker: str = ""
    trouble: str = ""
    refusal: str = ""

    @property
    def marked(self) -> bool:
        return self.marker not in ("", self.row.marker)

    @property
    def is_handled(self) -> bool:
        return self.row.handled


class Trouble(Exception):
    """The entry cannot be examined at this moment."""


def is_partial(name: str) -> bool:
    """Whether the name says that the file is still arriving or is a marker (NAME.done)."""
    return name.lower().endswith((*UNFINISHED, MARKER))


def final_name(name: str) -> str:
    """The name that a partial file will get when it is complete. A marker keeps its own name."""
    return name if name.lower().endswith(MARKER) else name[: name.rindex(".")]


def examine(path: Path, row: Row, now: float, settings: SettingsFiles) -> Entry | None:
    """The entry as it is now, None if it has vanished in the meantime. Updates the row."""
    try:
        found = _file_or_folder(path, row, settings)
    except FileNotFoundError:
        if not os.path.lexists(path):
            return None
        is_link = path.is_symlink()
        return _troubled(
            path, row, "a link that leads nowhere" if is_link else "changed while it was examined"
        )
    except Trouble as trouble:
        return _troubled(path, row, str(trouble))
    except (OSError, ValueError) as error:
        return _troubled(path, row, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    if found.is_handled:
        return found
    return replace(found, age=_age(found, now), marker=_marker(path))


def _troubled(path: Path, row: Row, trouble: str) -> Entry:
    """The entry with its trouble. An entry that is a sample already has none: its runs check its files."""
    return Entry(path, row) if row.handled else Entry(path, row, trouble=trouble)


def _age(found: Entry, now: float) -> float:
    """Seconds since the entry was first seen in its present state; 0 after a change or a restart of the clock."""
    row = found.row
    if row.since is None or now < row.since:
        row.since = now
    return now - row.since


def _file_or_folder(path: Path, row: Row, settings: SettingsFiles) -> Entry:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        return _folder(path, row, settings)
    if not stat.S_ISREG(status.st_mode):
        _update(row, f"mode {status.st_mode:o}", f"mode {status.st_mode:o}")
        return Entry(path, row, refusal="not a regular file")
    identity = f"{status.st_size} {status.st_mtime_ns}"
    identity = settings.marked(identity, path, row.identity, is_folder=False)
    _update(row, identity, identity)
    is_table = path.name.lower().endswith(TABLES)
    return Entry(
        path, row, files=() if is_table else (path,), tables=(path,) if is_table else (), others=True
    )


def _update(row: Row, identity: str, activity: str) -> None:
    if row.identity != identity:
        row.since, row.kind, row.said = None, "arriving", ""
    elif row.activity != activity and not row.handled:
        row.since = None
    row.identity, row.activity = identity, activity if not row.handled else row.activity


def _folder(path: Path, row: Row, settings: SettingsFiles) -> Entry:
    """The entry of a folder with all its files. Hidden files only show whether something is still being written."""
    files, tables, partial, ignored, facts, noise = [], [], [], [], [], []
    for file, status in _walk(path):
        name = str(file.relative_to(path))
        fact = [name, status.st_size, status.st_mtime_ns] if status else [name]
        noise.append(fact)
        if any(part.startswith(".") for part in file.relative_to(path).parts) or name.lower().endswith(
            ".done"
        ):
            continue
        # A file is unfinished too if a folder around it still has an unfinished name, as `lane2.part/a.fa`.
        if any(part.lower().endswith(UNFINISHED) for part in file.relative_to(path).parts):
            partial.append(name)
            facts.append(fact)
        elif status and stat.S_ISREG(status.st_mode) and looks_like_sequence_file(file):
            files.append(file)
            facts.append(fact)
        elif status and file.parent == path and name.lower().endswith(TABLES):
            tables.append(file)
            facts.append(fact)
        elif name != NAME:
            ignored.append(name)
    identity = settings.marked(sha256_json(facts), path, row.identity, is_folder=True)
    _update(row, identity, sha256_json([noise, identity]))
    return Entry(
        path,
        row,
        is_folder=True,
        files=tuple(sorted(files)),
        tables=tuple(sorted(tables)),
        partial=tuple(partial),
        ignored=tuple(sorted(ignored)),
        others=bool(noise),
    )


def _walk(folder: Path) -> Iterator[tuple[Path, os.stat_result | None]]:
    """Files below the folder, and links to folders, with their `stat` result. Raises Trouble, OSError."""
    places = [folder]
    while places:
        place = places.pop()
        with os.scandir(place) as found:
            inside = sorted(found, key=lambda one: one.name)
        for one in inside:
            file = Path(one.path)
            if one.is_dir(follow_symlinks=False):
                places.append(file)
                continue
            try:
                yield file, file.stat()
            except OSError as error:
                if looks_like_sequence_file(file):
                    why = error.strerror or str(error)
                    if error.errno in (errno.ENOENT, errno.ELOOP) and one.is_symlink():
                        why = "a link that leads nowhere"
                    raise Trouble(f"{file.relative_to(folder)}: {why}") from error
                yield file, None


def _marker(path: Path) -> str:
    """Identifies this NAME.done, so that a later one differs. "" if there is none or the name is too long for one."""
    with contextlib.suppress(OSError, ValueError):
        return str(path.with_name(path.name + MARKER).stat().st_mtime_ns)
    return ""
