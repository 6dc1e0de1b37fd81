"""One table and one page for several samples: numbers of run.json, names escaped, and a section in a real MultiQC."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.browser import chromium
from tests.support.scored import scored_sample, sequence
from virnucpro_core.errors import UsageError
from virnucpro_core.results.batch import COLUMNS, INDEX, SUMMARY, BatchRow, check_batch_out, write_batch
from virnucpro_core.results.folder import RUN
from virnucpro_core.results.multiqc import MULTIQC_FILES

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "<img src=x onerror=alert(1)>\t\u202eevil"
REASON = 'bad.fa: line 3: "<script>alert(1)</script>"\nand more'


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two samples in their folders, and the pages above them, with a failed and a hostile one."""
    out = tmp_path_factory.mktemp("out")
    rows = []
    for name, records in (("one", 3), ("two", 5)):
        fasta = "".join(f">r{k}\n{sequence(200 + 50 * k, k)}\n" for k in range(records)) + ">gap\nNNNN\n"
        folder = tmp_path_factory.mktemp(name)
        sample = scored_sample(folder, fasta, seed=records)
        sample.write(out / name, note="Scores carry no <b>meaning</b>.", sample=name)
        facts = json.loads((out / name / RUN).read_text())
        rows.append(BatchRow(name, "called", facts, 12.25 * records, f"./{name}/report.html"))
    rows.append(BatchRow(HOSTILE, "failed", reason=REASON))
    write_batch(out, rows)
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as running:
        yield running


def test_a_row_has_the_numbers_of_its_run(batch: Path) -> None:
    rows = table(batch / SUMMARY)
    assert list(rows[0]) == list(COLUMNS)
    assert [row["state"] for row in rows] == ["called", "called", "failed"]
    for row in rows[:2]:
        facts = json.loads((batch / row["sample"] / RUN).read_text())
        contigs = table(batch / row["sample"] / "contigs.tsv")
        assert int(row["records"]) == len(contigs)
        assert int(row["bases"]) == sum(int(r["length"]) for r in contigs)
        for call in ("virus", "others", "no_call"):
            mine = [r for r in contigs if r["call"] == call]
            assert int(row[call]) == len(mine)
            assert float(row[f"{call}_fraction"]) == pytest.approx(len(mine) / len(contigs), abs=1e-6)
            assert int(row[f"{call}_bases"]) == sum(int(r["length"]) for r in mine)
        assert int(row["regions"]) == len((batch / row["sample"] / "regions.bed").read_text().splitlines())
        assert json.loads(row["settings"]) == facts["settings"]
        assert json.loads(row["versions"]) == facts["versions"]
        assert json.loads(row["files"]) == [file["name"] for file in facts["inputs"]]
    assert [row["seconds"] for row in rows] == ["36.8", "61.2", ""]


def test_hostile_names_and_reasons_are_one_cell(batch: Path) -> None:
    last = table(batch / SUMMARY)[-1]
    assert last["sample"] == "<img src=x onerror=alert(1)>\\t\\u202eevil"
    assert last["reason"].endswith("\\nand more")
    assert set(last.values()) == {last["sample"], "failed", last["reason"], ""}


@pytest.mark.browser
def test_the_page_shows_all_samples_loads_nothing_and_links_the_reports(
    browser: "Browser", batch: Path
) -> None:
    tab = browser.new_page(viewport={"width": 1200, "height": 800})
    events: list[str] = []
    tab.on("request", lambda request: events.append(request.url))
    tab.on("dialog", lambda dialog: events.append(f"dialog {dialog.message}"))
    tab.on("console", lambda message: events.append(f"console {message.text}"))
    tab.goto((batch / INDEX).as_uri())
    assert tab.locator("#samples-title ~ .scroll tbody tr").count() == 3
    assert tab.locator("main img, main script").count() == 0
    assert tab.inner_text("aside.note") == "Scores carry no <b>meaning</b>."
    names = [text.split("\n")[0] for text in tab.locator("td.id-cell").all_inner_texts()]
    assert names == ["one", "two", "<img src=x onerror=alert(1)>\\t\\u202eevil"]
    rows = table(batch / SUMMARY)
    shown = [int(text.replace(",", "")) for text in tab.locator("dl.figures b").all_inner_texts()]
    assert shown == [sum(int(row[call] or 0) for row in rows) for call in ("virus", "others", "no_call")]
    assert events == [(batch / INDEX).as_uri()]
    tab.get_by_role("link", name="two").click()
    assert tab.inner_text("h1") == "two"
    tab.set_viewport_size({"width": 390, "height": 800})
    tab.go_back()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.close()


