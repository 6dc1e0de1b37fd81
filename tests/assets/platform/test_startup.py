"""Imports that last: a signal waits for their end, and is not forgotten."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from virnucpro_assets.platform.startup import lasting_imports


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_an_interrupt_waits_until_everything_is_imported() -> None:
    went_on: list[bool] = []

    def interrupted() -> None:
        with lasting_imports():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.02)
            went_on.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert went_on == [True]
    assert gc.isenabled()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_a_signal_nothing_is_raised_and_one_that_comes_later_is_as_before() -> None:
    def interrupted() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    with lasting_imports():
        pass
    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_a_signal_that_python_does_not_handle_is_left_alone() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with lasting_imports():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    "given", ["", ":", "{root}:", ":{root}", ".:{root}", "{root}:{other}:", "{root}:sub"]
)
def test_no_entry_of_pythonpath_brings_the_current_folder(tmp_path: Path, given: str) -> None:
    """Of this process and of its children; what is named by its path stays."""
    (tmp_path / "colorsys.py").write_text("raise SystemExit('imported from where the user stands')")
    (tmp_path / "sub").mkdir()
    other = tmp_path.parent
    path = given.format(root=ROOT, other=other)
    code = "import virnucpro_assets, colorsys, subprocess, sys, os; print(os.environ.get('PYTHONPATH', ''));"
    code += "sys.exit(subprocess.run([sys.executable, '-P', '-c', 'import colorsys']).returncode)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = done.stdout.strip().split(":")
    assert str(tmp_path) not in left
    assert {"", "."}.isdisjoint(left) or left == [""]
    assert (str(other) in left) == ("{other}" in given)
    assert (str(tmp_path / "sub") in left) == ("sub" in given)


def test_a_thread_imports_without_touching_signals() -> None:
    done: list[bool] = []

    def work() -> None:
        with lasting_imports():
            done.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
