"""The page as people meet it: opened in a browser, with ids that try to break it."""

# ruff: noqa: RUF001 - the page writes ranges with an en dash
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.browser import chromium
from tests.support.scored import Scored, scored_sample, sequence
from virnucpro_core.results import report
from virnucpro_core.results.record_calls import call_records
from virnucpro_core.results.regions import RegionRule, find_regions

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = (
    "<img/src=x/onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "=cmd()",
    "../../x",
    "\"'`${alert(1)}&amp;",
    "שלום",
    "javascript:alert(1)",
    "__proto__",
)
NOTE = "Scores of the demo profile carry no <b>biological</b> meaning."


def fasta() -> str:
    """The hostile ids on long records, many short ones, and some that cannot be called."""
    entries = [
        f">{name} \u202eabout\u2028<b>{name}</b>\n{sequence(400 + 10 * k, k)}"
        for k, name in enumerate(HOSTILE)
    ]
    entries += [f">read_{k}\n{sequence(70 + k, 100 + k)}" for k in range(40)]
    entries += [f">gap_{k} unknown bases\n{'N' * 80}" for k in range(3)] + [">none"]
    return "\n".join(entries) + "\n"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    return scored_sample(tmp_path_factory.mktemp("sample"), fasta())


@pytest.fixture(scope="module")
def results(sample: Scored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results")
    sample.write(out, note=NOTE)
    return out


@pytest.fixture(scope="module")
def rows(results: Path) -> list[dict[str, str]]:
    with (results / "contigs.tsv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: "Browser", results: Path) -> Iterator["Page"]:
    """The open page; at the end nothing may have been fetched, shouted or broken."""
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    events: list[str] = []
    tab.on("request", lambda request: events.append(f"request {request.url}"))
    tab.on("dialog", lambda dialog: events.append(f"dialog {dialog.message}"))
    tab.on("pageerror", lambda error: events.append(f"error {error}"))
    tab.on("console", lambda message: events.append(f"console {message.text}"))
    url = (results / "report.html").as_uri()
    tab.goto(url)
    yield tab
    tab.wait_for_timeout(50)
    tab.close()
    assert events == [f"request {url}"]


def column(page: "Page", name: str) -> list[str]:
    titles = [re.sub(r"\W+$", "", text) for text in page.locator("#table th").all_inner_texts()]
    return page.locator(f"#table tbody td:nth-child({titles.index(name) + 1})").all_inner_texts()


def all_pages(page: "Page", name: str) -> list[str]:
    found = column(page, name)
    while page.locator("#next").is_enabled():
        page.click("#next")
        found += column(page, name)
    return found


@pytest.mark.browser
def test_counts_and_ids_equal_the_table(page: "Page", rows: list[dict[str, str]]) -> None:
    headline = [int(text) for text in page.locator("dl.figures b").all_inner_texts()]
    assert headline == [sum(row["call"] == call for row in rows) for call in ("virus", "others", "no_call")]
    assert page.inner_text("#range") == f"1–25 of {len(rows)} records"
    names = [text.split("\n")[0] for text in all_pages(page, "Record")]
    assert sorted(names) == sorted(row["record_id"] for row in rows)
    why = page.locator(".facts.numbers td").all_inner_texts()
    assert why == ["no codon of A, C, G, T only", "3", "empty record", "1"]


@pytest.mark.browser
def test_ids_are_text_and_nothing_runs(page: "Page") -> None:
    assert page.locator("#table img, #figures img, #table b, #figures b, main script").count() == 0
    assert page.locator("aside.note").inner_text().endswith(NOTE)
    page.get_by_role("button", name="Show all 9 tracks").click()
    tracks = page.locator(".track .name bdi").all_inner_texts()
    assert sorted(tracks) == sorted(HOSTILE)
    page.fill("#find", HOSTILE[1])
    assert column(page, "Record")[0].split("\n")[0] == HOSTILE[1]
    assert "\\u202e" in column(page, "Record")[0]


@pytest.mark.browser
def test_the_policy_stops_markup_that_was_let_in(browser: "Browser", results: Path) -> None:
    tab = browser.new_page()
    tab.goto((results / "report.html").as_uri())
    tab.evaluate(
        """() => {
            document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.ran = 1'>");
            const script = document.createElement("script");
            script.textContent = "window.ran = 1";
            document.body.append(script);
        }"""
    )
    tab.wait_for_timeout(100)
    assert tab.evaluate("window.ran") is None
    tab.close()


@pytest.mark.browser
def test_sorting_by_mouse_and_keyboard(page: "Page", rows: list[dict[str, str]]) -> None:
    as_listed = all_pages(page, "Record")
    header = page.get_by_role("columnheader", name="Score", exact=True)
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    scores = all_pages(page, "Score")
    called = [float(text) for text in scores if text != "–"]
    assert called == sorted(called, reverse=True)
    assert len(called) == sum(row["score"] != "" for row in rows)
    assert scores[len(called) :] == ["–"] * (len(rows) - len(called))

    page.get_by_role("button", name="Length", exact=True).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") is None
    assert page.locator("#table th[aria-sort]").get_attribute("aria-sort") == "ascending"
    assert [int(text.replace(",", "")) for text in all_pages(page, "Length")] == sorted(
        int(r["length"]) for r in rows
    )
    page.get_by_role("button", name="Length", exact=True).press("Enter")
    assert page.locator("#table th[aria-sort]").count() == 0
    assert all_pages(page, "Record") == as_listed


@pytest.mark.browser
def test_filter_and_search(page: "Page", rows: list[dict[str, str]]) -> None:
    page.locator("#filter button", has_text="no call").click()
    assert column(page, "Call") == ["no call"] * sum(row["call"] == "no_call" for row in rows)
    page.fill("#find", "UNKNOWN bases")
    assert page.inner_text("#range") == "1–3 of 3 records"
    page.fill("#find", "nothing like this")
    assert page.inner_text("#range") == "no record matches"


@pytest.mark.browser
def test_a_track_reads_out_the_chunk_under_the_pointer(page: "Page", sample: Scored) -> None:
    track = page.locator(".track").first
    svg = track.locator("svg")
    svg.focus()
    readings = []
    for _ in range(7):
        page.keyboard.press("ArrowRight")
        readings.append(track.locator(".readout").inner_text())
    number = sample.chunks.record_ids(0, sample.chunks.n_records).index(track.locator("bdi").inner_text())
    lo, hi = sample.chunks.chunk_offsets[number : number + 2].tolist()
    windows = sample.chunks.windows(lo, hi)
    places = [
        f"{a + 1}–{a + n}" for a, n in zip(windows.start.tolist(), windows.length.tolist(), strict=True)
    ]
    assert [text.split(" · ")[1] for text in readings] == places[:7]
    box = svg.bounding_box()
    assert box is not None
    svg.hover(position={"x": box["width"] - 3, "y": 20})
    # The browser hands pointer moves to the page with its next frame.
    track.locator(".readout", has_text=f"chunk {hi - lo} · {places[-1]}").wait_for()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_is_wider_than_the_screen(browser: "Browser", results: Path, width: int) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 800})
    tab.goto((results / "report.html").as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.close()


def embedded(path: Path) -> dict[str, Any]:
    text = path.read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return dict(json.loads(data))


def test_a_large_sample_shows_a_part_and_says_which(
    sample: Scored, rows: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "REPORT_ROWS", (6, 5, 2))
    monkeypatch.setattr(report, "TRACKS", 4)
    sample.write(tmp_path)
    data, text = embedded(tmp_path / "report.html"), (tmp_path / "report.html").read_text()
    shown = []
    for call, limit in (("virus", 6), ("others", 5), ("no_call", 2)):
        mine = [k for k, row in enumerate(rows) if row["call"] == call]
        mine.sort(key=lambda k: (-int(rows[k]["length"]), -float(rows[k]["score"] or 0), k))
        shown += mine[:limit]
        noun = "without a call" if call == "no_call" else f"called {call}"
        assert f"{limit} of {len(mine)} {noun}" in text
    assert [row[0] - 1 for row in data["rows"]] == shown
    assert len(data["tracks"]) == 4
    assert f"Shown are 4 of the {len(HOSTILE)} records" in text


def test_selection_does_not_depend_on_blocks(
    sample: Scored, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("virnucpro_core.results.record_calls.BLOCK_RECORDS", 3)
    sample.write(tmp_path, note=NOTE)
    assert (tmp_path / "report.html").read_bytes() == (results / "report.html").read_bytes()


@pytest.mark.browser
def test_regions_are_drawn_and_a_provirus_candidate_is_named_and_comes_first(
    browser: "Browser", tmp_path: Path
) -> None:
    text = f">phage\n{sequence(3000, 1)}\n>host\n{sequence(2400, 2)}\n>none\n{sequence(2400, 3)}\n"
    made = scored_sample(tmp_path, text, chunk_size=100)
    windows = made.chunks.windows(0, made.chunks.n_chunks)
    virus = np.full(made.frames.n_unique, 0.02, np.float32)
    for chunk, unique in zip(
        made.frames.frame_chunk.tolist(), made.frames.frame_unique.tolist(), strict=True
    ):
        record, number = windows.record[chunk], windows.number[chunk]
        if record == 0 or (record == 1 and 6 <= number < 12):
            virus[unique] = 0.98
    Scored(made.chunks, made.frames, np.stack([1 - virus, virus], axis=1)).write(tmp_path / "out")
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    tab.goto((tmp_path / "out" / "report.html").as_uri())
    assert "2 viral regions with 3.6 kb were found, of them 1 provirus candidate" in " ".join(
        tab.inner_text("p.lead").split()
    )
    tracks = tab.locator(".track")
    assert tracks.locator(".name bdi").all_inner_texts() == ["host", "phage", "none"]
    assert [tracks.nth(k).locator("g.region").count() for k in range(3)] == [1, 1, 0]
    assert tracks.nth(0).locator("g.region text").all_text_contents() == ["provirus candidate"]
    title = tracks.nth(0).locator("g.region title").text_content()
    assert title == "provirus candidate: 601–1,200, 600 bases, score 0.9800"
    # The bracket lies above the bars of its chunks: a quarter to half of the record.
    plot, bracket = (tracks.nth(0).locator(css).bounding_box() for css in ("rect.plot", "g.region path"))
    assert plot is not None
    assert bracket is not None
    assert (bracket["x"] - plot["x"]) / plot["width"] == pytest.approx(0.25, abs=0.01)
    assert bracket["width"] / plot["width"] == pytest.approx(0.25, abs=0.01)
    assert bracket["y"] < plot["y"]
    tab.close()


def test_a_long_track_is_drawn_in_means(sample: Scored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "TRACK_BARS", 3)
    s = np.linspace(0, 1, sample.chunks.n_chunks)
    s[1] = np.nan
    selection = report.Selection(sample.chunks)
    for block in call_records(sample.chunks, sample.frames.frame_chunk, s, cutoff=0.5):
        regions = find_regions(sample.chunks, block, RegionRule(min_support=10**6))
        selection.add(report.pick(sample.chunks, block, regions))
    (track,) = [track for track in selection.tracks if track["number"] == 1]
    n = track["chunks"]
    windows = sample.chunks.windows(0, n)
    assert (track["step"], track["start"][0], track["end"][-1]) == (-(-n // 3), 0, track["length"])
    assert track["end"][0] == windows.start[track["step"] - 1] + windows.length[track["step"] - 1]
    assert track["s"][0] == pytest.approx(np.nanmean(s[: track["step"]]), abs=1e-4)


@given(
    st.recursive(
        st.text() | st.integers() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_script_json_reads_back_and_cannot_end_its_element(value: Any) -> None:
    text = str(report.script_json(value))
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


@given(st.text())
def test_page_text_has_no_direction_or_control_characters(text: str) -> None:
    assert report.page_text(text).isprintable()
