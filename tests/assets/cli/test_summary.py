"""`virnucpro summary` and what `predict` writes across samples."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.assets.conftest import NAME, Finished
from virnucpro_assets.cli.main import app
from virnucpro_assets.cli.summary import end_of_batch
from virnucpro_core.engine.telemetry import read_progress
from virnucpro_core.errors import InputError, UsageError
from virnucpro_core.results.delivery import deliver
from virnucpro_core.samples.sample import register


@pytest.fixture
def site(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """The finished sample, and one that is only registered."""
    monkeypatch.setenv("VIRNUCPRO_HOME", finished.platform.home)
    file = finished.platform.folder / "other.fa"
    file.write_text(">a\nACGT\n")
    register(finished.platform.folder, "other", [file], finished.platform.sample_settings())
    return finished


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "summary.tsv").open(newline="") as stream:
        return {row["sample"]: row for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)}


def summary(*words: object) -> Result:
    return CliRunner().invoke(app, ["summary", *map(str, words)])


def test_all_samples_have_a_row_and_the_folder_can_be_taken_elsewhere(site: Finished, tmp_path: Path) -> None:
    out = tmp_path / "across"
    done = summary("--out", out)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == "2 samples: 1 called, 1 without results"
    assert str(out / "index.html") in done.output
    rows = rows_of(out)
    assert {name: row["state"] for name, row in rows.items()} == {NAME: "called", "other": "registered"}
    telemetry = [read_progress(file) for file in (site.sample.folder / "telemetry").glob("*.jsonl")]
    assert len(telemetry) == 4
    assert float(rows[NAME]["seconds"]) == pytest.approx(sum(p.seconds for p in telemetry if p), abs=0.06)
    moved = shutil.move(out, tmp_path / "moved")
    text = (Path(moved) / "index.html").read_text()
    assert f'href="reports/{NAME}.html"' in text
    report = (Path(moved) / "reports" / f"{NAME}.html").read_bytes()
    assert report == (site.sample.results / "report.html").read_bytes()
    assert summary("--out", moved).exit_code == 0


def test_named_samples_only_and_an_unknown_one_is_an_error_before_anything_is_written(
    site: Finished, tmp_path: Path
) -> None:
    assert summary(NAME, NAME, "-o", tmp_path / "one").exit_code == 0
    assert list(rows_of(tmp_path / "one")) == [NAME]
    done = summary(NAME, "nobody", "--out", tmp_path / "none")
    assert isinstance(done.exception, UsageError)
    assert not (tmp_path / "none").exists()


def test_a_damaged_report_is_not_copied_and_what_is_foreign_not_replaced(
    site: Finished, tmp_path: Path
) -> None:
    (site.sample.results / "report.html").write_text("changed")
    out = tmp_path / "across"
    out.mkdir()
    (out / "index.html").write_text("my page")
    done = summary("--out", out)
    assert isinstance(done.exception, UsageError)
    assert (out / "index.html").read_text() == "my page"
    assert summary("--out", out, "--force").exit_code == 0
    deliver(site.sample.results, tmp_path / "one")
    done = summary("--out", tmp_path / "one")  # it would replace that sample's own files for MultiQC
    assert f"holds the results of sample '{NAME}' itself; pages across samples need" in str(done.exception)
    row = rows_of(out)[NAME]
    assert (row["state"], row["records"]) == ("damaged", "")
    assert "predict the sample again" in row["reason"]
    assert not (out / "reports").exists()


def test_pages_and_reports_of_other_samples_are_neither_replaced_nor_sent_along(
    site: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "across"
    assert summary(NAME, "-o", out).exit_code == 0
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    done = summary("other", "-o", out)
    assert f"holds a page or report of sample '{NAME}', which the new page would not show" in str(
        done.exception
    )
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    assert summary("-o", out).exit_code == 0  # all samples: the page grows
    assert list(rows_of(out)) == [NAME, "other"]
    assert summary(NAME, "-o", out).exit_code == 0  # the other one had no results on the page
    (out / "reports" / "mine.txt").write_text("mine")
    done = summary("other", "-o", out, "--force")
    assert f"deleted {out}/reports/{NAME}.html: it was of results" in done.output
    assert [file.name for file in (out / "reports").iterdir()] == ["mine.txt"]
    assert list(rows_of(out)) == ["other"]


def test_the_page_of_a_folder_of_results_and_a_summary_do_not_replace_each_other(
    site: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "results"
    deliver(site.sample.results, out / NAME)
    end_of_batch(site.platform.folder, out, 1, {})
    done = summary("other", "-o", out)
    assert f"holds a page or report of sample '{NAME}'" in str(done.exception)
    assert list(rows_of(out)) == [NAME]
    assert summary("-o", out).exit_code == 0
    end_of_batch(site.platform.folder, out, 1, {})
    shutil.rmtree(out / NAME)  # now only the copy of its report is left
    with pytest.raises(UsageError, match=f"report of sample '{NAME}'"):
        end_of_batch(site.platform.folder, out, 1, {})
    said = end_of_batch(site.platform.folder, out, 1, {}, force=True)
    assert said[0].startswith(f"deleted {out}/reports/{NAME}.html")
    assert not list((out / "reports").iterdir())


def test_a_folder_of_results_shows_all_that_is_in_it_and_what_failed(site: Finished, tmp_path: Path) -> None:
    out = tmp_path / "results"
    deliver(site.sample.results, out / NAME)
    deliver(site.sample.results, out / "of another home")
    run = out / "of another home" / "run.json"
    facts = json.loads(run.read_text())
    run.write_text(json.dumps(facts | {"sample": "elsewhere"}))
    (out / "cut").mkdir()
    (out / "cut" / "run.json").write_text("{")
    failures = {"bad": InputError("no good", path=Path("bad.fa"), line=3)}
    said = end_of_batch(site.platform.folder, out, 2, failures)
    assert said[-1] == "1 called, 1 failed"
    rows = rows_of(out)
    assert {name: row["state"] for name, row in rows.items()} == {
        "bad": "failed", "cut": "damaged", "elsewhere": "called", NAME: "called",
    }  # fmt: skip
    assert "line 3" in rows["bad"]["reason"]
    assert rows["elsewhere"]["seconds"] == ""
    assert float(rows[NAME]["seconds"]) > 0
    text = (out / "index.html").read_text()
    assert f'href="./{NAME}/report.html"' in text
    assert 'href="./of%20another%20home/report.html"' in text
