"""Calls that run on threads of their own while the caller goes on: digests, disks and numpy let others run."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 2


def begun(call: Callable[[], Result]) -> Callable[[], Result]:
    """Begin `call` now. The function that comes back waits for its end: it returns, or raises, what the call does."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="behind")
    waiting = thread.submit(call)
    thread.shutdown(wait=False)  # it ends with the call
    return waiting.result


def ahead(call: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """Every item with what `call` returns for it, in order, while the calls of the next AHEAD are under way.

    Raises what a call raises, in its item's turn.
    """
    under_way: deque[tuple[Item, Future[Result]]] = deque()
    threads = ThreadPoolExecutor(AHEAD, thread_name_prefix="ahead")
    try:
        for item in items:
            under_way.append((item, threads.submit(call, item)))
            if len(under_way) > AHEAD:
                first, result = under_way.popleft()
                yield first, result.result()
        for first, result in under_way:
            yield first, result.result()
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
