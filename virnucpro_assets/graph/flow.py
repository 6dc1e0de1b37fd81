"""Items pass through stages, each with threads of its own: while one is in a stage, the next is in the one before."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from virnucpro_core.errors import VirnucproError

Item = TypeVar("Item")
Event = TypeVar("Event")
Stage = Callable[[Item, Callable[[], None]], Iterable[Event]]


class Abandoned(Exception):
    """The block was left while the item was in a stage."""


@dataclass(frozen=True, slots=True)
class Passed(Generic[Item, Event]):
    """What an item gave in the stages, in order, and the error that kept it from further ones, if one did."""

    item: Item
    events: Sequence[Event]
    error: VirnucproError | None


class Flow(Generic[Item, Event]):
    """Sends items through the stages in turn, as many at a time as there are threads. Use as a context manager.

    `stages`: each with its number of threads, and so of items that are in it at a time. A stage yields an item's
    events, and calls `look` often: it raises Abandoned once the block is being left, which waits for that.
    """

    def __init__(self, *stages: tuple[int, Stage[Item, Event]]) -> None:
        self._left = threading.Event()
        self._stages = [([ThreadPoolExecutor(1) for _ in range(threads)], stage) for threads, stage in stages]
        self._threads = [thread for threads, _ in self._stages for thread in threads]

    def __enter__(self) -> Self:
        # Now, for an interrupt while a thread starts would leave it behind unknown.
        for thread in self._threads:
            thread.submit(int)
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        for thread in self._threads:
            thread.shutdown(wait=False, cancel_futures=True)
        for thread in self._threads:
            thread.shutdown(wait=True)

    def each(self, items: Iterable[Item | None]) -> Iterator[Passed[Item, Event]]:
        """Every item once it is through, in their order. Raises what is no VirnucproError.

        None among the items: there is none for now; the next one is asked for when one is through.
        """
        under_way: deque[Future[Passed[Item, Event]]] = deque()
        number = 0
        for item in items:
            if item is not None:
                under_way.append(self._send(number, item))
                number += 1
            if under_way and (item is None or len(under_way) > len(self._threads)):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def _send(self, number: int, item: Item) -> Future[Passed[Item, Event]]:
        passed: Future[Passed[Item, Event]] = Future()
        passed.set_result(Passed(item, (), None))
        for threads, stage in self._stages:
            passed = threads[number % len(threads)].submit(self._pass, stage, passed)
        return passed

    def _pass(self, stage: Stage[Item, Event], before: Future[Passed[Item, Event]]) -> Passed[Item, Event]:
        passed = before.result()
        if passed.error is not None:
            return passed
        events = list(passed.events)
        try:
            self._look()
            for event in stage(passed.item, self._look):
                events.append(event)
                self._look()
        except VirnucproError as error:
            return Passed(passed.item, events, error)
        return Passed(passed.item, events, None)

    def _look(self) -> None:
        if self._left.is_set():
            raise Abandoned
