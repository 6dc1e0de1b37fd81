"""A call that runs on a thread of its own while the caller goes on."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def begun(call: Callable[[], Result]) -> Callable[[], Result]:
    """Begin `call` now. The function that comes back waits for its end: it returns, or raises, what the call does."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="behind")
    waiting = thread.submit(call)
    thread.shutdown(wait=False)  # it ends with the call
    return waiting.result
