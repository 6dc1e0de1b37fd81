"""The only place that publishes a file: temporary name, fsync, rename, fsync of the folder.

A name that can be seen is a whole file. Temporary names carry the writer's host and process, so that anyone
can sweep what a dead writer left and nobody touches what a living one is writing.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from virnucpro_core.errors import StoreError

TEMPORARY = ".tmp-"
# Who only looks whether a lock is held (`is_locked`) holds it for far less.
LOOK_SECONDS = 0.1
_REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room on this disk")
_REMEDIES |= dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (`ulimit -n`)")
_REMEDIES |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "check the rights of this folder")
log = logging.getLogger(__name__)


def publish(path: Path, write: Callable[[Path], None]) -> None:
    """Make `path` appear whole or not at all: `write(temporary)` fills it, then it is synced and renamed.

    Raises StoreError (naming the disk's free space) when the file system refuses.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_prefix(), suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
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
    publish(path, lambda temporary: _write_bytes(temporary, data))


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


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex sha256 of canonical JSON: the fingerprint of settings and identities."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@contextlib.contextmanager
def locked(path: Path, *, busy: str, wait: bool = False, shared: bool = False) -> Iterator[None]:
    """Hold an OS lock on `path`, alone or with others who share it; it vanishes with the process, however that dies.

    When another process holds it: says so and waits, or raises StoreError if `wait` is false.
    """
    with contextlib.ExitStack() as held:
        with disk_errors(path):
            held.enter_context(_flocked(path, busy=busy, wait=wait, shared=shared))
        yield


@contextlib.contextmanager
def _flocked(path: Path, *, busy: str, wait: bool, shared: bool) -> Iterator[None]:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not _taken(lock, kind):
                holder = os.read(lock, 100).decode(errors="replace").strip() or "holder unknown"
                if not wait:
                    raise StoreError(f"{busy} ({holder})", where=path, remedy="wait for it or stop it")
                log.warning("%s (%s): waiting for it", busy, holder)
                fcntl.flock(lock, kind)
            if not same_file(path, lock):
                continue  # it was deleted while we waited: a lock on a file without a name excludes nobody
            # For people only: on a full disk the lock holds without it, so that room can be made there.
            with contextlib.suppress(OSError):
                os.ftruncate(lock, 0)
                os.pwrite(
                    lock, b"" if shared else f"process {os.getpid()} on {socket.gethostname()}".encode(), 0
                )
            yield
            return
        finally:
            os.close(lock)


def _taken(lock: int, kind: int) -> bool:
    """Whether the lock could be had at once, or as soon as whoever only looked at it was gone."""
    deadline = time.monotonic() + LOOK_SECONDS
    while True:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock at this moment."""
    try:
        with path.open() as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def same_file(path: Path, handle: int) -> bool:
    """Whether the open file still has this name: a lock on a file without a name excludes nobody."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the file system refuses inside the block becomes a StoreError: file, reason, free space, remedy.

    `path` is named where the system names no file, or only a temporary one.
    """
    try:
        yield
    except OSError as error:
        named = str(error.filename or "")
        raise StoreError(
            f"the disk refuses: {error.strerror or error}{_free_space(path)}",
            where=path if not named or TEMPORARY in named else named,
            remedy=_REMEDIES.get(error.errno or 0, "check the disk")
            + ", then run the same command again; nothing finished is lost",
        ) from error


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


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


def _free_space(path: Path) -> str:
    for folder in path.parents:
        with contextlib.suppress(OSError):
            return f" ({shutil.disk_usage(folder).free / 1e9:.1f} GB free)"
    return ""
