"""Maps a function over many items with several processes; results come in the order of the items."""

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Self, TypeVar

from virnucpro_core.errors import StoreError

Item = TypeVar("Item")
Result = TypeVar("Result")
# Items in flight for each process: enough that none waits, few enough that memory stays small.
_AHEAD = 3


def start_process_server(module: str = "virnucpro_core.sequences.frames") -> None:
    """Start the server process from which the processes are forked, if it is not running. Returns at once.

    The server imports `module`, whose functions the processes will run, while the caller does something else; each then
    starts in milliseconds. It has no threads, and it ends with the caller.
    """
    multiprocessing.set_forkserver_preload([module])
    multiprocessing.forkserver.ensure_running()


class Processes:
    """Maps functions over many items with `number` processes, or in this process if it is 1. Use as a context manager.

    The processes start at the first `map` and serve all later ones.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self.number > 1:
            start_process_server()
            forked = multiprocessing.get_context("forkserver")
            self._pool = ProcessPoolExecutor(self.number, mp_context=forked, initializer=_begin)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `function(item)` for every item, in order. Few items are in flight, so `items` may be endless.

        `function` must be importable, items and results must be picklable. Errors of `function` are raised here. Raises
        StoreError if a process was killed.
        """
        if self._pool is None:
            yield from map(function, items)
            return
        in_flight = deque[Future[Result]]()
        try:
            for item in items:
                in_flight.append(self._pool.submit(function, item))
                if len(in_flight) == _AHEAD * self.number:
                    yield in_flight.popleft().result()
            while in_flight:
                yield in_flight.popleft().result()
        except BrokenProcessPool as error:
            raise StoreError(
                "one of the processes that share the work was killed; memory may have run out",
                remedy="run the same command again, with fewer cores or more memory",
            ) from error


def _begin() -> None:
    """First call in a process: only its parent decides when it ends, and it ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
