"""What is read from a results folder, and what the page and the table show of it."""

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.browser import chromium
from tests.support.scored import Scored as Sample
from tests.support.scored import scored_sample, sequence
from virnucpro_core.errors import StoreError, UsageError
from virnucpro_core.evaluation.evaluation import (
    EvaluationSettings,
    evaluate,
    length_ranges,
    save,
)
from virnucpro_core.evaluation.metrics import NAMES
from virnucpro_core.evaluation.page import write_page
from virnucpro_core.evaluation.scores import Scored, read_scored
from virnucpro_core.results.calibration import NOT_COVERED, Calibration, Curve
from virnucpro_core.sequences.labelled import Truth

GROUPS = ("<script>alert(1)</script>", "a & b", '"quoted"', "=cmd()")
FASTA = "".join(f">r{k}_chunk_{k}\n{sequence(40 + 29 * k, k)}\n" for k in range(12)) + ">none\nAC\n"
TRUTH = {f"r{k}_chunk_{k}": Truth(k % 2, GROUPS[k % 4]) for k in range(12)} | {"none": Truth(1, "alone")}
RUN = {
    "sample": "<i>sample</i>",
    "profile": "demo",
    "note": "The demo's scores carry no biological meaning.",
    "about": "",
    "settings": {"chunk_size": 60},
    "versions": {},
    "digests": {},
    "data": {"<b>.fa": "00"},
}
SETTINGS = EvaluationSettings(length_bins=(100, 200), bootstrap=10)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return scored_sample(tmp_path_factory.mktemp("sample"), FASTA)


