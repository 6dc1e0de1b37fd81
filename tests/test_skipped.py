"""Every reason for which a test skips itself has a remedy that the end of a test run names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.skipped import REMEDIES, UNKNOWN, remedy_of, skipped_lines

PYTEST_SKIPS = {"skip", "skipif", "importorskip"}


def _reasons(file: Path) -> Iterator[str]:
    """The literal reasons in a file of tests; for `importorskip` without one, pytest's own words."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr not in PYTEST_SKIPS:
            continue
        given = [k.value for k in node.keywords if k.arg == "reason"]
        if node.func.attr != "skipif" and not given:
            given = node.args[:1]
        for value in given:
            if isinstance(value, ast.Constant):
                yield str(value.value)


REASONS = sorted({reason for file in (ROOT / "tests").rglob("*.py") for reason in _reasons(file)})


def test_reasons_are_found() -> None:
    assert len(REASONS) > 8


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_has_a_remedy(reason: str) -> None:
    assert remedy_of(reason) != UNKNOWN


def test_each_remedy_is_of_use() -> None:
    """`flash-attn` and `flash_attn` come from the kernel's own words, at run time."""
    told = {part for part in REMEDIES if any(part in reason for reason in REASONS)}
    assert set(REMEDIES) - told <= {"flash-attn", "flash_attn"}


def test_make_targets_in_remedies_exist() -> None:
    named = set(re.findall(r"make ([a-z]+)", " ".join(REMEDIES.values())))
    assert named <= set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_lines_count_by_reason() -> None:
    skips = [
        ("a.py", "Skipped: needs a CUDA device"),
        ("b.py", "needs a CUDA device"),
        ("a.py", "new reason"),
    ]
    assert list(skipped_lines(skips)) == [
        "   2 skipped: needs a CUDA device",
        "     in a.py, b.py",
        "     to run them: run `pytest -m gpu` on a machine with an NVIDIA GPU",
        "   1 skipped: new reason",
        "     in a.py",
        f"     to run them: {UNKNOWN}",
    ]
