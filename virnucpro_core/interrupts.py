"""Makes sure that SIGINT and SIGTERM stop the process, even if Python or a library swallows the exception.

Python runs a signal handler in the main thread, between any two instructions, and the handler raises an exception
there. If this happens inside a `__del__` or a callback of a weak reference, Python only prints the exception and
continues. A library may also catch it. Then the work would go on although the user asked it to stop. This module
raises such a lost interrupt again.
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
# Signals that arrived during the current `interruptible` block, with their handlers.
_pending: list[tuple[Handler, int]] = []
# Set if Python ignored an interrupt that was not sent again yet.
_swallowed = threading.Event()
# The previous `sys.unraisablehook`, empty until `keep_interrupts` is called.
_earlier_hooks: list[Callable[["sys.UnraisableHookArgs"], Any]] = []


def keep_interrupts() -> None:
    """From now on, an interrupt that Python ignores is sent again until it is raised in normal code."""
    if not _earlier_hooks:
        _earlier_hooks.append(sys.unraisablehook)
        sys.unraisablehook = _on_ignored


class interruptible:
    """A block that an interrupt always ends, also if the interrupt was swallowed inside it.

    A swallowed interrupt is raised by `raise_pending_interrupt`, at the latest when the block ends. It also replaces an
    error that the block raises after the interrupt. On other threads than the main thread the block does nothing.
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
                raise_pending_interrupt()
            _pending.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        handler = self._handlers[number]
        _swallowed.clear()
        _pending.append((handler, number))
        handler(number, frame)


def raise_pending_interrupt() -> None:
    """Raise an interrupt that was swallowed since the `interruptible` block began. Call it often in long work."""
    if _pending and threading.current_thread() is threading.main_thread():
        handler, number = _pending.pop()
        _swallowed.clear()
        handler(number, None)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Delay the handling of SIGINT and SIGTERM until the block ends."""
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
    """The Python handlers of SIGINT and SIGTERM, by signal number; empty on other threads than the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in SIGNALS}
    return {number: handler for number, handler in found.items() if callable(handler)}


def _on_ignored(report: "sys.UnraisableHookArgs") -> None:
    """Called by Python for an exception that it ignores. Interrupts are those that derive from BaseException only."""
    is_other = issubclass(report.exc_type, Exception | SystemExit | GeneratorExit)
    if is_other or threading.current_thread() is not threading.main_thread():
        _earlier_hooks[0](report)
        return
    # Send the signal later, from a timer: an exception raised here would be ignored as well.
    _swallowed.set()
    again = threading.Timer(AGAIN_SECONDS, _send_again)
    again.daemon = True
    again.start()


def _send_again() -> None:
    if _swallowed.is_set():
        _swallowed.clear()
        os.kill(os.getpid(), signal.SIGINT)
