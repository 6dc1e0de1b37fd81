"""The only place that publishes a file: temporary name, fsync, rename, fsync of the folder.

A name that can be seen is a whole file. Its writer holds an OS lock on the temporary file as long as it writes, which
vanishes with the writer, however that dies. So anyone can sweep what nobody locks, whatever the writer's host or
container, and nobody touches what a living one is writing. Modes are those that the umask leaves.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from virnucpro_core.files.disk import TEMPORARY, disk_errors
from virnucpro_core.files.locks import same_file, try_lock

# A temporary folder's lock is a file beside it: network file systems lock no folders.
_LOCK = ".lock"
_NAME = re.compile(re.escape(TEMPORARY) + r"[0-9a-f]{16}(\..+)?")


@contextlib.contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file for the block to fill; when the block ends it is synced and renamed to `path`.

    Fill the file that is there: another one under its name would not be locked. Where the block raises nothing of it
    stays. Raises StoreError (naming the disk's free space) when the file system refuses.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_file(path.parent, path.suffix) as temporary:
            yield temporary
            sync(temporary)
            temporary.replace(path)
        sync(path.parent)


def publish_bytes(path: Path, data: bytes) -> None:
    """`publish` of ready bytes."""
    with publish(path) as temporary:
        temporary.write_bytes(data)


def publish_json(path: Path, value: Any) -> None:
    """`publish` of canonical JSON: sorted keys, one trailing newline."""
    publish_bytes(path, (json.dumps(value, sort_keys=True, indent=1) + "\n").encode())


@contextlib.contextmanager
def publish_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `path` when the block ends without an exception."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(path.parent) as temporary:
            yield temporary
            for file in sorted(temporary.rglob("*")):
                sync(file)
            sync(temporary)
            if path.exists():
                _exchange(path, temporary)
            else:
                temporary.replace(path)
            sync(path.parent)


@contextlib.contextmanager
def passing_file(folder: Path, data: bytes) -> Iterator[Path]:
    """A file that lasts as long as the block; where its process is killed, until the next one is made here.

    It is the caller's to lock. Raises StoreError.
    """
    with contextlib.ExitStack() as held:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
            file = held.enter_context(temporary_folder(folder)) / "file"
            file.write_bytes(data)
        yield file


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A folder below `parent` that no sweep takes while the block lasts; what is left of it then is deleted."""
    with _temporary_file(parent, _LOCK) as lock:
        temporary = lock.with_suffix("")
        temporary.mkdir()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what writers that are dead by now left in `folder`: all temporary names that nobody locks."""
    for left in sorted(folder.glob(f"{TEMPORARY}*")):
        if not _NAME.fullmatch(left.name) or left.is_symlink():
            continue  # another program's
        # Published, or swept by others, meanwhile; or another user's.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if left.is_dir():
                with _unlocked(left.with_name(left.name + _LOCK)) as free:
                    if free:
                        shutil.rmtree(left)
            elif left.is_file() and not _is_of_a_folder(left):
                with _unlocked(left) as free:
                    if free:
                        left.unlink()


def sync(path: Path) -> None:
    """fsync of a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _temporary_file(folder: Path, suffix: str = "") -> Iterator[Path]:
    """A new, empty file under a temporary name, locked while the block lasts; deleted then if it still has the name."""
    while True:
        path = folder / f"{TEMPORARY}{secrets.token_hex(8)}{suffix}"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            if not (try_lock(handle) and same_file(path, handle)):
                continue  # swept before it was locked
            yield path
            return
        finally:
            # The first error counts; the next sweep takes what is left.
            with contextlib.suppress(OSError):
                if same_file(path, handle):
                    path.unlink()
            os.close(handle)


@contextlib.contextmanager
def _unlocked(path: Path) -> Iterator[bool]:
    """Whether nobody holds the file's lock, which is held by the block then. There is none where there is no file."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        yield try_lock(handle) and same_file(path, handle)
    finally:
        os.close(handle)


def _is_of_a_folder(file: Path) -> bool:
    """Whether it is the lock of a temporary folder that is still there."""
    return file.suffix == _LOCK and file.with_suffix("").is_dir()


def _exchange(path: Path, temporary: Path) -> None:
    """Put the folder `temporary` in the place of `path`, which comes back if that fails."""
    with _temporary_file(path.parent, _LOCK) as lock:
        aside = lock.with_suffix("")
        aside.mkdir()
        old = aside / path.name
        try:
            path.replace(old)
            try:
                temporary.replace(path)
            except BaseException:
                old.replace(path)
                raise
            shutil.rmtree(old)
        finally:
            # Not empty if the old folder could not come back: it is kept there.
            with contextlib.suppress(OSError):
                aside.rmdir()
