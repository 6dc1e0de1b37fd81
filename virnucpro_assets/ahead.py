"""One sample is computed on a thread while the caller records what the one before it gave."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from typing import Generic, Self, TypeVar

from virnucpro_core.errors import VirnucproError

Event = TypeVar("Event")


class Abandoned(Exception):
    """The block was left while the sample was computed."""


@dataclass(frozen=True, slots=True)
class Computed(Generic[Event]):
    """What a sample gave, in order, and the error that ended it, if one did."""

    name: str
    events: Sequence[Event]
    error: VirnucproError | None


class Ahead(Generic[Event]):
    """Computes samples in turn, one further than the caller has taken. Use as a context manager.

    compute: yields a sample's events, and calls `look` often (between two shards): it raises Abandoned once the
    block is being left, which waits for that.
    """

    def __init__(self, compute: Callable[[str, Callable[[], None]], Iterable[Event]]) -> None:
        self._compute = compute
        self._left = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="one-ahead")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def each(self, names: Sequence[str]) -> Iterator[Computed[Event]]:
        """The samples' results in their order. Raises what is no VirnucproError."""
        begun: Future[Computed[Event]] | None = None
        for name, following in zip_longest(names, names[1:]):
            current = begun or self._thread.submit(self._one, name)
            begun = self._thread.submit(self._one, following) if following else None
            yield current.result()

    def _one(self, name: str) -> Computed[Event]:
        events: list[Event] = []
        try:
            for event in self._compute(name, self._look):
                events.append(event)
                self._look()
        except VirnucproError as error:
            return Computed(name, events, error)
        return Computed(name, events, None)

    def _look(self) -> None:
        if self._left.is_set():
            raise Abandoned
