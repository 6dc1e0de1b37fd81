"""Fixtures of all tests, and what has to be set before anything is imported."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.support import ROOT
from tests.support.skipped import skipped_lines

# The partition keys follow the environment when the definitions are imported: two lanes on the CPU.
os.environ.update(VIRNUCPRO_GPUS="2", VIRNUCPRO_DEVICE="cpu", VIRNUCPRO_PROFILE="demo")
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported: its kernels then run on the CPU

# A job in a shell's background ignores SIGINT, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Stores are synced to disk: a slow disk is no failure.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(autouse=True)
def environment_restored() -> Iterator[None]:
    """A command that runs in this process may set variables (PYTHONSAFEPATH, say). The next test must not see them."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Golden files beside the repository; tests that need them are skipped where they are absent."""
    root = Path(__file__).resolve().parents[1]
    for folder in (root / "shared", root.parent / "shared", root.parent.parent / "shared"):
        if folder.is_dir():
            return folder
    pytest.skip("the shared golden files are not here")


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The campaigns in tests/torture take minutes: a plain `pytest` leaves them out, `make test` runs them."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests" / "torture"):
            item.add_marker("torture")


@pytest.hookimpl(trylast=True)  # the last lines before pytest's own counts
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which tests were skipped or left out, why, and what installs what they lack."""
    skips = []
    for report in terminalreporter.stats.get("skipped", []):
        file, _, reason = report.longrepr  # of a test that skips itself: where it did
        skips.append((report.nodeid.partition("::")[0] or file, reason))
    # With several processes, only they know how many tests were left out.
    left_out = len(terminalreporter.stats.get("deselected", []))
    chosen = terminalreporter.config.getoption("markexpr") or terminalreporter.config.getoption("keyword")
    if not skips and not left_out and not chosen:
        return
    terminalreporter.section("tests that did not run")
    for line in skipped_lines(skips):
        terminalreporter.line(line)
    if left_out or chosen:
        terminalreporter.line(f"{left_out or '':4} left out by the choice of tests: {chosen}")
        terminalreporter.line(
            "     to run them: make test (torture), pytest -m long (long), make ray (ray), make slurm (slurm), "
            "pytest -m gpu (gpu)"
        )
