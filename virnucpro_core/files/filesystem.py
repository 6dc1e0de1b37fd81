"""What the file system below a home folder does: its kind, and whether locks, renames and fsync hold there.

`examine_storage` tries it out with two processes of this machine. What two machines see of each other takes a
process on each: `hold` on one, `probe` on the other.
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
# File systems that several machines can mount at once.
SHARED = ("nfs", "cifs", "smb", "lustre", "ceph", "beegfs", "gpfs", "glusterfs", "9p", "virtiofs", "fuse.")
# Mount options under which a lock is known to this machine only, or to nobody.
LOCAL_LOCKS = ("nolock", "local_lock=all", "local_lock=flock", "local_lock=posix", "localflock", "nobrl")


@dataclass(frozen=True, slots=True)
class FileSystem:
    """The mount that a path lies on, as the kernel lists it."""

    kind: str
    mount: Path
    options: tuple[str, ...]

    @property
    def shared(self) -> bool:
        """Whether this kind can be mounted by several machines; says nothing about whether it is."""
        return self.kind.startswith(SHARED)

    @property
    def local_locks(self) -> tuple[str, ...]:
        """Mount options that keep locks from other machines."""
        return tuple(option for option in self.options if option in LOCAL_LOCKS)


def file_system(path: Path) -> FileSystem:
    """The file system of an existing path: the longest mount point above it."""
    real = path.resolve()
    mounts = [m for m in psutil.disk_partitions(all=True) if real.is_relative_to(m.mountpoint)]
    found = max(mounts, key=lambda m: len(m.mountpoint))
    return FileSystem(found.fstype, Path(found.mountpoint), tuple(found.opts.split(",")))


def examine_storage(folder: Path) -> None:
    """Try locks between two processes, atomic replacement and fsync below `folder`. Raises StoreError."""
    lock, beacon = folder / LOCK, folder / BEACON
    for text in (b"one", b"two"):
        publish_bytes(beacon, text)
        if beacon.read_bytes() != text:
            raise StoreError("a renamed file is not seen", where=beacon, remedy=_REMEDY)
    beacon.unlink()
    with locked(lock, busy="another process tries the storage", wait=True):
        if not _seen_by_another_process(lock):
            raise StoreError("two processes can hold one lock here", where=lock, remedy=_REMEDY)
    if _seen_by_another_process(lock):
        raise StoreError("a lock stays when its holder lets go", where=lock, remedy=_REMEDY)


def hold(folder: Path, seconds: float, on_held: Callable[[str], None]) -> None:
    """Hold the storage lock, say so to other machines by a published file, and let go after `seconds`."""
    with locked(folder / LOCK, busy="another process tries the storage"):
        publish_json(folder / BEACON, {"host": socket.gethostname()})
        on_held(socket.gethostname())
        time.sleep(seconds)
        (folder / BEACON).unlink()


def probe(folder: Path) -> str:
    """The host whose lock keeps this process out. Raises StoreError if there is none or it does not."""
    try:
        host = str(json.loads((folder / BEACON).read_bytes())["host"])
    except FileNotFoundError:
        raise StoreError(
            "nobody holds the storage lock",
            where=folder / LOCK,
            remedy="start `virnucpro storage hold` on another machine; if it runs, the folder is not the same one",
        ) from None
    if not is_locked(folder / LOCK):
        raise StoreError(f"{host} holds the lock and it is free here", where=folder / LOCK, remedy=_REMEDY)
    return host


_REMEDY = "put VIRNUCPRO_HOME on storage whose locks hold: docs/clusters.md lists it"


def _seen_by_another_process(lock: Path) -> bool:
    try:
        words = [sys.executable, "-P", "-m", __name__, str(lock)]
        code = subprocess.run(words, check=False, timeout=60).returncode
    except subprocess.TimeoutExpired as error:
        raise StoreError("asking for a lock takes a minute", where=lock, remedy=_REMEDY) from error
    if code not in (0, 1):
        raise VirnucproError(f"the second process ended with code {code}", where=lock)
    return code == 1


if __name__ == "__main__":
    sys.exit(int(is_locked(Path(sys.argv[1]))))
