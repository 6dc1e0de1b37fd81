"""A sample of `torture/hostile.py`: nothing is imported from where the user stands."""

from pathlib import Path

from torture import hostile
from torture.hostile import hostile_points
from torture.table import Task


def test_no_command_imports_from_the_working_folder(tmp_path: Path) -> None:
    checks = (hostile._batch, hostile._embed, hostile._quick, hostile._doctor, hostile._module)
    [row] = hostile_points(Task(tmp_path, 60.0, 1), checks)
    assert row.findings == []
    assert row.clean


def test_a_lane_and_the_web_ui_import_nothing_from_it_either(tmp_path: Path) -> None:
    [row] = hostile_points(Task(tmp_path, 60.0, 1), (hostile._lane, hostile._web_ui))
    assert row.findings == []
    assert row.clean
