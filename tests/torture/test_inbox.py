"""A few of the inboxes of `torture/inbox.py`."""

from pathlib import Path

from torture.inbox import run_inboxes


def test_nothing_of_a_hostile_inbox_is_lost_or_told_again_and_again(tmp_path: Path) -> None:
    row = run_inboxes(tmp_path, seconds=60, seed=7, points=40)
    assert row.findings == []
    assert row.points >= 40
