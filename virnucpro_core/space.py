"""How much room on disk a sample needs, so that a full disk is foreseen and not met after hours.

Knows bytes of rows and files; the rows and widths are given. The estimates are of what this project writes,
measured on reads and genomes; a file system's own blocks come on top.
"""

import shutil
from pathlib import Path

from virnucpro_core.durable import disk_errors
from virnucpro_core.errors import StoreError

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
