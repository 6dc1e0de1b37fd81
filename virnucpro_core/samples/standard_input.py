"""Keep what comes through standard input or a pipe in the home folder, so that it can be read again.

A pipe can be read once, but a resume and the checks read a sample's files again. The bytes are kept under their sha256:
the same bytes are the same file, whenever they come. A process that has kept a file holds a shared lock on it, until it
says by `let_go` that a sample has the file or none will: meanwhile no other process deletes it.
"""

import hashlib
import os
import stat
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO

from virnucpro_core.errors import InputError
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.files.locks import locked, try_lock
from virnucpro_core.files.publish import sweep, sync, temporary_folder

STANDARD_INPUT = Path("-")
KEPT = "standard_input"
_BLOCK = 1 << 20
# What this process has kept and not let go: the open files, which hold the locks.
_HELD: dict[Path, int] = {}


def is_stream(path: Path) -> bool:
    """Whether the path is `-` or a pipe."""
    if path == STANDARD_INPUT:
        return True
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return False


def keep_stream(home: Path, path: Path, stdin: BinaryIO) -> Path:
    """Copy a stream to the home folder and return the file. `stdin` is read if `path` is `-`.

    Raises InputError if nothing came, StoreError if the disk refuses it.
    """
    folder = home / KEPT
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        digest, size = hashlib.sha256(), 0
        with temporary_folder(folder) as place:
            copy = place / "stream"
            with copy.open("wb") as out:
                source = stdin if path == STANDARD_INPUT else path.open("rb")
                while block := source.read(_BLOCK):
                    digest.update(block)
                    size += out.write(block)
                if source is not stdin:
                    source.close()
                out.flush()
                os.fsync(out.fileno())
            if not size:
                raise InputError("nothing came", path=path, remedy="check the command before the pipe")
            kept = folder / digest.hexdigest()
            with _one_at_a_time(home):
                if (
                    not kept.exists()
                ):  # else its time says when it came first: a sample that knows it is unchanged
                    copy.replace(kept)
                    sync(folder)
                _hold(kept.resolve())
    return kept


def let_go(home: Path) -> list[Path]:
    """Give up the locks on the files that this process has kept in the home folder, and return these files."""
    mine = kept_files(home, _HELD)
    for file in mine:
        os.close(_HELD.pop(file))
    return mine


def delete_kept(home: Path, files: Iterable[Path]) -> None:
    """Delete files that `keep_stream` made, but those that another process has just kept. Raises StoreError."""
    with _one_at_a_time(home), disk_errors(home / KEPT):
        for file in files:
            if file in _HELD:
                os.close(_HELD.pop(file))
            with suppress(FileNotFoundError), file.open("rb") as stream:
                if try_lock(stream.fileno()):
                    file.unlink()


def _one_at_a_time(home: Path) -> AbstractContextManager[None]:
    return locked(
        home / "locks" / "streams.lock", busy="another process keeps or deletes a stream", wait=True
    )


def _hold(kept: Path) -> None:
    if kept not in _HELD:
        _HELD[kept] = os.open(kept, os.O_RDONLY | os.O_CLOEXEC)
        try_lock(_HELD[kept], shared=True)


def kept_files(home: Path, paths: Iterable[Path]) -> list[Path]:
    """Those of the paths that `keep_stream` made."""
    return [path for path in paths if path.parent == (home / KEPT).resolve()]
