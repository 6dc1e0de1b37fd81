"""One entry of the inbox as it lies there: a file, a folder, or neither. Reads names, sizes and times."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from virnucpro_core.files.digests import sha256_json
from virnucpro_core.samples.inbox_state import Row
from virnucpro_core.sequences.names import looks_like_sequence_file

MARKER = ".done"
PARTIAL = (".part", ".partial", ".tmp", ".crdownload", ".filepart", MARKER)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry with its row, which is brought up to date: a change begins the waiting anew.

    files: sequence files, sorted; partial: names of files in the folder that still arrive; ignored: of other files;
    others: whether there is anything at all. age: seconds since it last changed. marker: its NAME.done, "" for none;
    marked: there is one that has not been obeyed yet. trouble: why it cannot be looked at now; refusal: why it can
    never be a sample.
    """

    path: Path
    row: Row
    is_folder: bool = False
    files: tuple[Path, ...] = ()
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
    """The entry cannot be looked at now."""


def is_partial(name: str) -> bool:
    """Whether the name says that the file still arrives, or is a marker."""
    return name.lower().endswith(PARTIAL)


def final_name(name: str) -> str:
    """The name that a partial file will have; a marker's own name, for it becomes no file."""
    return name if name.lower().endswith(MARKER) else name[: name.rindex(".")]


def examine(path: Path, row: Row, now: float) -> Entry | None:
    """The entry as it is now; None if it has vanished meanwhile. Changes the row."""
    try:
        found = _file_or_folder(path, row)
    except FileNotFoundError:
        if not os.path.lexists(path):
            return None
        is_link = path.is_symlink()
        return _troubled(
            path, row, "a link that leads nowhere" if is_link else "changes while it is looked at"
        )
    except Trouble as trouble:
        return _troubled(path, row, str(trouble))
    except (OSError, ValueError) as error:
        return _troubled(path, row, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    if found.is_handled:
        return found
    return replace(found, age=_age(found, now), marker=_marker(path))


def _troubled(path: Path, row: Row, trouble: str) -> Entry:
    """What is a sample already is left alone: its files are the runs' business."""
    return Entry(path, row) if row.handled else Entry(path, row, trouble=trouble)


def _age(found: Entry, now: float) -> float:
    """Seconds since the entry was first seen like this; 0 after a change, and where the clock began anew."""
    row = found.row
    if row.since is None or now < row.since:
        row.since = now
    return now - row.since


def _file_or_folder(path: Path, row: Row) -> Entry:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        return _folder(path, row)
    if not stat.S_ISREG(status.st_mode):
        _update(row, f"mode {status.st_mode:o}", f"mode {status.st_mode:o}")
        return Entry(path, row, refusal="not a regular file")
    identity = f"{status.st_size} {status.st_mtime_ns}"
    _update(row, identity, identity)
    return Entry(path, row, files=(path,), others=True)


def _update(row: Row, identity: str, activity: str) -> None:
    if row.identity != identity:
        row.since, row.kind, row.said = None, "arriving", ""
    elif row.activity != activity and not row.handled:
        row.since = None
    row.identity, row.activity = identity, activity if not row.handled else row.activity


def _folder(path: Path, row: Row) -> Entry:
    """All files below the folder, hidden ones only as a sign that something still goes on."""
    files, partial, ignored, facts, noise = [], [], [], [], []
    for file, status in _walk(path):
        name = str(file.relative_to(path))
        fact = [name, status.st_size, status.st_mtime_ns] if status else [name]
        noise.append(fact)
        if any(part.startswith(".") for part in file.relative_to(path).parts) or name.lower().endswith(
            ".done"
        ):
            continue
        if is_partial(name):
            partial.append(name)
            facts.append(fact)
        elif status and stat.S_ISREG(status.st_mode) and looks_like_sequence_file(file):
            files.append(file)
            facts.append(fact)
        else:
            ignored.append(name)
    _update(row, sha256_json(facts), sha256_json(noise))
    return Entry(
        path,
        row,
        is_folder=True,
        files=tuple(sorted(files)),
        partial=tuple(partial),
        ignored=tuple(sorted([*ignored, *partial])),
        others=bool(noise),
    )


def _walk(folder: Path) -> Iterator[tuple[Path, os.stat_result | None]]:
    """Files below the folder, and links to folders, with their status. Raises Trouble, OSError."""
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
    """What tells one NAME.done from a later one; "" where there is none, or none can be beside so long a name."""
    with contextlib.suppress(OSError, ValueError):
        return str(path.with_name(path.name + MARKER).stat().st_mtime_ns)
    return ""