@pytest.fixture(scope="module")
def results(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results")
    sample.write(out)
    return out


@pytest.fixture(scope="module")
def scored(results: Path) -> Scored:
    return read_scored(results, TRUTH)


def test_every_record_and_every_scored_chunk_is_read(sample: Sample, results: Path, scored: Scored) -> None:
    with (results / "contigs.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert scored.records.length.tolist() == [int(row["length"]) for row in rows]
    assert scored.records.label.tolist() == [one.label for one in TRUTH.values()]
    assert [scored.groups[k] for k in scored.records.group] == [one.group for one in TRUTH.values()]
    assert math.isnan(scored.records.score[-1])
    assert len(scored.chunks.score) == sum(int(row["chunks_scored"]) for row in rows)
    assert scored.chunks_without == sum(int(row["chunks"]) - int(row["chunks_scored"]) for row in rows)
    for row, score in zip(rows[:-1], scored.records.score, strict=False):
        assert score == float(row["score"])
        mine = scored.chunks.score[scored.chunks.length == int(row["length"])]
        assert mine.mean() == pytest.approx(score, rel=1e-12)
    assert scored.probability is scored.fdr is None


def test_probabilities_are_read_where_there_are_some(sample: Sample, tmp_path: Path) -> None:
    curves = (Curve(0, 100), Curve(100, 0, (0.0, 1.0), (-3.0, 3.0)))
    sample.write(tmp_path, calibration=Calibration("c" * 64, 60, "platt", curves, {}), prior=0.3)
    found = read_scored(tmp_path, TRUTH)
    assert found.probability is not None
    assert (np.isnan(found.probability) == (found.records.length < 100)).all()
    evaluation = evaluate(found, SETTINGS, RUN)
    assert [one.name for one in evaluation.reliability] == ["score", "probability"]
    assert evaluation.shares["prior"] == 0.3
    assert evaluation.shares["prior_words"] == "given by --prior"
    assert found.fdr is not None
    label, p = found.records.label, found.probability
    for way, table, most in zip(evaluation.callings, evaluation.confusion, (None, 0.05, 0.2), strict=True):
        assert way.name == table.name
        called = found.records.score >= 0.5 if most is None else found.fdr <= most
        assert called.sum() == table.virus_virus + table.others_virus
        judged = called & ~np.isnan(p)
        assert way.called_without == (called & np.isnan(p)).sum()
        if judged.any():  # both rates are of the same records
            assert way.false.value == pytest.approx((label[judged] == 0).mean())
            assert way.expected_false == pytest.approx((1 - p)[judged].mean())
            assert most is None or way.expected_false <= most
        else:
            assert way.false.value is way.expected_false is None
        assert way.found.value == pytest.approx(table.virus_virus / (table.virus_virus + table.virus_others))
        assert way.found_of_all.value == pytest.approx(table.virus_virus / (label == 1).sum())
    assert evaluation.callings[0].called_without > 0
    missing = int((np.isnan(p) & ~np.isnan(found.records.score)).sum())
    assert (evaluation.without_probability, evaluation.no_probability) == (missing, NOT_COVERED)
    of_score, of_probability = evaluation.reliability
    assert of_score.records == of_probability.records == (~np.isnan(p)).sum()
    covered = found.records.where(~np.isnan(p))
    assert of_score.brier == pytest.approx(((covered.score - covered.label) ** 2).mean())
    write_page(tmp_path / "page.html", evaluation)
    text = " ".join((tmp_path / "page.html").read_text().split())
    assert "for a share (prior) of 0.3, given by --prior" in text
    assert "A virus without a call counts as not found" in text
    assert (
        f"{missing} records have a score but no probability (the calibration does not cover this length)"
        in text
    )
    assert "called virus without a probability" in text
    assert f"{of_score.records} records</span>" in text
    save(evaluation, tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text())["shares"]["prior"] == 0.3
    rows = [line.split("\t")[:4] for line in (tmp_path / "evaluation.tsv").read_text().splitlines()]
    assert ["calls", "cut-off 0.5", "found_of_all_virus"] in [row[:3] for row in rows]
    assert "expected_false_discovery_rate" in {row[2] for row in rows}
    assert ["calls", "cut-off 0.5", "called_virus_without_probability"] in [row[:3] for row in rows]
    for one in evaluation.confusion:
        assert sum(getattr(one, name) for name in one.__dataclass_fields__ if name != "name") == len(TRUTH)


def test_a_calibration_that_covers_nothing(sample: Sample, tmp_path: Path) -> None:
    curves = (Curve(0, 900), Curve(900, 0, (0.0, 1.0), (-3.0, 3.0)))
    sample.write(tmp_path, calibration=Calibration("c" * 64, 60, "platt", curves, {}), prior=0.3)
    evaluation = evaluate(read_scored(tmp_path, TRUTH), SETTINGS, RUN)
    way = evaluation.callings[0]
    assert (way.false.value, way.expected_false) == (None, None)
    assert way.false.reason == "nothing that is called virus has a probability"
    assert evaluation.reliability[0].records == len(TRUTH) - 1
    write_page(tmp_path / "page.html", evaluation)
    save(evaluation, tmp_path)
    with (tmp_path / "evaluation.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    expected = [row for row in rows if row["measure"] == "expected_false_discovery_rate"]
    assert expected[0]["reason"] == "nothing that is called virus has a probability"
    assert expected[1]["reason"] == "nothing is called virus"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"calibration": "none"}, "the calibration was left out by --calibration none"),
        ({"calibration": ""}, "this classifier has no calibration"),
        ({}, "this classifier has no calibration"),
    ],
)
def test_the_page_says_why_there_is_no_probability(
    scored: Scored, tmp_path: Path, settings: dict[str, str], why: str
) -> None:
    write_page(tmp_path / "page.html", evaluate(scored, SETTINGS, RUN | {"settings": settings}))
    text = " ".join((tmp_path / "page.html").read_text().split())
    assert f"need a calibration; {why}. <code>virnucpro calibrate</code>" in text
    assert f"not defined: {why}" in text
    assert "without a probability" not in text


def test_a_part_without_one_of_the_classes_says_so(scored: Scored) -> None:
    evaluation = evaluate(
        replace(scored, records=scored.records.where(scored.records.label == 1)), SETTINGS, RUN
    )
    assert evaluation.records[0].shares["found_of_all_virus"].reason == "there are no others here"


