"""The only place that publishes a file: temporary name, fsync, rename, fsync of the folder.

A name that can be seen is a whole file. Temporary names carry the writer's host and process, so that anyone
can sweep what a dead writer left and nobody touches what a living one is writing.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from virnucpro_core.errors import StoreError

TEMPORARY = ".tmp-"
log = logging.getLogger(__name__)


def publish(path: Path, write: Callable[[Path], None]) -> None:
    """Make `path` appear whole or not at all: `write(temporary)` fills it, then it is synced and renamed.

    Raises StoreError (naming the disk's free space) when the file system refuses.
    """
    with _named_disk(path):
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
    with _named_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(), dir=path.parent))
        try:
            yield temporary
            for file in sorted(temporary.rglob("*")):
                sync(file)
            temporary.chmod(0o755)
            sync(temporary)
            if path.exists():
                old = Path(tempfile.mkdtemp(prefix=_prefix(), dir=path.parent))
                path.replace(old / path.name)
                temporary.replace(path)
                shutil.rmtree(old)
            else:
                temporary.replace(path)
            sync(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


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
def locked(path: Path, *, busy: str, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive OS lock on `path`; it vanishes with the process, however that dies.

    When another process holds it: says so and waits, or raises StoreError if `wait` is false.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                holder = stream.read().strip() or "holder unknown"
                if not wait:
                    raise StoreError(
                        f"{busy} ({holder})", where=path, remedy="wait for it or stop it"
                    ) from None
                log.warning("%s (%s): waiting for it", busy, holder)
                fcntl.flock(stream, fcntl.LOCK_EX)
            if not _same_file(path, stream.fileno()):
                continue  # it was deleted while we waited: a lock on a file without a name excludes nobody
            stream.truncate(0)
            stream.write(f"process {os.getpid()}")
            stream.flush()
            yield
            return


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


def _same_file(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


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


@contextlib.contextmanager
def _named_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = next(p for p in (path.parent, *path.parent.parents) if p.exists())
        free = shutil.disk_usage(folder).free
        raise StoreError(
            f"cannot write: {error.strerror or error} ({free / 1e9:.1f} GB free)",
            where=path,
            remedy="make room or mend the disk, then run the same command again; nothing finished is lost",
        ) from error
