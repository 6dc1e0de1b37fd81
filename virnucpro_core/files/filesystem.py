"""Tests a folder's file system: its type, and whether locks, atomic renames and fsync work there.

`examine_storage` tests with two processes on this machine. To test locks between two machines, run `hold` on one
machine and `probe` on the other.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from virnucpro_core.errors import StoreError, VirnucproError
from virnucpro_core.files.locks import is_locked, locked
from virnucpro_core.files.publish import publish_bytes, publish_json

LOCK, BEACON = "storage.lock", "storage.json"
UNKNOWN = "unknown"
# File systems that several machines can mount at once, or of which nobody knows.
SHARED = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "ceph",
    "beegfs",
    "gpfs",
    "glusterfs",
    "9p",
    "virtiofs",
    "fuse.",
    UNKNOWN,
)
# Those that come over a network for certain. (A shared folder of a virtual machine, 9p or virtiofs, need not.)
NETWORK = (
    *("nfs", "cifs", "smb", "lustre", "ceph", "beegfs", "gpfs", "glusterfs", "afs", "panfs", "wekafs"),
    *("fuse.ceph", "fuse.gluster", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.juicefs"),
)
# Mount options that make locks invisible to other machines, or turn locks off.
LOCAL_LOCKS = ("nolock", "local_lock=all", "local_lock=flock", "local_lock=posix", "localflock", "nobrl")


@dataclass(frozen=True, slots=True)
class FileSystem:
    """The mounted file system of a path, as the kernel lists it."""

    kind: str
    mount: Path
    options: tuple[str, ...]

    @property
    def shared(self) -> bool:
        """Whether several machines can mount this type of file system. They need not have done so."""
        return self.kind.startswith(SHARED)

    @property
    def network(self) -> bool:
        """Whether this type of file system comes over a network."""
        return self.kind.startswith(NETWORK)

    @property
    def local_locks(self) -> tuple[str, ...]:
        """Mount options that make locks invisible to other machines."""
        return tuple(option for option in self.options if option in LOCAL_LOCKS)


def file_system(path: Path) -> FileSystem:
    """The file system of an existing path: the longest mount point above it.

    In a chroot the kernel need not list the one that the root lies on: its kind is then `UNKNOWN`.
    """
    real = path.resolve()
    mounts = [m for m in psutil.disk_partitions(all=True) if real.is_relative_to(m.mountpoint)]
    found = max(mounts, key=lambda m: len(m.mountpoint), default=None)
    if found is None:
        return FileSystem(UNKNOWN, Path(real.anchor), ())
    return FileSystem(found.fstype, Path(found.mountpoint), tuple(found.opts.split(",")))


def examine_storage(folder: Path) -> None:
    """Test locks between two processes, atomic replacement and fsync in `folder`. Raises StoreError if one fails."""
    lock, beacon = folder / LOCK, folder / BEACON
    for text in (b"one", b"two"):
        publish_bytes(beacon, text)
        if beacon.read_bytes() != text:
            raise StoreError("a renamed file does not show its new content", where=beacon, remedy=_REMEDY)
    beacon.unlink()
    with locked(lock, busy="another process tests the storage", wait=True):
        if not _seen_by_another_process(lock):
            raise StoreError("two processes can hold the same lock", where=lock, remedy=_REMEDY)
    if _seen_by_another_process(lock):
        raise StoreError("a lock stays locked after its holder releases it", where=lock, remedy=_REMEDY)


def hold(folder: Path, seconds: float, on_held: Callable[[str], None]) -> None:
    """Hold the storage lock for `seconds`, then release it. A published file tells other machines about it."""
    with locked(folder / LOCK, busy="another process tests the storage"):
        publish_json(folder / BEACON, {"host": socket.gethostname()})
        on_held(socket.gethostname())
        time.sleep(seconds)
        (folder / BEACON).unlink()


def probe(folder: Path) -> str:
    """The host that holds the storage lock. Raises StoreError if no host holds it, or if this process could take it."""
    try:
        host = str(json.loads((folder / BEACON).read_bytes())["host"])
    except FileNotFoundError:
        raise StoreError(
            "no process holds the storage lock",
            where=folder / LOCK,
            remedy="start `virnucpro storage hold` on another machine; if it runs already, the two folders differ",
        ) from None
    if not is_locked(folder / LOCK):
        raise StoreError(
            f"{host} holds the lock, but it is free on this machine", where=folder / LOCK, remedy=_REMEDY
        )
    return host


_REMEDY = "put VIRNUCPRO_HOME on storage with working locks: docs/clusters.md lists it"


def _seen_by_another_process(lock: Path) -> bool:
    try:
        words = [sys.executable, "-P", "-m", __name__, str(lock)]
        code = subprocess.run(words, check=False, timeout=60).returncode
    except subprocess.TimeoutExpired as error:
        raise StoreError("a lock request took over a minute", where=lock, remedy=_REMEDY) from error
    if code not in (0, 1):
        raise VirnucproError(f"the second process ended with code {code}", where=lock)
    return code == 1


if __name__ == "__main__":
    sys.exit(int(is_locked(Path(sys.argv[1]))))
