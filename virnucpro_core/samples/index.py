"""Which samples hold the same data: an index from `Sample.content` to names, so that nobody reads every sample.

Only a hint: whoever finds a name asks the sample itself. Knows digests and names, no samples.
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
    """Remember that the sample `name` is of this content."""
    with disk_errors(_folder(home)):
        _note(_folder(home), content, name)


def names(home: Path, content: str) -> list[str]:
    """Names that were noted under the content, sorted; some may stand for other data by now, or for none."""
    return sorted(entry.name for entry in _place(_folder(home), content).glob("*"))


def one_at_a_time(home: Path) -> contextlib.AbstractContextManager[None]:
    """Nobody else makes the index, or looks who has a content before noting it, as long as the block lasts."""
    return locked(home / "contents.lock", busy="another process uses the index of contents", wait=True)


@contextlib.contextmanager
def publishing(home: Path) -> Iterator[Callable[[str, str], None]]:
    """Make the index: the block notes (content, name) of all samples. It is there as a whole or not at all."""
    with one_at_a_time(home):
        if exists(home):  # made while we waited
            yield lambda _content, _name: None
            return
        with publish_folder(_folder(home)) as temporary:
            yield lambda content, name: _note(temporary, content, name)


def _note(folder: Path, content: str, name: str) -> None:
    place = _place(folder, content)
    place.mkdir(parents=True, exist_ok=True)
    (place / name).touch()


def _folder(home: Path) -> Path:
    return home / "contents"


def _place(folder: Path, content: str) -> Path:
    return folder / content[:2] / content
