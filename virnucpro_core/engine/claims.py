"""Who computes which shard: an OS lock a shard, on byte k of one file a product.

The locks are those of open file descriptions (fcntl F_OFD_*): they vanish with their process, however that dies,
survive other opens of the file in it, and hold between machines where the file system shares POSIX locks (NFSv4).
Nothing is ever written to the file.
"""

import fcntl
import logging
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

from virnucpro_core.files.disk import disk_errors

_FLOCK = "hhqqi0q"  # struct flock: type, whence, start, length, process (0 for these locks)
log = logging.getLogger(__name__)


class Claims:
    """The claims of one lane. Two objects exclude each other, also within one process. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = -1

    def __enter__(self) -> Self:
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)

    def take(self, shard: int) -> bool:
        """Claim the shard; False if another lane has it."""
        return self._set(fcntl.F_WRLCK, shard)

    def wait(self, shard: int) -> None:
        """Claim the shard, once the lane that has it is done with it or dead."""
        if not self.take(shard):
            log.info("shard %d: waiting for the lane that computes it", shard)
            with disk_errors(self.path):
                fcntl.fcntl(self._handle, fcntl.F_OFD_SETLKW, _range(fcntl.F_WRLCK, shard))

    def give(self, shard: int) -> None:
        """Let go of a claim."""
        self._set(fcntl.F_UNLCK, shard)

    def is_taken(self, shard: int) -> bool:
        """Whether another lane has claimed the shard."""
        with disk_errors(self.path):
            found = fcntl.fcntl(self._handle, fcntl.F_OFD_GETLK, _range(fcntl.F_WRLCK, shard))
        return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)

    def _set(self, kind: int, shard: int) -> bool:
        with disk_errors(self.path):
            try:
                fcntl.fcntl(self._handle, fcntl.F_OFD_SETLK, _range(kind, shard))
            except BlockingIOError:
                return False
        return True


def _range(kind: int, shard: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, shard, 1, 0)
