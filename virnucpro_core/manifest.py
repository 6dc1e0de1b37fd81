"""`manifest.json` of a model folder: what the files are, where they came from, and the size and sha256 of each.

Knows files and digests; knows nothing of weights. A model is held against its manifest each time that a process is
about to compute with it: reading it to the device takes longer, and a remembered verdict would have to trust the
time stamps of files, which a failing disk does not change.
"""

import functools
import json
import math
from pathlib import Path
from typing import Any

from virnucpro_core.durable import sha256_file
from virnucpro_core.errors import WeightsError

MANIFEST = "manifest.json"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The folder's manifest; WeightsError when it is missing or lists no files."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files = {str(name): (int(f["bytes"]), str(f["sha256"])) for name, f in manifest["files"].items()}
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
        raise WeightsError("manifest.json names no files, or others' files", where=folder)
    return dict(manifest)


def verify(folder: Path, *, up_to: float = math.inf) -> dict[str, Any]:
    """Hold every file against the manifest: its size, and its sha256 if it has at most `up_to` bytes; the manifest.

    Raises WeightsError naming the first file that is missing, cannot be read or differs.
    """
    manifest = read_manifest(folder)
    for name, entry in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise WeightsError(f"{name} is missing", where=folder, remedy="fetch or import the model again")
        try:
            size = file.stat().st_size
            sound = size == entry["bytes"] and (size > up_to or sha256_file(file) == entry["sha256"])
        except OSError as error:
            raise WeightsError(
                f"cannot be read: {error.strerror}", where=file, remedy="check the disk"
            ) from error
        if not sound:
            raise WeightsError(
                f"{name} is damaged: {size:,} bytes, {entry['bytes']:,} with sha256 {entry['sha256'][:12]}..."
                " are expected",
                where=folder,
                remedy="fetch or import the model again",
            )
    return manifest


def verify_once(folder: Path) -> None:
    """`verify` of every byte, the first time that this process meets these files. Raises WeightsError."""
    _verify_once(folder, marks(folder))


def marks(folder: Path) -> tuple[object, ...]:
    """What tells the folder's files from others that may take their place: inode, size and time of change."""
    stats = sorted((f.name, f.stat()) for f in folder.iterdir() if f.is_file())
    return tuple((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in stats)


@functools.cache
def _verify_once(folder: Path, files: tuple[object, ...]) -> None:  # noqa: ARG001 - tells these files from later ones
    verify(folder)
