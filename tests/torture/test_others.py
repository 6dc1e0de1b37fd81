"""A sample of `torture/others.py`: another project's runs on the same instance are left as they are."""

from pathlib import Path

from torture.others import others_points
from torture.table import Task


def test_runs_of_another_project_stay_as_they_are(tmp_path: Path) -> None:
    [row] = others_points(Task(tmp_path, 60.0, 1), daemon_seconds=0)
    assert row.findings == []
    assert row.clean
