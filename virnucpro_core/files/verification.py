"""Verifies input files in the background, while the work that uses them already runs.

Hashing 3B weights takes longer than loading them, and hashing a frame store longer than reading one shard of it. So
work starts at once, and its results are published only after the checks have passed. Knows nothing of what is checked.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self


class Verification:
    """Background checks that one piece of work depends on. Use as a context manager; call `wait` before publishing.

    The end of the block waits for all checks and raises the error of the first that failed. If the block itself raised
    as well, the check's error is raised, since damaged input is the cause. An interrupt does not wait for checks.
    """

    def __init__(self) -> None:
        self._checks: list[Future[None]] = []

    def start(self, check: Callable[[], None]) -> None:
        """Run `check` on its own thread. It must raise if something is damaged."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="verify")
        self._checks.append(thread.submit(check))
        thread.shutdown(wait=False)  # it ends with the check

    def wait(self) -> None:
        """Wait until every check has passed. Raises the error of the first check that failed."""
        for check in self._checks:
            check.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):
            self.wait()
