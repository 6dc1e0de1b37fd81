"""Nothing made from unverified bytes passes, whatever ends first; and an interrupt waits for nothing."""

import threading
import time

import pytest

from virnucpro_core.errors import StoreError
from virnucpro_core.files.verification import Verification


def damaged() -> None:
    raise StoreError("column x is damaged")


def test_the_block_ends_once_every_check_has_passed() -> None:
    done: list[int] = []

    def check(number: int) -> None:
        time.sleep(0.05 * number)
        done.append(number)

    with Verification() as verification:
        for number in (3, 1, 2):
            verification.start(lambda number=number: check(number))  # type: ignore[misc]
        assert done == []
    assert done == [1, 2, 3]


def test_damage_is_raised_by_wait_and_at_the_end() -> None:
    verification = Verification()
    with pytest.raises(StoreError, match="column x"), verification:
        verification.start(damaged)
    with pytest.raises(StoreError, match="column x"):
        verification.wait()
    Verification().wait()  # without checks there is nothing to wait for


def test_damage_is_the_cause_where_the_work_fails_too() -> None:
    def work(verification: Verification) -> None:
        with verification:
            raise ValueError("what a parser makes of damaged bytes")

    damage = Verification()
    damage.start(damaged)
    with pytest.raises(StoreError, match="column x") as caught:
        work(damage)
    assert isinstance(caught.value.__context__, ValueError)
    sound = Verification()
    sound.start(lambda: None)
    with pytest.raises(ValueError, match="parser"):
        work(sound)


def test_an_interrupt_waits_for_no_check() -> None:
    release = threading.Event()

    def slow() -> None:
        release.wait(60)

    def work() -> None:
        with Verification() as verification:
            verification.start(slow)
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        work()
    assert time.monotonic() - began < 10
    release.set()
