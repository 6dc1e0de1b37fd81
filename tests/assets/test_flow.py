"""Stages beside each other: order, errors, how many items are under way, and how soon they end."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_assets.flow import Abandoned, Flow
from virnucpro_core.errors import StoreError

Look = Callable[[], None]


@given(bad=st.dictionaries(st.integers(0, 9), st.integers(0, 2)), items=st.integers(0, 10))
def test_results_come_in_order_and_an_error_keeps_what_came_before_it(
    bad: dict[int, int], items: int
) -> None:
    def stage(number: int) -> Callable[[int, Look], Iterator[tuple[int, int, str]]]:
        def run(item: int, _: Look) -> Iterator[tuple[int, int, str]]:
            yield item, number, "begun"
            if bad.get(item) == number:
                raise StoreError(f"a check of {item} failed")
            yield item, number, "done"

        return run

    with Flow(*map(stage, range(3))) as flow:
        found = list(flow.each(range(items)))
    assert [passed.item for passed in found] == list(range(items))
    for item, passed in enumerate(found):
        whole = [(item, number, word) for number in range(3) for word in ("begun", "done")]
        assert list(passed.events) == whole[: 2 * bad[item] + 1 if item in bad else 6]
        assert (passed.error is None) == (item not in bad)


def test_stages_work_beside_each_other_and_each_on_one_item() -> None:
    both = threading.Barrier(2)
    inside = [0, 0]

    def stage(number: int) -> Callable[[str, Look], Iterator[str]]:
        def run(item: str, _: Look) -> Iterator[str]:
            inside[number] += 1
            assert inside[number] == 1
            if (number, item) in ((0, "b"), (1, "a")):
                both.wait(10)  # passes only if `b` is in the first stage while `a` is in the second
            inside[number] -= 1
            yield item

        return run

    with Flow(stage(0), stage(1)) as flow:
        assert [passed.item for passed in flow.each("abc")] == ["a", "b", "c"]


def test_no_more_items_are_under_way_than_there_are_stages_and_one_that_is_taken() -> None:
    sent: list[int] = []

    def items() -> Iterator[int]:
        for item in range(9):
            sent.append(item)
            yield item

    def stage(item: int, _: Look) -> Iterator[int]:
        yield item

    with Flow(stage, stage) as flow:
        for taken, _ in enumerate(flow.each(items())):
            assert len(sent) <= taken + 3


def test_leaving_ends_every_stage_at_its_next_look() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    second = threading.Event()
    ended: list[str] = []

    def quick(item: str, _: Look) -> Iterator[str]:
        yield item

    def endless(item: str, look: Look) -> Iterator[str]:
        second.set()
        try:
            while True:
                look()
                time.sleep(0.01)
        except Abandoned:
            ended.append(item)
            raise
        yield ""

    def interrupted() -> None:
        with Flow(quick, endless, quick) as flow:
            threading.Thread(target=lambda: (second.wait(10), os.kill(os.getpid(), signal.SIGINT))).start()
            list(flow.each(["endless", "never", "never"]))

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    signal.signal(signal.SIGINT, before)
    assert ended == ["endless"]


def test_what_is_no_error_of_ours_ends_the_caller() -> None:
    def defect(_: str, __: Look) -> Iterator[str]:
        raise RuntimeError("a defect")
        yield ""

    def never(item: str, _: Look) -> Iterator[str]:
        raise AssertionError(item)
        yield ""

    with Flow(defect, never) as flow, pytest.raises(RuntimeError, match="a defect"):
        list(flow.each(["a", "b"]))
