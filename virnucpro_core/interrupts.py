"""A request to stop is kept, wherever the process was when its signal came.

Python runs a signal's handler in the main thread, between any two instructions, and the handler raises there. Inside a
weak reference's callback or a `__del__`, as the garbage collector calls them, Python only reports what is raised, and
goes on; a library may catch it as well. The work would then go on to its end, though whoever asked was told that it
stops. Knows nothing of what the process does.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN_SECONDS = 0.05
Handler = Callable[[int, FrameType | None], Any]
_came: list[
    tuple[Handler, int]
] = []  # signals of the `heeded` block that is under way, with who handles them
_lost = threading.Event()  # an interrupt was ignored, and has not come again so far
_reported: list[Callable[["sys.UnraisableHookArgs"], Any]] = []  # what showed ignored exceptions before us


def keep_interrupts() -> None:
    """From here on an interrupt that Python ignores comes once more, until it ends something."""
    if not _reported:
        _reported.append(sys.unraisablehook)
        sys.unraisablehook = _ignored


class heeded:
    """A block whose interrupts end it: one that was swallowed on the way is raised by `heed`, at the latest at the end.

    It also replaces an error that hid it, or that a library made of it. On other threads the block does nothing.
    """

    def __enter__(self) -> Self:
        self._handlers = _handlers()
        for number in self._handlers:
            signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)
        if self._handlers:
            if kind is None or issubclass(kind, Exception):
                heed()
            _came.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        handler = self._handlers[number]
        _lost.clear()
        _came.append((handler, number))
        handler(number, frame)


def heed() -> None:
    """Raise what a signal asked for since the `heeded` block began, if it was swallowed. Call it often in long work."""
    if _came and threading.current_thread() is threading.main_thread():
        handler, number = _came.pop()
        _lost.clear()
        handler(number, None)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """SIGINT and SIGTERM that Python handles are handled when the block ends."""
    handlers, came = _handlers(), list[int]()
    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, handler in handlers.items():
            if number in came:
                handler(number, None)


def _handlers() -> dict[int, Handler]:
    """SIGINT and SIGTERM with what handles them, as far as Python does; on other threads none."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in SIGNALS}
    return {number: handler for number, handler in found.items() if callable(handler)}


def _ignored(report: "sys.UnraisableHookArgs") -> None:
    """What Python calls for an exception that it ignores. An interrupt derives from BaseException alone."""
    ends = issubclass(report.exc_type, Exception | SystemExit | GeneratorExit)
    if ends or threading.current_thread() is not threading.main_thread():
        _reported[0](report)
        return
    # Not here and now: this, too, runs inside what ignores exceptions.
    _lost.set()
    again = threading.Timer(AGAIN_SECONDS, _again)
    again.daemon = True
    again.start()


def _again() -> None:
    if _lost.is_set():
        _lost.clear()
        os.kill(os.getpid(), signal.SIGINT)
