"""`python -m benchmarks.compare`: what counts as moved, what as worse, and which files are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import UnlikeError, better, compare, figures, main
from tests.support import ROOT

KEPT = ROOT / "benchmarks" / "results"
RESULT: dict[str, Any] = {
    "benchmark": "b",
    "cpu": "x",
    "rows": [
        {"model": "m", "what": "ours", "tokens_s": 100.0, "load_s": 2.0, "share": "0.9"},
        {"model": "m", "what": "theirs", "tokens_s": 50.0, "load_s": 4.0, "share": "0.45"},
    ],
    "total_seconds": 10.0,
}


def changed(**row: Any) -> dict[str, Any]:
    copy = json.loads(json.dumps(RESULT))
    copy["rows"][0] |= row
    return dict(copy)


def verdicts(new: dict[str, Any], *, ratios: bool = False) -> dict[str, str]:
    changes = compare(RESULT, new, noise=0.05, ratios=ratios)
    return {c.figure: c.verdict for c in changes if c.moved}


def test_rows_are_matched_by_their_words_and_not_by_their_place() -> None:
    turned = json.loads(json.dumps(RESULT))
    turned["rows"].reverse()
    assert verdicts(turned) == {}
    assert len(compare(RESULT, turned, noise=0.05, ratios=False)) == 7


def test_more_speed_is_better_and_more_time_is_worse() -> None:
    assert verdicts(changed(tokens_s=120.0, load_s=3.0)) == {
        "m, ours tokens_s": "better",
        "m, ours load_s": "worse",
    }
    assert verdicts(changed(tokens_s=104.0)) == {}


def test_kept_repeats_are_the_noise() -> None:
    assert verdicts(changed(tokens_s=110.0, tokens_s_repeats=[100.0, 110.0, 121.0])) == {}


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("tokens_per_second", 1),
        ("seconds", -1),
        ("io_wait_p99_ms", -1),
        ("share_of_linear", 1),
        ("peak_gib", -1),
        ("frames", 0),
    ],
)
def test_the_name_of_a_figure_tells_which_way_is_better(name: str, way: int) -> None:
    assert better(f"row {name}") == way


def test_other_devices_are_refused_and_their_shares_are_compared_on_request() -> None:
    other = changed(tokens_s=1.0, share="0.5") | {"cpu": "y"}
    with pytest.raises(UnlikeError, match="--ratios"):
        compare(RESULT, other, noise=0.05, ratios=False)
    assert verdicts(other, ratios=True) == {"m, ours share": "worse"}
    with pytest.raises(UnlikeError, match="different benchmarks"):
        compare(RESULT, RESULT | {"benchmark": "c"}, noise=0.05, ratios=False)


@pytest.mark.parametrize("file", sorted(KEPT.glob("*.json")), ids=lambda f: f.stem)
def test_every_kept_result_has_figures_and_equals_itself(file: Path) -> None:
    result = json.loads(file.read_text())
    names = [name for name, _, _ in figures(result)]
    assert names
    assert not [c for c in compare(result, result, noise=0.0, ratios=False) if c.moved]


def test_the_command_prints_a_table_and_a_last_line_of_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, result in (("old", RESULT), ("new", changed(load_s=3.0))):
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    words = [str(tmp_path / "old.json"), str(tmp_path / "new.json")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("load_s" in line and "worse" in line for line in lines)
    assert json.loads(lines[-1]) == {"compared": 7, "moved": ["m, ours load_s"], "worse": ["m, ours load_s"]}
    assert main([*words, "--fail"]) == 1
    assert main([words[0], str(tmp_path / "none.json")]) == 2
