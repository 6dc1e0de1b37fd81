"""A request to stop ends the work, also where Python or a library swallows what the handler raises."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from virnucpro_core import interrupts
from virnucpro_core.encoders.loaded import free_encoders
from virnucpro_core.interrupts import interruptible, keep_interrupts, raise_pending_interrupt

LOST = """
import os, signal, sys, time
from virnucpro_core.interrupts import keep_interrupts

class Stop(BaseException):
    "as Dagster's is"

class Tidied:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)

def stop(*_):
    raise Stop

signal.signal(signal.SIGINT, stop)
if sys.argv[1] == "kept":
    keep_interrupts()
    keep_interrupts()
try:
    for _ in range(int(sys.argv[2])):
        Tidied()
    time.sleep(1)
    print("went on")
except Stop:
    print("stopped")
"""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.02)


def swallowed() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        interrupt()


@pytest.mark.parametrize(
    ("how", "times", "said"),
    [("as Python has it", 1, "went on"), ("kept", 1, "stopped"), ("kept", 3, "stopped")],
)
def test_an_interrupt_that_python_ignores_comes_again(how: str, times: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOST, how, str(times)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == said
    assert ("Exception ignored" in done.stderr) == (how != "kept")


def test_other_exceptions_that_python_ignores_are_shown_as_before() -> None:
    code = "from virnucpro_core.interrupts import keep_interrupts\nkeep_interrupts()\n"
    code += "class T:\n  def __del__(self): 1 / 0\nT()\n"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "Exception ignored" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_a_swallowed_interrupt_ends_the_block_at_its_end() -> None:
    went_on: list[bool] = []

    def work() -> None:
        with interruptible():
            swallowed()
            went_on.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert went_on == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_swallowed_interrupt_is_raised_where_long_work_checks_for_it() -> None:
    went_on: list[bool] = []

    def work() -> None:
        with interruptible():
            raise_pending_interrupt()
            swallowed()
            raise_pending_interrupt()
            went_on.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert went_on == []


@pytest.mark.parametrize("ends", [ValueError, OSError])
def test_an_error_that_an_interrupt_became_is_an_interrupt(ends: type[Exception]) -> None:
    def work() -> None:
        with interruptible():
            try:
                interrupt()
            except KeyboardInterrupt:
                raise ends("a callback failed") from None

    with pytest.raises(KeyboardInterrupt):
        work()


def test_without_a_signal_errors_pass_and_an_interrupt_of_an_earlier_block_is_forgotten() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():
        interrupt()
    with pytest.raises(ValueError, match="mine"), interruptible():
        raise ValueError("mine")
    with interruptible():
        raise_pending_interrupt()
    raise_pending_interrupt()


def test_a_handler_that_only_notes_the_signal_is_left_to_itself() -> None:
    noted: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        noted.append(number)

    signal.signal(signal.SIGTERM, note)
    with interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.02)
    assert set(noted) == {signal.SIGTERM}
    assert signal.getsignal(signal.SIGTERM) is note


def test_a_handler_that_was_set_inside_the_block_stays() -> None:
    with interruptible():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_on_another_thread_signals_are_left_alone() -> None:
    seen: list[object] = []

    def work() -> None:
        with interruptible():
            raise_pending_interrupt()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


class Cycle:
    """Garbage that only the collector finds."""

    def __init__(self, told: Callable[[object], None]) -> None:
        self.me = self
        self.told = weakref.ref(self, told)


def test_an_interrupt_while_the_encoders_are_freed_ends_the_work() -> None:
    """The collector calls back, and Python ignores what a handler raises in there."""
    gc.collect()
    called: list[bool] = []

    def told(_: object) -> None:
        interrupt()
        called.append(True)

    kept = weakref.ref(cycle := Cycle(lambda _: None), told)
    del cycle
    with pytest.raises(KeyboardInterrupt):
        free_encoders()
    assert called == [True]
    assert kept() is None


def test_keeping_interrupts_twice_is_keeping_them_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr(interrupts, "_earlier_hooks", [])
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    keep_interrupts()
    hook = sys.unraisablehook
    keep_interrupts()
    assert sys.unraisablehook is hook
