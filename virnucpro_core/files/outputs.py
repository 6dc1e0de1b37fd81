"""Files and folders that a command makes for a person: refused if they are there, before the work and at its end.

with making_files([out], force=force) as check:  # another command with this --out is refused at once
    ...  # hours
    with publish(out, check) as temporary:
        ...
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from virnucpro_core.errors import UsageError
from virnucpro_core.files.locks import locked
from virnucpro_core.files.writable import check_writable


@contextmanager
def making_files(files: Sequence[Path], *, force: bool = False) -> Iterator[Callable[[], None]]:
    """Let only one command at a time make these files. Raises what `check_new_files` and `one_command` raise.

    Yields that check, to be made again just before the files appear (`publish`): the work may take hours.
    """
    yield from _making(files, partial(check_new_files, files, force=force))


@contextmanager
def making_folder(out: Path, *, force: bool = False) -> Iterator[Callable[[], None]]:
    """As `making_files`, for a folder that replaces `out` as a whole (`check_replaceable`, `publish_folder`)."""
    yield from _making([out], partial(check_replaceable, out, force=force))


def _making(places: Sequence[Path], check: Callable[[], None]) -> Iterator[Callable[[], None]]:
    check()
    with one_command(places):
        check()  # another command may have ended in between
        yield check


@contextmanager
def one_command(places: Sequence[Path]) -> Iterator[None]:
    """Keep other commands from writing these files or folders during the block, however long it takes.

    The files that are locked lie beside them, hidden, and do not stay. Raises StoreError at once if another command
    writes one of them.
    """
    with ExitStack() as held:
        for lock, place in sorted({_lock_of(place): place for place in places}.items()):
            for folder in reversed([p for p in lock.parents if not p.exists()]):
                held.callback(_remove_empty, folder)
            held.enter_context(locked(lock, busy=f"another command writes {place}"))
            held.callback(lock.unlink, missing_ok=True)
        yield


def check_replaceable(out: Path, *, force: bool = False) -> None:
    """Raises UsageError if a new folder cannot replace `out`, or must not because it has content and not `force`."""
    check_writable(out)
    if not force and out.is_dir() and any(out.iterdir()):
        raise UsageError(
            "already exists, and the whole folder would be replaced",
            where=out,
            remedy="give another --out, or --force to replace it",
        )


def check_new_files(files: Sequence[Path], *, force: bool = False) -> None:
    """Raises UsageError if one of the files cannot be written, or exists and not `force`."""
    for file in files:
        check_writable(file.parent)
        if file.is_dir():
            raise UsageError("is a folder", where=file, remedy="give the name of a file")
        if file.exists() and not force:
            raise UsageError(
                "already exists", where=file, remedy="give another --out, or --force to replace it"
            )


def _remove_empty(folder: Path) -> None:
    """Remove a folder that was made for a lock, if nothing came into it."""
    with suppress(OSError):
        folder.rmdir()


def _lock_of(place: Path) -> Path:
    """The file that stands for a file or folder: beside it, and of the same name however the path is written."""
    whole = place.resolve()
    return whole.parent / f".virnucpro-{hashlib.sha256(whole.name.encode()).hexdigest()[:16]}.lock"
