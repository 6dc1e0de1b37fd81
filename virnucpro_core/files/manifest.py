"""Writes, reads and verifies `manifest.json` of a model folder: the size, sha256 and source of each file.

Each process verifies a model before it computes with it. The result is not stored: a stored result would rely on
file times, and a failing disk changes bytes without changing times. A sealed manifest also lists the sha256 of each
block of a large file, so that several cores can verify it together: one core needs longer to hash 3B weights than to
load them. Knows files and digests; knows nothing of weights.
"""

import functools
import hashlib
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from virnucpro_core.errors import WeightsError
from virnucpro_core.files.digests import sha256_file, sha256_json
from virnucpro_core.files.foreign_json import parse_json, whole_number
from virnucpro_core.files.publish import publish_json

MANIFEST = "manifest.json"
BLOCK_BYTES = 64 << 20
READ_BYTES = 1 << 20
THREADS = 8


def write_manifest(folder: Path, files: Iterable[Path], facts: dict[str, Any]) -> None:
    """Publish `manifest.json`: the facts, size and sha256 of each file, sha256 of each block of large files, a seal."""
    entries: dict[str, dict[str, Any]] = {}
    for file in sorted(files):
        entries[file.name] = {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
        if file.stat().st_size > BLOCK_BYTES:
            entries[file.name] |= {
                "block_bytes": BLOCK_BYTES,
                "blocks": _block_digests(file, BLOCK_BYTES),
            }
    manifest = {"format": 1, "files": entries} | facts
    publish_json(folder / MANIFEST, manifest | {"seal": sha256_json(manifest)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The folder's manifest. Raises WeightsError if it is missing, lists no files or does not match its seal."""
    try:
        manifest = parse_json((folder / MANIFEST).read_bytes())
        if "seal" in manifest and manifest["seal"] != sha256_json(
            {key: value for key, value in manifest.items() if key != "seal"}
        ):
            raise ValueError("it does not match its seal")
        files = {
            str(name): (whole_number(f["bytes"]), str(f["sha256"])) for name, f in manifest["files"].items()
        }
    except FileNotFoundError as error:
        raise WeightsError("no manifest.json", where=folder, remedy="fetch or import the model") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            "damaged manifest.json", where=folder, remedy="fetch or import it again"
        ) from error
    except OSError as error:
        raise WeightsError(
            f"manifest.json: {error.strerror}", where=folder, remedy="check the disk"
        ) from error
    if any(Path(name).name != name for name in files) or not files:
        raise WeightsError(
            "manifest.json lists no files, or files outside of this folder",
            where=folder,
            remedy="fetch or import the model again",
        )
    return dict(manifest)


def verify(folder: Path, *, up_to: float = math.inf) -> dict[str, Any]:
    """Compare every file with the manifest, and return the manifest.

    Sizes are always compared, the sha256 only of files of at most `up_to` bytes. Raises WeightsError that names the
    first file that is missing, cannot be read or differs.
    """
    manifest = read_manifest(folder)
    for name, entry in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise WeightsError(f"{name} is missing", where=folder, remedy="fetch or import the model again")
        try:
            size = file.stat().st_size
            is_intact = size == entry["bytes"] and (
                size > up_to or _has_digest(file, entry, sealed="seal" in manifest)
            )
        except OSError as error:
            raise WeightsError(
                f"cannot be read: {error.strerror}", where=file, remedy="check the disk"
            ) from error
        if not is_intact:
            raise WeightsError(
                f"{name} is damaged: it has {size:,} bytes; {entry['bytes']:,} bytes with sha256 "
                f"{entry['sha256'][:12]}... are expected",
                where=folder,
                remedy="fetch or import the model again",
            )
    return manifest


def _has_digest(file: Path, entry: dict[str, Any], *, sealed: bool) -> bool:
    """Whether the file has the digest of the manifest. Block digests are used only if the manifest is sealed."""
    if sealed and "blocks" in entry:
        return bool(_block_digests(file, int(entry["block_bytes"])) == entry["blocks"])
    return bool(sha256_file(file) == entry["sha256"])


def _block_digests(file: Path, block_bytes: int) -> list[str]:
    """Hex sha256 of each block of the file."""

    def digest(start: int) -> str:
        found, left = hashlib.sha256(), block_bytes
        with file.open("rb") as stream:
            stream.seek(start)
            while left and (read := stream.read(min(READ_BYTES, left))):
                found.update(read)
                left -= len(read)
        return found.hexdigest()

    with ThreadPoolExecutor(THREADS, thread_name_prefix="digest-weights") as threads:
        return list(threads.map(digest, range(0, file.stat().st_size, block_bytes)))


def verify_once(folder: Path) -> None:
    """`verify` every byte, but only once in this process for the same files. Raises WeightsError."""
    _verify_once(folder, marks(folder))


def marks(folder: Path) -> tuple[object, ...]:
    """Name, inode, size and modification time of each file: they change if a file is replaced."""
    stats = sorted((f.name, f.stat()) for f in folder.iterdir() if f.is_file())
    return tuple((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in stats)


@functools.cache
def _verify_once(folder: Path, files: tuple[object, ...]) -> None:  # noqa: ARG001 - part of the cache key
    verify(folder)
