"""How much room on disk a sample needs, so that a full disk is foreseen and not met after hours.

Knows bytes of rows and files; the rows and widths are given. The estimates are of what this project writes,
measured on reads and genomes; a file system's own blocks come on top.
"""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from virnucpro_core.errors import StoreError

# How the names of files begin that are still being written.
TEMPORARY = ".tmp-"
# Chunks and translations a letter of the input: 1.0 to 1.3, and up to 1.8 for reads that are genes throughout.
BYTES_A_LETTER = 2.5
# Letters a byte of a compressed sequence file.
LETTERS_PACKED = 4
# A row's frame number (8) and digest (16) beside its float32 values; a shard's HDF5 header and entry.
ROW_BYTES, SHARD_BYTES = 24, 12_000
# Rows of a frame in both tables, written anew beside the old ones, and once more where they are delivered.
RESULT_BYTES_A_FRAME, REPORT_BYTES = 300, 1_000_000


def reading_bytes(letters: int, *, packed: int) -> int:
    """Chunks and translations of files of `letters` bytes of text and `packed` compressed bytes, roughly."""
    return int(BYTES_A_LETTER * (letters + LETTERS_PACKED * packed))


def sharded_bytes(rows: int, shards: int, width: int) -> int:
    """Files of one product: `rows` of `width` float32 values in `shards` files. A virtual product has width 0."""
    return rows * (4 * width + ROW_BYTES) + shards * SHARD_BYTES


def make_sure_of_room(folder: Path, needed: int, purpose: str) -> None:
    """Raises StoreError with both numbers when the disk of `folder` has less than `needed` bytes free."""
    with disk_errors(folder):
        free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    if free < needed:
        raise StoreError(
            f"{free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed {purpose}",
            where=folder,
            remedy="make room on this disk, then run the same command again",
        )


_REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room on this disk")


_REMEDIES |= dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (`ulimit -n`)")


_REMEDIES |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "check the rights of this folder")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the file system refuses inside the block becomes a StoreError: file, reason, free space, remedy.

    `path` is named where the system names no file, or only a temporary one.
    """
    try:
        yield
    except OSError as error:
        named = str(error.filename or "")
        raise StoreError(
            f"the disk refuses: {error.strerror or error}{_free_space(path)}",
            where=path if not named or TEMPORARY in named else named,
            remedy=_REMEDIES.get(error.errno or 0, "check the disk")
            + ", then run the same command again; nothing finished is lost",
        ) from error


def _free_space(path: Path) -> str:
    for folder in path.parents:
        with contextlib.suppress(OSError):
            return f" ({shutil.disk_usage(folder).free / 1e9:.1f} GB free)"
    return ""
