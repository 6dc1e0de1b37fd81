"""The only place that publishes a file: temporary name, fsync, rename, fsync of the folder.

A name that can be seen is a whole file. Temporary names carry the writer's host and process, so that anyone
can sweep what a dead writer left and nobody touches what a living one is writing.
"""

import contextlib
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from virnucpro_core.files.disk import TEMPORARY, disk_errors

log = logging.getLogger(__name__)


@contextlib.contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file for the block to fill; when the block ends it is synced and renamed to `path`.

    Where the block raises there is no trace of it.
    Raises StoreError (naming the disk's free space) when the file system refuses.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_prefix(), suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error counts; the next sweep takes what is left
                temporary.unlink(missing_ok=True)
            raise


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
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(), dir=path.parent))
        try:
            yield temporary
            for file in sorted(temporary.rglob("*")):
                sync(file)
            temporary.chmod(0o755)
            sync(temporary)
            if path.exists():
                _exchange(path, temporary)
            else:
                temporary.replace(path)
            sync(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextlib.contextmanager
def passing_file(folder: Path, data: bytes) -> Iterator[Path]:
    """A file that lasts as long as the block; where its process is killed, until the next one is made here.

    Raises StoreError.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        handle, name = tempfile.mkstemp(prefix=_prefix(), dir=folder)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what writers on this host that are dead by now left in `folder`."""
    host = f"{TEMPORARY}{socket.gethostname()}-"
    for left in folder.glob(host + "*"):
        process = left.name.removeprefix(host).split("-", 1)[0]
        if process.isdecimal() and not _alive(int(process)):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """fsync of a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _prefix() -> str:
    return f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _exchange(path: Path, temporary: Path) -> None:
    """Put the folder `temporary` in the place of `path`, which comes back if that fails."""
    aside = Path(tempfile.mkdtemp(prefix=_prefix(), dir=path.parent))
    old = aside / path.name
    try:
        path.replace(old)
        try:
            temporary.replace(path)
        except BaseException:
            old.replace(path)
            raise
    except BaseException:
        with contextlib.suppress(
            OSError
        ):  # not empty if the old folder could not come back: it is kept there
            aside.rmdir()
        raise
    shutil.rmtree(aside)
