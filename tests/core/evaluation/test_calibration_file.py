"""When a calibration may be written over an earlier one: the same command may be repeated, another one not."""

from dataclasses import replace
from pathlib import Path

import pytest

from virnucpro_core.errors import UsageError
from virnucpro_core.evaluation.calibration_file import Made, check_calibration_file, save_calibration
from virnucpro_core.results.calibration import Calibration, Curve

RANGES = (Curve(0, 500), Curve(500, 0))
MADE = Made("abc", 300, 0, "isotonic", "x-eval-1", "AAAA", RANGES)
FITTED = Calibration(
    "abc",
    300,
    "isotonic",
    (replace(RANGES[0], score=(0.0, 1.0), log_odds=(-1.0, 1.0)), replace(RANGES[1], reason="too few")),
    {"sample": "x-eval-1", "sequences": "AAAA"},
)


def test_the_same_command_may_be_repeated(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    check_calibration_file(file, MADE, force=False)
    save_calibration(FITTED, file, force=False)
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    check_calibration_file(file, MADE, force=False)
    save_calibration(FITTED, file, force=False)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


@pytest.mark.parametrize(
    "other",
    [
        replace(MADE, classifier="other"),
        replace(MADE, min_open=30),
        replace(MADE, method="platt"),
        replace(MADE, sample="y"),
        replace(MADE, sequences="BBBB"),
        replace(MADE, ranges=RANGES[:1]),
    ],
)
def test_another_command_is_refused_before_its_work(tmp_path: Path, other: Made) -> None:
    file = tmp_path / "c.json"
    save_calibration(FITTED, file, force=False)
    with pytest.raises(UsageError, match=r"already exists; give --force to replace it, or --save FILE"):
        check_calibration_file(file, other, force=False)
    check_calibration_file(file, other, force=True)


def test_other_content_is_not_replaced_at_the_end(tmp_path: Path) -> None:
    file, other = tmp_path / "c.json", replace(FITTED, facts=FITTED.facts | {"seed": 2})
    file.write_text("{}")
    with pytest.raises(UsageError, match="already exists"):
        check_calibration_file(file, MADE, force=False)
    save_calibration(FITTED, file, force=True)
    before = file.read_bytes()
    with pytest.raises(UsageError, match="already exists, with other content"):
        save_calibration(other, file, force=False)
    assert file.read_bytes() == before
    save_calibration(other, file, force=True)
    assert file.read_bytes() != before