def test_a_real_multiqc_shows_every_sample_once(batch: Path, tmp_path: Path) -> None:
    """The samples' own files and those of the folder name the same samples: they are joined, not added up."""
    pytest.importorskip("multiqc")
    words = ["--no-version-check", "--no-ansi", "-o", str(tmp_path / "qc"), str(batch)]
    environment = dict(os.environ) | {"HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "multiqc", *words],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row["sample"]: row for row in table(batch / SUMMARY)[:2]}
    data = tmp_path / "qc" / "multiqc_data"
    calls = table(data / "multiqc_virnucpro_calls_plot.txt")
    assert {
        row["Sample"]: {c: int(float(row[c])) for c in ("virus", "others", "no_call")} for row in calls
    } == {name: {c: int(row[c]) for c in ("virus", "others", "no_call")} for name, row in rows.items()}
    general = {row["Sample"]: row for row in table(data / "multiqc_general_stats.txt")}
    assert set(general) == set(rows)
    for name, row in general.items():
        [percent] = [value for column, value in row.items() if column.endswith("virus_percent")]
        assert float(percent) == pytest.approx(100 * float(rows[name]["virus_fraction"]), abs=1e-3)
    assert "VirNucPro" in (tmp_path / "qc" / "multiqc_report.html").read_text()


def test_the_same_rows_give_the_same_bytes_and_only_own_files_are_replaced(
    batch: Path, tmp_path: Path
) -> None:
    facts: dict[str, Any] = json.loads((batch / "one" / RUN).read_text())
    rows = [BatchRow("one", "called", facts)]
    for _ in range(2):
        check_batch_out(tmp_path)
        write_batch(tmp_path, rows)
    names = {SUMMARY, INDEX, *MULTIQC_FILES}
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(before) == names
    write_batch(tmp_path, rows)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    for name in names:
        (tmp_path / name).write_text("<h1>mine</h1>")
        with pytest.raises(UsageError, match=re.escape(f"holds {name}, which was not written by VirNucPro")):
            check_batch_out(tmp_path)
        check_batch_out(tmp_path, force=True)
        (tmp_path / name).write_bytes(before[name])
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "x.html").write_text("mine")
    with pytest.raises(UsageError, match=r"x\.html"):
        check_batch_out(tmp_path)


@pytest.mark.parametrize("samples", [0, 1, 29, 30, 300])
def test_own_files_are_known_again_whatever_their_size(samples: int, batch: Path, tmp_path: Path) -> None:
    facts: dict[str, Any] = json.loads((batch / "one" / RUN).read_text())
    names = [f"{'x' * 58}-{n:05d}" for n in range(samples)]
    write_batch(tmp_path, [BatchRow(name, "called", facts, report=f"./{name}/report.html") for name in names])
    check_batch_out(tmp_path)
    for (
        name
    ) in MULTIQC_FILES:  # a sample cannot pass another's file off as ours, nor can a mark in the middle
        file = tmp_path / name
        mark = file.read_text().split("\n ")[-4:]
        file.write_text("x" * 10_000 + "\n ".join(mark) + "x" * 10_000)
        with pytest.raises(UsageError, match=name):
            check_batch_out(tmp_path)
        file.write_text(json.dumps({"data": {"virnucpro_calls": 1, "virnucpro_general": 1}}))
        with pytest.raises(UsageError, match=name):
            check_batch_out(tmp_path)
        write_batch(tmp_path, [])


def test_results_of_the_first_version_have_a_row_without_regions(tmp_path: Path) -> None:
    old = Path(__file__).parents[2] / "data/home_0_1_0/samples/kept/results" / RUN
    write_batch(tmp_path, [BatchRow("kept", "called", json.loads(old.read_text()))])
    [row] = table(tmp_path / SUMMARY)
    assert (row["records"], row["virus"], row["regions"]) == ("2", "1", "")


def test_no_sample_at_all_gives_an_empty_table_and_a_page(tmp_path: Path) -> None:
    write_batch(tmp_path, [])
    assert table(tmp_path / SUMMARY) == []
    assert "no samples" in (tmp_path / INDEX).read_text()
