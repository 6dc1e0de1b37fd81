"""A list that several processes work off together, on GPUs of whatever speed: each takes the next item that nobody has.

Who took an item is told by one byte each in a file, which needs no process that stays alive.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from virnucpro_core.durable import disk_errors

Item = TypeVar("Item")


@contextlib.contextmanager
def open_turns(path: Path, items: int) -> Iterator[None]:
    """The file is there as long as the block lasts; nobody has taken any of the `items` yet. Raises StoreError."""
    with disk_errors(path):
        path.write_bytes(bytes(items))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def turns(path: Path, items: Sequence[Item], rank: int) -> Iterator[Item]:
    """The items that fall to `rank`, each taken when it is asked for.

    First those that a process of the rank took before, which had to end without them. Raises StoreError.
    """
    mine = bytes([rank + 1])
    with disk_errors(path), path.open("r+b", buffering=0) as stream:
        yield from (item for item, taker in zip(items, stream.read(), strict=True) if taker == mine[0])
        while (index := _take(stream.fileno(), len(items), mine)) >= 0:
            yield items[index]


def _take(handle: int, items: int, taker: bytes) -> int:
    """Index of the item that was taken; -1 if none is left."""
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        index = os.pread(handle, items, 0).find(b"\0")
        if index >= 0:
            os.pwrite(handle, taker, index)
        return index
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)
