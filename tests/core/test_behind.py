"""Calls on threads: in order, a few ahead, and an error in its turn."""

import threading
from collections.abc import Callable

import pytest

from virnucpro_core.behind import AHEAD, ahead, begun


def test_results_come_in_order_while_the_next_calls_are_under_way() -> None:
    together = threading.Barrier(AHEAD)
    called: list[int] = []

    def call(item: int) -> int:
        called.append(item)
        together.wait(10)  # passes only if the next one is called before this one has been handed over
        return item * item

    seen = []
    for item, result in ahead(call, range(2 * AHEAD)):
        seen.append((item, result))
        assert max(called) <= item + AHEAD
    assert seen == [(i, i * i) for i in range(2 * AHEAD)]


@pytest.mark.parametrize("count", [0, 1])
def test_few_items(count: int) -> None:
    assert list(ahead(str, range(count))) == [(i, str(i)) for i in range(count)]


def test_an_error_comes_in_its_turn_and_leaves_no_thread() -> None:
    before = threading.active_count()
    calls = ahead(lambda i: 1 // (3 - i), range(9))
    assert [next(calls)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(calls)
    assert threading.active_count() == before


def test_what_is_begun_is_waited_for() -> None:
    go_on = threading.Event()

    def call() -> str:
        assert go_on.wait(10)
        return "done"

    wait: Callable[[], str] = begun(call)
    go_on.set()
    assert wait() == "done"
