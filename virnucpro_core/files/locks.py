"""Locks for processes: `locked` locks a file, `Claims` locks single bytes of a file, one for each shard.

The operating system releases these locks when the process ends, even if it is killed. They work between machines if
the file system shares its locks (NFSv4). All locks of the project come from here. A locked file names its holder.
"""

import contextlib
import fcntl
import logging
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from virnucpro_core.errors import StoreError
from virnucpro_core.files.disk import disk_errors

# `is_locked` holds the lock itself for a moment, far shorter than this.
_LOOK_SECONDS = 0.1
_MODE = 0o666  # less the umask
log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(path: Path, *, busy: str, wait: bool = False, shared: bool = False) -> Iterator[None]:
    """Hold the lock on `path` during the block: exclusive, or shared with other processes. Creates the file if missing.

    If another process holds the lock: logs `busy` with the holder and waits, or raises StoreError if `wait` is false.
    """
    with contextlib.ExitStack() as held:
        with disk_errors(path):
            held.enter_context(_flocked(path, busy=busy, wait=wait, shared=shared))
        yield


@contextlib.contextmanager
def _flocked(path: Path, *, busy: str, wait: bool, shared: bool) -> Iterator[None]:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            if not _lock_soon(handle, shared=shared):
                holder = os.read(handle, 100).decode(errors="replace").strip() or "holder unknown"
                if not wait:
                    raise StoreError(f"{busy} ({holder})", where=path, remedy="wait for it or stop it")
                log.warning("%s (%s): waiting for it", busy, holder)
                fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            if not same_file(path, handle):
                continue  # deleted while we waited: others would lock a new file of this name
            # The name of the holder is only for people. On a full disk the lock works without it.
            with contextlib.suppress(OSError):
                os.ftruncate(handle, 0)
                holder = "" if shared else f"process {os.getpid()} on {socket.gethostname()}"
                os.pwrite(handle, holder.encode(), 0)
            yield
            return
        finally:
            os.close(handle)


def _lock_soon(handle: int, *, shared: bool) -> bool:
    """Try to take the lock for _LOOK_SECONDS, which is longer than `is_locked` holds it. True if taken."""
    deadline = time.monotonic() + _LOOK_SECONDS
    while not try_lock(handle, shared=shared):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def try_lock(handle: int, *, shared: bool = False) -> bool:
    """Lock an open file without waiting, until it is closed. False if another open file holds the lock."""
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock at this moment."""
    try:
        with path.open() as stream:
            return not try_lock(stream.fileno(), shared=True)
    except FileNotFoundError:
        return False


def same_file(path: Path, handle: int) -> bool:
    """Whether `path` still names the open file. If not, another process can lock a new file at `path`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


class Claims:
    """Claims on shards: a lane locks byte k of the file before it computes shard k. Use as a context manager.

    Two objects exclude each other, also within one process: the locks belong to the open file description (fcntl
    F_OFD_*), so closing another handle of the file does not release them. Nothing is written to the file. Every
    method raises StoreError on a disk error.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = -1

    def __enter__(self) -> Self:
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)

    def take(self, shard: int) -> bool:
        """Claim the shard. False if another lane has claimed it."""
        return self._set(fcntl.F_WRLCK, shard)

    def wait(self, shard: int) -> None:
        """Claim the shard; first wait until the lane that has claimed it releases it or dies."""
        if not self.take(shard):
            log.info("shard %d: waiting for the lane that computes it", shard)
            with disk_errors(self.path):
                fcntl.fcntl(self._handle, fcntl.F_OFD_SETLKW, _byte(fcntl.F_WRLCK, shard))

    def release(self, shard: int) -> None:
        """Release the claim."""
        self._set(fcntl.F_UNLCK, shard)

    def is_taken(self, shard: int) -> bool:
        """Whether another lane has claimed the shard."""
        with disk_errors(self.path):
            found = fcntl.fcntl(self._handle, fcntl.F_OFD_GETLK, _byte(fcntl.F_WRLCK, shard))
        return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)

    def _set(self, kind: int, shard: int) -> bool:
        with disk_errors(self.path):
            try:
                fcntl.fcntl(self._handle, fcntl.F_OFD_SETLK, _byte(kind, shard))
            except BlockingIOError:
                return False
        return True


_FLOCK = "hhqqi0q"  # struct flock: type, whence, start, length, process (0 for these locks)


def _byte(kind: int, place: int) -> bytes:
    """A `struct flock` that locks one byte of a file."""
    return struct.pack(_FLOCK, kind, os.SEEK_SET, place, 1, 0)
