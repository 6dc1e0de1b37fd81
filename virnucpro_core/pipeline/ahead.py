"""Embeds the lanes that come next while the same process still records and verifies the ones before.

Inside a `computing_ahead` block one thread computes. `begin` gives it lanes, which it embeds in that order. The step
that needs such a lane takes it with `take`. Other work on the device goes through `on_device`: the thread does it
before all lanes that are still queued, because somebody waits for it. So a model is never used by two threads.

A lane that is embedded ahead is embedded as always: its shards and entries are on disk, and a process that is killed
loses nothing.
"""

import contextlib
import itertools
import queue
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from virnucpro_core.pipeline.lane import LaneResult
from virnucpro_core.samples.sample import Sample

Result = TypeVar("Result")
Embedded = tuple[Sample, LaneResult]
FIRST, QUEUED = 0, 1


class Ahead:
    """The thread of a process that computes ahead, and what it has computed or is still to compute."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="computing-ahead")
        self._jobs: queue.PriorityQueue[tuple[int, int, Future[Any], Callable[[], Any]]] = (
            queue.PriorityQueue()
        )
        self._numbers = itertools.count()
        self._lanes: dict[Hashable, Future[Embedded]] = {}

    def begin(self, key: Hashable, embed: Callable[[], Embedded]) -> None:
        """Queue a lane; `embed` returns its sample, as it was then, and its result. Does nothing if it is known."""
        if key not in self._lanes:
            self._lanes[key] = self._submit(QUEUED, embed)

    def take(self, key: Hashable, sample: Sample) -> LaneResult | None:
        """Wait for a lane that was begun, and return its result once. Raises what its embedding raised.

        None if it was not begun, was taken before, or was embedded with other settings.
        """
        begun = self._lanes.pop(key, None)
        if begun is None:
            return None
        embedded, result = begun.result()
        return result if embedded == sample else None

    def forget(self, key: Hashable) -> None:
        """Drop a lane that nobody will take, such as one of a sample that has failed."""
        begun = self._lanes.pop(key, None)
        if begun is not None:
            begun.cancel()

    def run(self, work: Callable[[], Result]) -> Result:
        """Do the work on the thread, before all queued lanes. Raises what it raises."""
        return self._submit(FIRST, work).result()

    def end(self) -> None:
        """Drop what is queued and wait for what runs."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._jobs.get_nowait()[2].cancel()
        self._thread.shutdown(cancel_futures=True)

    def _submit(self, urgency: int, work: Callable[[], Result]) -> Future[Result]:
        done: Future[Result] = Future()
        self._jobs.put((urgency, next(self._numbers), done, work))
        self._thread.submit(self._work)
        return done

    def _work(self) -> None:
        """Do the most urgent job."""
        try:
            *_, done, work = self._jobs.get_nowait()
        except queue.Empty:  # `end` has dropped it
            return
        if not done.set_running_or_notify_cancel():
            return
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is waited for
            done.set_exception(error)


# One block at a time a process: None outside of one.
_ahead: Ahead | None = None


@contextlib.contextmanager
def computing_ahead() -> Iterator[Ahead]:
    """Embed ahead inside the block. At its end, what is queued is dropped and the lane that is computed is finished."""
    global _ahead  # noqa: PLW0603 - the device, and what computes on it, is the process's
    _ahead = ahead = Ahead()
    try:
        yield ahead
    finally:
        _ahead = None
        ahead.end()


def take_ahead(key: Hashable, sample: Sample) -> LaneResult | None:
    """As `Ahead.take`; None outside of a `computing_ahead` block."""
    return _ahead.take(key, sample) if _ahead is not None else None


def on_device(work: Callable[[], Result]) -> Result:
    """Do work that uses a model of this process: on the thread that computes ahead, if there is one, else here."""
    return _ahead.run(work) if _ahead is not None else work()
