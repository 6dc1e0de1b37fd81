"""One sample ahead: order, errors, how far ahead, and how soon it ends."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from virnucpro_assets.ahead import Abandoned, Ahead
from virnucpro_core.errors import StoreError


def test_results_come_in_order_and_an_error_keeps_what_came_before_it() -> None:
    def compute(name: str, _: Callable[[], None]) -> Iterator[str]:
        yield f"{name} begun"
        if name == "bad":
            raise StoreError("a check failed")
        yield f"{name} done"

    with Ahead(compute) as ahead:
        found = list(ahead.each(["first", "bad", "last"]))
    assert [list(sample.events) for sample in found] == [
        ["first begun", "first done"],
        ["bad begun"],
        ["last begun", "last done"],
    ]
    assert [sample.name for sample in found if sample.error] == ["bad"]


def test_the_next_sample_is_computed_meanwhile_and_no_further_one() -> None:
    begun: list[str] = []
    second = threading.Event()

    def compute(name: str, _: Callable[[], None]) -> Iterator[str]:
        begun.append(name)
        if name == "b":
            second.set()
        yield name

    with Ahead(compute) as ahead:
        results = ahead.each(["a", "b", "c", "d"])
        assert next(results).name == "a"
        assert second.wait(10)
        time.sleep(0.05)
        assert begun == ["a", "b"]
        assert next(results).name == "b"
    assert begun in (["a", "b"], ["a", "b", "c"])


def test_leaving_ends_what_is_computed_at_its_next_look() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    ended: list[type[BaseException]] = []

    def compute(_: str, look: Callable[[], None]) -> Iterator[str]:
        threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
        try:
            while True:
                look()
                time.sleep(0.01)
        except Abandoned as left:
            ended.append(type(left))
            raise
        yield ""

    def interrupted() -> None:
        with Ahead(compute) as ahead:
            list(ahead.each(["endless", "never"]))

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    signal.signal(signal.SIGINT, before)
    assert ended == [Abandoned]


def test_what_is_no_error_of_ours_ends_the_caller() -> None:
    def compute(_: str, __: Callable[[], None]) -> Iterator[str]:
        raise RuntimeError("a defect")
        yield ""

    with Ahead(compute) as ahead, pytest.raises(RuntimeError, match="a defect"):
        list(ahead.each(["a"]))
