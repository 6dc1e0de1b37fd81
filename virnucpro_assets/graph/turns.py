"""A list that several processes work off together, on GPUs of whatever speed: each has its share, and who is done with
it takes of the others' what nobody has begun.

Who took an item is told by one byte each in a file, which needs no process that stays alive.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from virnucpro_core.files.disk import disk_errors
from virnucpro_core.files.publish import passing_file

Item = TypeVar("Item")


def open_turns(folder: Path, items: int) -> AbstractContextManager[Path]:
    """The file, as long as the block lasts; nobody has taken any of the `items` yet. Raises StoreError."""
    return passing_file(folder, bytes(items))


def turns(
    path: Path, items: Sequence[Item], rank: int, ranks: int, *, idle: Callable[[], bool]
) -> Iterator[Item | None]:
    """The items that fall to `rank`, each taken when it is asked for. Raises StoreError.

    First those that a process of the rank took before, which had to end without them; then `items[rank::ranks]`; then
    others', from the end, but only while this process is `idle`: None means that it is not, and that it may ask again.
    """
    mine = rank + 1
    with disk_errors(path), path.open("r+b", buffering=0) as stream:
        yield from (item for item, taker in zip(items, stream.read(), strict=True) if taker == mine)
        own, others = range(rank, len(items), ranks), range(len(items) - 1, -1, -1)
        while (index := _take(stream.fileno(), own, mine)) is not None:
            yield items[index]
        while _is_open(stream.fileno(), len(items)):
            if not idle():
                yield None
            elif (index := _take(stream.fileno(), others, mine)) is not None:
                yield items[index]


def _take(handle: int, wanted: range, taker: int) -> int | None:
    """The first of the wanted items that nobody has, taken; None if there is none."""
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        takers = os.pread(handle, max(wanted, default=-1) + 1, 0)
        index = next((i for i in wanted if not takers[i]), None)
        if index is not None:
            os.pwrite(handle, bytes([taker]), index)
        return index
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


def _is_open(handle: int, items: int) -> bool:
    return b"\0" in os.pread(handle, items, 0)
