"""Computes the sha256 of files and of JSON values. A process reads an unchanged file only once (`sha256_once`)."""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

# What identifies the bytes of a file as long as nobody sets times back: device, inode, size, and both times in ns.
_Mark = tuple[int, int, int, int, int]
# Changes within one tick of the file system can leave the same times. Linux: 10 ms at most.
_TICK_NS = 20_000_000
_known: dict[str, tuple[_Mark, str]] = {}


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_once(path: Path) -> str:
    """`sha256_file`, read only once in this process as long as the file stays the same file.

    The file is read again if its inode, size, modification time or change time differ, or if it is so new that it
    could change without another time. A new process reads every file at its first use. Raises OSError.
    """
    mark = _mark(path)
    known = _known.get(str(path))
    if known is not None and known[0] == mark:
        return known[1]
    sha256 = sha256_file(path)
    if _mark(path) == mark and time.time_ns() - mark[-1] > _TICK_NS:
        _known[str(path)] = (mark, sha256)
    return sha256


def remember_sha256(path: Path, sha256: str) -> None:
    """Note the digest of a file that this process has just written, so that `sha256_once` does not read it."""
    _known[str(path)] = (_mark(path), sha256)


def sha256_json(value: Any) -> str:
    """Hex sha256 of a value as canonical JSON (sorted keys, no spaces): identifies settings and inputs."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _mark(path: Path) -> _Mark:
    found = os.stat(path)  # noqa: PTH116 - called for every shard
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
