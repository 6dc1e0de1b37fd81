"""Indexes that find samples without reading every sample: by `Sample.content`, and the variants of a sample.

An index is only a hint: entries may be outdated, so callers check the sample itself.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from virnucpro_core.files.disk import disk_errors
from virnucpro_core.files.locks import locked
from virnucpro_core.files.publish import publish_folder


def exists(home: Path) -> bool:
    """Whether there is an index."""
    return _folder(home).exists()


def note(home: Path, content: str, name: str) -> None:
    """Record that the sample `name` has this content."""
    with disk_errors(_folder(home)):
        _note(_folder(home), content, name)


def note_variant(home: Path, name: str, key: str) -> None:
    """Record that `key` is a variant of the sample `name`."""
    place = home / "variants" / name
    with disk_errors(place):
        _add(place, key)


def forget(home: Path, content: str, name: str) -> None:
    """Take back `note`; content may be ""."""
    _remove(_place(_folder(home), content), name if content else "")


def forget_variant(home: Path, name: str, key: str) -> None:
    """Take back `note_variant`; name may be ""."""
    _remove(home / "variants" / name, key if name else "")


def variants(home: Path, name: str) -> list[str]:
    """Keys that were recorded as variants of the sample, sorted. Some may be outdated."""
    return sorted(entry.name for entry in (home / "variants" / name).glob("*"))


def names(home: Path, content: str) -> list[str]:
    """Names that were recorded for the content, sorted. Some may be outdated: changed or removed samples."""
    return sorted(entry.name for entry in _place(_folder(home), content).glob("*"))


def one_at_a_time(home: Path) -> contextlib.AbstractContextManager[None]:
    """Lock on the index: held while it is made, and from the search for a content until that content is recorded."""
    return locked(home / "contents.lock", busy="another process uses the index of contents", wait=True)


@contextlib.contextmanager
def publishing(home: Path) -> Iterator[Callable[[str, str], None]]:
    """Make the index in one atomic step: the block calls the yielded function with (content, name) of every sample."""
    with one_at_a_time(home):
        if exists(home):  # made while we waited
            yield lambda _content, _name: None
            return
        with publish_folder(_folder(home)) as temporary:
            yield lambda content, name: _note(temporary, content, name)


def _note(folder: Path, content: str, name: str) -> None:
    _add(_place(folder, content), name)


def _add(place: Path, entry: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    while not (place / entry).exists():
        with contextlib.suppress(FileNotFoundError):  # `_remove` has just deleted the empty folder
            (place / entry).touch()
        place.mkdir(parents=True, exist_ok=True)


def _remove(place: Path, entry: str) -> None:
    if not entry:
        return
    with disk_errors(place):
        (place / entry).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty, or not there
        place.rmdir()


def _folder(home: Path) -> Path:
    return home / "contents"


def _place(folder: Path, content: str) -> Path:
    return folder / content[:2] / content