def test_other_records_than_the_labelled_ones_are_an_error(results: Path) -> None:
    with pytest.raises(StoreError, match="the records are not the labelled ones"):
        read_scored(results, dict(list(TRUTH.items())[1:]))


def test_the_page_escapes_names_and_loads_nothing(scored: Scored, tmp_path: Path) -> None:
    evaluation = evaluate(scored, SETTINGS, RUN)
    for name in ("one.html", "two.html"):
        write_page(tmp_path / name, evaluation)
    text = (tmp_path / "one.html").read_text()
    assert text == (tmp_path / "two.html").read_text()
    for markup in ("<script", "<i>", "<b>", "src=", "href=", "url("):
        assert markup not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "The figures on this page mean nothing." in text
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL).lower()
    assert "default-src &#39;none&#39;" in text


@pytest.mark.browser
def test_no_table_is_wider_than_the_window_or_the_paper(scored: Scored, tmp_path: Path) -> None:
    """Records of which every measure has an interval, or a reason, and a group with a long name."""
    many = EvaluationSettings(length_bins=(100, 200, 10_000), bootstrap=50)
    long = replace(scored, groups=[name * 20 for name in scored.groups])
    write_page(tmp_path / "page.html", evaluate(long, many, RUN))
    too_wide = (
        "[...document.querySelectorAll('.scroll, html')].filter(e => e.scrollWidth > e.clientWidth).length"
    )
    cut = "[...document.querySelectorAll('.measures td')].filter(e => e.scrollWidth > e.clientWidth).length"
    labels = "[...document.querySelectorAll('.measures td')].filter(e => !e.dataset.label).length"
    with chromium() as browser:
        for width, media in (
            (2560, "screen"),
            (1280, "screen"),
            (1024, "screen"),
            (700, "screen"),
            (360, "screen"),
            (720, "print"),
        ):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.emulate_media(media=media)
            page.goto((tmp_path / "page.html").as_uri())
            assert [page.evaluate(text) for text in (too_wide, cut, labels)] == [0, 0, 0], (width, media)
            assert page.locator(".measures tbody td").last.is_visible()
            page.close()


def test_the_files_say_the_same(scored: Scored, tmp_path: Path) -> None:
    evaluation = evaluate(scored, SETTINGS, RUN)
    save(evaluation, tmp_path)
    facts = json.loads((tmp_path / "evaluation.json").read_text(), parse_constant=pytest.fail)
    with (tmp_path / "evaluation.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    for level in ("records", "chunks"):
        parts = facts[level]
        assert [part["name"] for part in parts] == [
            "all",
            "0 to 99 bases",
            "100 to 199 bases",
            "200 bases or more",
        ]
        assert sum(part["virus"] for part in parts[1:]) == parts[0]["virus"]
        for part in parts:
            for name in NAMES:
                row = next(
                    r for r in rows if (r["level"], r["part"], r["measure"]) == (level, part["name"], name)
                )
                one = part["measures"][name]
                assert row["reason"] == one["reason"]
                assert (row["value"] == "") == (one["value"] is None)
                if one["value"] is not None:
                    assert float(row["value"]) == pytest.approx(one["value"], rel=1e-5)
    assert {row["part"] for row in rows if row["level"] == "groups"} == {one.group for one in TRUTH.values()}
    alone = next(one for one in facts["groups"] if one["name"] == "alone")
    assert alone["share"] == {"value": None, "low": None, "high": None, "reason": "no record has a score"}
    assert alone["mean_score"] is None


def test_ranges_cover_every_length_once() -> None:
    lengths = np.arange(0, 400)
    masks = [one.covers(lengths) for one in length_ranges((100, 200))]
    assert (np.sum(masks, axis=0) == 1).all()


@pytest.mark.parametrize("bins", [(), (5, 5), (9, 3), (0, 4)])
def test_bins_that_do_not_rise_are_refused(bins: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="do not rise"):
        EvaluationSettings(length_bins=bins)
