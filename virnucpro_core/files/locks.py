"""OS locks on files: they vanish with the process that holds them, however it dies."""

import contextlib
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from virnucpro_core.errors import StoreError
from virnucpro_core.files.disk import disk_errors

# Who only looks whether a lock is held (`is_locked`) holds it for far less.
LOOK_SECONDS = 0.1
log = logging.getLogger(__name__)


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
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
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
