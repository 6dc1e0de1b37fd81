"""Digests checked on threads, while work goes on with what they vouch for.

Knows nothing of what is checked. Digesting 3B weights takes longer than loading them, and a frame store longer than
reading a shard's part of it: both are used at once, and nothing made from them is published before they have passed.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self


class Verification:
    """The checks that one piece of work depends on. Use as a context manager; publish nothing before `wait`.

    The block ends well only where every check passes. Where the block fails, and a check as well, the check's error is
    raised: it is the cause. An interrupt waits for no check.
    """

    def __init__(self) -> None:
        self._checks: list[Future[None]] = []

    def start(self, check: Callable[[], None]) -> None:
        """Run `check` on a thread of its own; it raises where something is damaged."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="verify")
        self._checks.append(thread.submit(check))
        thread.shutdown(wait=False)  # it ends with the check

    def wait(self) -> None:
        """Return once every check has passed. Raises what the first that failed has raised."""
        for check in self._checks:
            check.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):
            self.wait()
