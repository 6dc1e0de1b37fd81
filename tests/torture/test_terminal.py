"""A sample of `torture/terminal.py`: the work is done whatever becomes of the terminal."""

from pathlib import Path

from torture import terminal
from torture.table import Task
from torture.terminal import ODD, terminal_points


def test_results_are_delivered_whatever_becomes_of_the_terminal(tmp_path: Path) -> None:
    predicting = (terminal.closed_output, terminal.reader_gone, terminal.ascii_only)
    [row] = terminal_points(Task(tmp_path, 60.0, 1), predicting, ())
    assert row.findings == []
    assert row.clean


def test_quick_commands_end_well_on_every_odd_terminal(tmp_path: Path) -> None:
    [row] = terminal_points(Task(tmp_path, 60.0, 1), (), ODD)
    assert row.findings == []
    assert row.clean
