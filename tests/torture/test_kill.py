"""The campaigns of `make torture`, about a minute of them: a few kills, one pair."""

from pathlib import Path

import pytest

from torture.folder import folder_points
from torture.kill import kill_points
from torture.launched import strike_once
from torture.table import BEGIN, END, Row, Task, as_json, shown, write_figures
from torture.twice import twice_points

SEED = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for both campaigns, which share the undisturbed prediction in it."""
    return tmp_path_factory.mktemp("torture")


@pytest.mark.timeout(600)
def test_killed_predictions_resume_to_the_same_bytes_and_leave_nothing(folder: Path) -> None:
    rows = kill_points(Task(folder, seconds=400, seed=SEED), most=4)
    assert [finding for row in rows for finding in row.findings] == []
    assert sum(row.points for row in rows) == 4
    assert all(row.lost == row.wrong == row.tracebacks == 0 for row in rows)


@pytest.mark.timeout(300)
def test_of_two_predictions_of_a_sample_one_works_and_the_other_says_so(folder: Path) -> None:
    [row] = twice_points(Task(folder, seconds=1, seed=SEED), most=1)
    assert row.findings == []
    assert row.clean


@pytest.mark.timeout(300)
def test_a_struck_prediction_of_a_folder_of_small_samples_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    [row] = folder_points(Task(tmp_path, seconds=1, seed=SEED), most=1)
    assert row.findings == []
    assert row.clean


def test_rows_take_their_place_between_the_marks_and_a_campaign_without_points_is_not_clean(
    tmp_path: Path,
) -> None:
    document = tmp_path / "durability.md"
    document.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    write_figures(document, [Row("kills", points=7), Row("pairs", points=3)], "old")
    rows = [Row("kills", points=1_200, note="x", origin="y"), Row("soak", lost=1)]
    write_figures(document, rows, "how")
    text = document.read_text()
    assert text.startswith(f"before\n{BEGIN}\nhow\n")
    assert text.endswith(f"{END}\nafter\n")
    assert [line.split(" |")[0] for line in text.splitlines() if line.startswith("| ")] == [
        "| campaign", "| ---", "| kills", "| pairs", "| soak",
    ]  # fmt: skip
    assert "| kills | 1,200 | 0 | 0 | 0 | 0 s | x | y |" in text
    assert shown(rows).splitlines()[2] in text
    assert [row.clean for row in rows] == [True, False]
    assert not Row("nothing").clean
    assert '"clean": false' in as_json(rows, seed=1)


def test_a_run_that_is_terminated_in_the_web_ui_says_canceled_and_goes_on_when_launched_again(
    folder: Path,
) -> None:
    assert strike_once(folder, "terminate", seed=SEED) == ("CANCELED", [])
