"""A sample of `torture/first_start.py`: job arrays in a home that is not there, and in a half-made one."""

from pathlib import Path

from torture.first_start import first_start_points
from torture.table import Task


def test_many_first_starts_at_once_all_succeed(tmp_path: Path) -> None:
    [row] = first_start_points(Task(tmp_path, 120.0, 5), most=1)
    assert row.findings == []
    assert row.clean
