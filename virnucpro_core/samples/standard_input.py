"""Keep what comes through standard input or a pipe in the home folder, so that it can be read again.

A pipe can be read once, but a resume and the checks read a sample's files again. The bytes are kept under their sha256:
the same bytes are the same file, whenever they come.
"""

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from virnucpro_core.errors import InputError
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.files.publish import sweep, sync, temporary_folder

STANDARD_INPUT = Path("-")
KEPT = "standard_input"
_BLOCK = 1 << 20


def is_stream(path: Path) -> bool:
    """Whether the path is `-` or a pipe."""
    if path == STANDARD_INPUT:
        return True
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return False


def keep_stream(home: Path, path: Path, stdin: BinaryIO) -> Path:
    """Copy a stream to the home folder and return the file. `stdin` is read if `path` is `-`.

    Raises InputError if nothing came, StoreError if the disk refuses it.
    """
    folder = home / KEPT
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        digest, size = hashlib.sha256(), 0
        with temporary_folder(folder) as place:
            copy = place / "stream"
            with copy.open("wb") as out:
                source = stdin if path == STANDARD_INPUT else path.open("rb")
                while block := source.read(_BLOCK):
                    digest.update(block)
                    size += out.write(block)
                if source is not stdin:
                    source.close()
                out.flush()
                os.fsync(out.fileno())
            if not size:
                raise InputError("nothing came", path=path, remedy="check the command before the pipe")
            kept = folder / digest.hexdigest()
            if kept.exists():  # its time says when it came first: a sample that knows it stays unchanged
                return kept
            copy.replace(kept)
            sync(folder)
    return kept


def kept_files(home: Path, paths: Iterable[Path]) -> list[Path]:
    """Those of the paths that `keep_stream` made."""
    return [path for path in paths if path.parent == (home / KEPT).resolve()]
