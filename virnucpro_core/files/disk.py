"""Estimates how much disk space a sample needs, and reports disk errors in one line.

Space is checked before hours of work start. The estimates were measured on reads and genomes; they cover the bytes
this project writes, not the overhead of the file system's blocks.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from virnucpro_core.errors import StoreError

# Prefix of the names of files that are still being written.
TEMPORARY = ".tmp-"
# Bytes of chunks and translations for each letter of the input. Measured: 1.0 to 1.3; up to 1.8 for reads of genes.
BYTES_A_LETTER = 2.5
# Letters in each byte of a compressed sequence file.
LETTERS_PACKED = 4
# Bytes of a row besides its float32 values: frame number (8), digest (16). Bytes of a shard's HDF5 header and entry.
ROW_BYTES, SHARD_BYTES = 24, 12_000
BLOCK = 4096  # of most file systems
# Bytes of a frame in all result tables: old and new tables exist together for a while, and are copied to --out.
RESULT_BYTES_A_FRAME, REPORT_BYTES = 800, 1_000_000


def reading_bytes(letters: int, *, packed: int) -> int:
    """Approximate bytes of the chunks and translations of `letters` bytes of text and `packed` compressed bytes."""
    return int(BYTES_A_LETTER * (letters + LETTERS_PACKED * packed))


def sharded_bytes(rows: int, shards: int, width: int) -> int:
    """Bytes of one product: `rows` of `width` float32 values in `shards` files. A virtual product has width 0."""
    return rows * (4 * width + ROW_BYTES) + shards * SHARD_BYTES


def embedded_bytes(letters: int, *, packed: int, chunk_size: int, width: int) -> int:
    """Least bytes of the embeddings and results of a sample whose records have not been read yet.

    Assumes one frame of `width` float32 values for each two chunks: half of a FASTQ file are qualities. The frames are
    counted when the sample has been read.
    """
    frames = _least_frames(letters, packed, chunk_size)
    return sharded_bytes(frames, 1, width) + result_bytes(letters, packed=packed, chunk_size=chunk_size)


def result_bytes(letters: int, *, packed: int, chunk_size: int) -> int:
    """Least bytes of the results of a sample whose records have not been read yet, with those that they replace."""
    return RESULT_BYTES_A_FRAME * _least_frames(letters, packed, chunk_size) + REPORT_BYTES


def _least_frames(letters: int, packed: int, chunk_size: int) -> int:
    return (letters + LETTERS_PACKED * packed) // (2 * chunk_size)


def shown_bytes(number: float) -> str:
    """The number of bytes with the unit that suits it: `812 B`, `1.2 MB`, `44.0 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.95:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def make_sure_of_room(folder: Path, needed: int, purpose: str) -> None:
    """Raises StoreError, with both numbers, if the disk of `folder` has less than `needed` bytes free."""
    with disk_errors(folder):
        free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    if free < needed:
        raise StoreError(
            f"{shown_bytes(free)} free, {shown_bytes(needed)} needed {purpose}",
            where=folder,
            remedy="make room on this disk, then run the same command again",
        )


_FULL = (errno.ENOSPC, errno.EDQUOT)
_REMEDIES = dict.fromkeys(_FULL, "make room on this disk")
_REMEDIES |= dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (`ulimit -n`)")
_REMEDIES |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "check the permissions of this folder")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Convert an OSError of the block to a StoreError that says file, reason, free space and remedy.

    The error names `path` if the system names no file, or only a temporary file.
    """
    try:
        yield
    except OSError as error:
        where = _place(error, path)
        raise StoreError(
            f"disk error: {error.strerror or error}{free_space(where)}",
            where=where,
            remedy=_REMEDIES.get(error.errno or 0, "check the disk")
            + ", then run the same command again; nothing finished is lost",
        ) from error


def _place(error: OSError, path: Path) -> Path:
    """The file that an error is about. If a copy meets a full disk, that is the new file, not the one that is read."""
    copy = error.filename2 if error.errno in _FULL else None
    named = str(copy or error.filename or "")
    return path if not named or TEMPORARY in named else Path(named)


def free_space(path: Path) -> str:
    """The free space of the disk on which `path` is or would be, in words for an error: ` (1.2 GB free)`."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            return f" ({shown_bytes(shutil.disk_usage(place).free)} free)"
    return ""


def copied_bytes(folder: Path) -> int:
    """Bytes that a copy of the files in this folder takes on a disk, which gives whole blocks to each."""
    sizes = (file.stat().st_size for file in folder.iterdir() if file.is_file())
    return sum(-(-size // BLOCK) * BLOCK for size in sizes)


def bytes_below(folder: Path) -> int:
    """Total size of all files below. `scandir` makes half as many system calls as a glob: felt with 10,000 samples."""
    with os.scandir(folder) as entries:
        return sum(
            bytes_below(Path(e.path))
            if e.is_dir(follow_symlinks=False)
            else e.stat(follow_symlinks=False).st_size
            for e in entries
        )
