"""Publishes files atomically: write to a temporary name, fsync, rename, fsync of the folder. All files go this way.

So a file under its final name is always complete. A writer locks its temporary file. The operating system releases
the lock when the writer ends, even if it is killed. So any process, on any host or in any container, can delete
unlocked temporary files and never deletes one that is still being written. File modes follow the umask.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from virnucpro_core.files.disk import TEMPORARY, disk_errors
from virnucpro_core.files.locks import same_file, try_lock

# The lock of a temporary folder is a file next to it: network file systems cannot lock folders.
_LOCK = ".lock"
SYNCED_TOGETHER = 4
_NAME = re.compile(re.escape(TEMPORARY) + r"[0-9a-f]{16}(\..+)?")


def no_check() -> None:
    """Anything may be replaced."""


@contextlib.contextmanager
def publish(path: Path, check: Callable[[], None] = no_check) -> Iterator[Path]:
    """Yield an empty temporary file for the block to fill; then sync it and rename it to `path`.

    check: called just before that; if it raises, nothing is replaced.

    Write into this file; do not replace it, since a new file would not be locked. If the block raises, the temporary
    file is deleted. Raises StoreError, with the free space of the disk, on a disk error.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_file(path.parent, path.suffix) as temporary:
            yield temporary
            sync(temporary)
            check()
            temporary.replace(path)
        sync(path.parent)


@contextlib.contextmanager
def publish_together(
    folder: Path, names: Sequence[str], check: Callable[[], None] = no_check
) -> Iterator[dict[str, Path]]:
    """As `publish`, for several files of one folder: yields name -> temporary file. None appears before the block ends.

    The files are synced side by side, so the delay of the disk counts once and not for each of them.
    """
    with disk_errors(folder), contextlib.ExitStack() as held:
        folder.mkdir(parents=True, exist_ok=True)
        files = {name: held.enter_context(_temporary_file(folder, Path(name).suffix)) for name in names}
        yield files
        with ThreadPoolExecutor(SYNCED_TOGETHER) as threads:
            list(threads.map(sync, files.values()))
        check()
        for name, file in files.items():
            file.replace(folder / name)
        sync(folder)


def publish_link(path: Path, source: Path) -> None:
    """Make `path` another name of the complete file `source`, in place of any earlier file. No bytes are copied.

    Raises OSError if the file system cannot do that, or if `source` vanishes meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}{path.suffix}"
    os.link(source, temporary)
    temporary.replace(path)


def publish_bytes(path: Path, data: bytes) -> None:
    """`publish` a file that holds `data`."""
    with publish(path) as temporary:
        temporary.write_bytes(data)


def publish_json(path: Path, value: Any) -> None:
    """`publish` a value as JSON with sorted keys and one trailing newline."""
    publish_bytes(path, json_text(value).encode())


def json_text(value: Any) -> str:
    """A value as `publish_json` writes it."""
    return json.dumps(value, sort_keys=True, indent=1) + "\n"


@contextlib.contextmanager
def publish_folder(path: Path, check: Callable[[], None] = no_check) -> Iterator[Path]:
    """Yield a temporary folder. It replaces `path` when the block ends without an exception.

    check: as in `publish`.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(path.parent) as temporary:
            yield temporary
            for file in sorted(temporary.rglob("*")):
                sync(file)
            sync(temporary)
            check()
            if path.exists():
                _exchange(path, temporary)
            else:
                temporary.replace(path)
            sync(path.parent)


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, locked against `sweep` during the block and deleted when the block ends."""
    with _temporary_file(parent, _LOCK) as lock:
        temporary = lock.with_suffix("")
        temporary.mkdir()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Delete what dead writers left in `folder`: all temporary files and folders that no process has locked."""
    for left in sorted(folder.glob(f"{TEMPORARY}*")):
        if not _NAME.fullmatch(left.name) or left.is_symlink():
            continue  # not written by this project
        # It may be published or swept by another process by now, or belong to another user.
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
    """A new, empty file under a temporary name, locked during the block. Deleted at the end unless it was renamed."""
    while True:
        path = folder / f"{TEMPORARY}{secrets.token_hex(8)}{suffix}"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            if not (try_lock(handle) and same_file(path, handle)):
                continue  # another process swept it before it was locked
            yield path
            return
        finally:
            # Do not hide an error of the block. The next sweep deletes a file that stays.
            with contextlib.suppress(OSError):
                if same_file(path, handle):
                    path.unlink()
            os.close(handle)


@contextlib.contextmanager
def _unlocked(path: Path) -> Iterator[bool]:
    """Yield True if no other process holds the file's lock; the block holds it then. True also if there is no file."""
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
    """Whether the file is the lock of a temporary folder that still exists."""
    return file.suffix == _LOCK and file.with_suffix("").is_dir()


def _exchange(path: Path, temporary: Path) -> None:
    """Replace the folder `path` by the folder `temporary`. If that fails, the old folder is put back."""
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
            # If the old folder could not be put back, it stays in here, and rmdir fails.
            with contextlib.suppress(OSError):
                aside.rmdir()
