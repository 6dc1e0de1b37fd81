"""Stages beside each other: order, errors, how many items are under way, and how soon they end."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_assets.graph.flow import Abandoned, Flow
from virnucpro_core.errors import StoreError

Look = Callable[[], None]


@given(
    bad=st.dictionaries(st.integers(0, 9), st.integers(0, 2)),
    items=st.integers(0, 10),
    threads=st.tuples(*[st.integers(1, 3)] * 3),
)
def test_results_come_in_order_and_an_error_keeps_what_came_before_it(
    bad: dict[int, int], items: int, threads: tuple[int, int, int]
) -> None:
    def stage(number: int) -> Callable[[int, Look], Iterator[tuple[int, int, str]]]:
        def run(item: int, _: Look) -> Iterator[tuple[int, int, str]]:
            yield item, number, "begun"
            if bad.get(item) == number:
                raise StoreError(f"a check of {item} failed")
            yield item, number, "done"

        return run

    with Flow(*zip(threads, map(stage, range(3)), strict=True)) as flow:
        found = list(flow.each(range(items)))
    assert [passed.item for passed in found] == list(range(items))
    for item, passed in enumerate(found):
        whole = [(item, number, word) for number in range(3) for word in ("begun", "done")]
        assert list(passed.events) == whole[: 2 * bad[item] + 1 if item in bad else 6]
        assert (passed.error is None) == (item not in bad)


@pytest.mark.parametrize("second", [1, 2])
def test_stages_work_beside_each_other_and_each_on_as_many_items_as_it_has_threads(second: int) -> None:
    both, twice = threading.Barrier(2), threading.Barrier(second)
    inside: list[list[str]] = [[], []]

    def stage(number: int) -> Callable[[str, Look], Iterator[str]]:
        def run(item: str, _: Look) -> Iterator[str]:
            inside[number].append(item)
            assert len(inside[number]) <= (1, second)[number]
            if (number, item) in ((0, "c"), (1, "b")):
                both.wait(10)  # passes only if `c` is in the first stage while `b` is in the second
            if number == 1:
                twice.wait(10)  # passes only with as many in the second stage
            inside[number].remove(item)
            yield item

        return run

    with Flow((1, stage(0)), (second, stage(1))) as flow:
        assert [passed.item for passed in flow.each("abcd")] == ["a", "b", "c", "d"]


def test_none_among_the_items_is_asked_again_once_one_is_through() -> None:
    through: list[str] = []

    def items() -> Iterator[str | None]:
        yield from "ab"
        while len(through) < 2:
            yield None
        yield "c"

    def stage(item: str, _: Look) -> Iterator[str]:
        yield item

    with Flow((1, stage), (1, stage)) as flow:
        for passed in flow.each(items()):
            through.append(passed.item)
    assert through == ["a", "b", "c"]


def test_no_more_items_are_under_way_than_there_are_threads_and_one_that_is_taken() -> None:
    sent: list[int] = []

    def items() -> Iterator[int]:
        for item in range(9):
            sent.append(item)
            yield item

    def stage(item: int, _: Look) -> Iterator[int]:
        yield item

    with Flow((1, stage), (2, stage)) as flow:
        for taken, _ in enumerate(flow.each(items())):
            assert len(sent) <= taken + 4


def test_leaving_ends_every_stage_at_its_next_look() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    begun = threading.Semaphore(0)
    ended: list[str] = []

    def quick(item: str, _: Look) -> Iterator[str]:
        yield item

    def endless(item: str, look: Look) -> Iterator[str]:
        begun.release()
        try:
            while True:
                look()
                time.sleep(0.01)
        except Abandoned:
            ended.append(item)
            raise
        yield ""

    def interrupted() -> None:
        def once_both_have_begun() -> None:
            assert all(begun.acquire(timeout=10) for _ in range(2))
            os.kill(os.getpid(), signal.SIGINT)

        with Flow((1, quick), (2, endless), (1, quick)) as flow:
            threading.Thread(target=once_both_have_begun).start()
            list(flow.each(["endless", "endless", "never", "never"]))

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    signal.signal(signal.SIGINT, before)
    assert ended == ["endless", "endless"]


def test_what_is_no_error_of_ours_ends_the_caller() -> None:
    def defect(_: str, __: Look) -> Iterator[str]:
        raise RuntimeError("a defect")
        yield ""

    def never(item: str, _: Look) -> Iterator[str]:
        raise AssertionError(item)
        yield ""

    with Flow((1, defect), (1, never)) as flow, pytest.raises(RuntimeError, match="a defect"):
        list(flow.each(["a", "b"]))
