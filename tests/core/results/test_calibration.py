"""Probabilities and expected false discovery rates of a sample, and what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.browser import chromium
from tests.support.scored import Scored, scored_sample, sequence
from virnucpro_core.errors import UsageError, WeightsError
from virnucpro_core.results.calibration import (
    NOT_COVERED,
    PRESETS,
    Calibration,
    Curve,
    SampleProbabilities,
    calibration_file,
    counted,
    estimated_prior,
    find_calibration,
    probability,
    read_calibration,
)
from virnucpro_core.results.record_calls import CALLS, NO_CALL, RecordCalls

CLASSIFIER = "a1" * 32
LINE = Calibration(
    CLASSIFIER, 60, "isotonic", (Curve(0, 100, reason="too few"), Curve(100, 0, (0.0, 1.0), (-5.0, 5.0))), {}
)
LENGTHS = [70, 120, 130, 200, 300, 400, 500, 130, 260, 90]
NONE = "\N{EN DASH}"
FASTA = (
    "".join(f">r{k}\n{sequence(n, k)}\n" for k, n in enumerate(LENGTHS))
    + ">stopped\n"
    + "TTAACTAACTAACTAG" * 8
)


def block(score: list[float], length: list[int]) -> RecordCalls:
    n = len(score)
    scores, numbers = np.array(score, float), np.array(length, np.int64)
    call = np.where(np.isnan(scores), NO_CALL, scores < 0.5).astype(np.uint8)
    reasons = ["every frame holds a stop codon" if k == NO_CALL else "" for k in call.tolist()]
    ones = np.ones(n, np.int64)
    return RecordCalls(
        0, [b"r%d" % k for k in range(n)], reasons, numbers, ones, ones, ones, scores, call, 0, scores
    )


@settings(max_examples=50)
@given(st.data())
def test_probabilities_and_rates_of_any_sample(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 30))
    score = data.draw(st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), min_size=n, max_size=n))
    length = data.draw(st.lists(st.sampled_from([50, 99, 100, 4_000]), min_size=n, max_size=n))
    prior = data.draw(st.one_of(st.none(), st.floats(0.001, 0.999)))
    parts = np.array_split(np.arange(n), data.draw(st.integers(1, 3)))
    blocks = [block([score[k] for k in part], [length[k] for k in part]) for part in parts]
    known = SampleProbabilities(LINE, (counted(LINE, one) for one in blocks), prior=prior, preset="")
    applied = [known.applied(one) for one in blocks]
    p, fdr = (np.concatenate([getattr(one, name) for one in applied]) for name in ("probability", "fdr"))
    has = ~np.isnan(np.array(score)) & (np.array(length) >= 100)
    assert (~np.isnan(p) == has).all()
    assert (~np.isnan(fdr) == has).all()
    assert known.records == has.sum()
    assert 0 < known.prior < 1
    assert ((p[has] >= 0) & (p[has] <= 1)).all()
    order = np.argsort(np.array(score)[has], kind="stable")
    assert (np.diff(p[has][order]) >= 0).all()
    assert (np.diff(fdr[has][order]) <= 1e-12).all()
    for mine, rate in zip(p[has], fdr[has], strict=True):
        assert rate == pytest.approx((1 - p[has][p[has] >= mine]).mean(), abs=1e-9)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_the_share_of_virus_is_found_again(share: float) -> None:
    """Log-odds drawn from two normal distributions, for which log-odds x mean 2 d, variance 4 d are exact."""
    generator = np.random.default_rng(1)
    is_virus = generator.random(50_000) < share
    log_odds = np.round(generator.normal(np.where(is_virus, 2.0, -2.0), 2.0), 3)
    values, counts = np.unique(log_odds, return_counts=True)
    assert estimated_prior(values, counts) == pytest.approx(share, abs=0.01)
    assert probability(log_odds, share)[is_virus].mean() > probability(log_odds, share)[~is_virus].mean()


def test_few_records_leave_the_share_near_a_half() -> None:
    assert estimated_prior(np.array([-8.0]), np.array([5])) == pytest.approx(0.48, abs=0.01)
    assert estimated_prior(np.array([-8.0]), np.array([100_000])) < 0.01


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    return scored_sample(tmp_path_factory.mktemp("sample"), FASTA)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_two_columns_are_added_and_the_others_keep_their_bytes(sample: Scored, tmp_path: Path) -> None:
    plain = sample.write(tmp_path / "plain")
    made = sample.write(tmp_path / "more", calibration=LINE, prior=0.2)
    before = (tmp_path / "plain" / "contigs.tsv").read_text().splitlines()
    after = (tmp_path / "more" / "contigs.tsv").read_text().splitlines()
    assert [line.rsplit("\t", 2)[0] for line in after] == before
    assert after[0].endswith("\treason\tprobability\tfdr")
    for row in table(tmp_path / "more" / "contigs.tsv"):
        covered = row["score"] != "" and int(row["length"]) >= 100
        assert (row["probability"] != "") == (row["fdr"] != "") == covered
        if covered:
            expected = probability(np.array([10 * float(row["score"]) - 5]), 0.2)[0]
            assert float(row["probability"]) == pytest.approx(expected, abs=2e-4)
    run = json.loads((tmp_path / "more" / "run.json").read_text())
    assert run["calibration"] == made.calibration
    assert (
        run["calibration"] | {"sha256": LINE.digest, "prior": 0.2, "prior_is_estimated": False}
        == run["calibration"]
    )
    assert (run["calibration"]["records"], run["calibration"]["records_without"]) == (8, 2)
    assert "calibration" not in json.loads((tmp_path / "plain" / "run.json").read_text())
    assert plain.counts == made.counts
    assert (
        "this classifier has no calibration for chunks of 60 bases"
        in (tmp_path / "plain/report.html").read_text()
    )
    assert "0.2, as given with --prior" in (tmp_path / "more/report.html").read_text()


@pytest.mark.parametrize(("preset", "prior"), [("conservative", 0.93), ("relaxed", 0.75)])
def test_a_preset_calls_by_the_expected_rate(sample: Scored, tmp_path: Path, preset, prior: float) -> None:
    made = sample.write(tmp_path, calibration=LINE, preset=preset, prior=prior)
    rows = table(tmp_path / "contigs.tsv")
    for row in rows:
        if row["fdr"]:
            assert (row["call"] == "virus") == (float(row["fdr"]) <= PRESETS[preset])
        else:
            assert row["call"] == "no_call"
            assert row["reason"] == (NOT_COVERED if row["score"] else "every frame holds a stop codon")
    counted = {call: sum(row["call"] == call for row in rows) for call in CALLS}
    assert made.counts.calls == counted
    assert counted["virus"] > 0
    assert counted["others"] > 0
    assert (tmp_path / "viral.fasta").read_text().count(">") == counted["virus"]
    page = (tmp_path / "report.html").read_text()
    assert f"by the preset <b>{preset}</b>" in page
    assert "cut-off 0.5" not in page
    # One decision: the marks of the regions follow from the calls.
    calls = {row["record_id"]: row["call"] for row in rows}
    marked: dict[str, set[str]] = {call: set() for call in CALLS}
    for line in (tmp_path / "regions.bed").read_text().splitlines():
        name, _, _, label = line.split("\t")[:4]
        marked[calls[name]].add(label.partition(":")[2])
    assert marked["virus"] <= {"whole_record", "viral_part"}
    assert marked["virus"]
    assert marked["others"] <= {"provirus_candidate"}
    assert not marked["no_call"]
    # The page has what the table has, also where the calibration leaves a record without a call.
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    shown = {row[1]: dict(zip(data["fields"], row, strict=True)) for row in data["rows"]}
    for row in rows:
        for name in ("score", "probability", "fdr"):
            value = shown[row["record_id"]][name]
            assert row[name] == "" if value is None else float(row[name]) == pytest.approx(value, rel=1e-5)
    assert any(one["call"] == "no_call" and one["score"] is not None for one in shown.values())


@given(
    st.lists(
        st.tuples(st.integers(0, 1_000).map(lambda n: n / 1_000), st.floats(-16, 16)),
        min_size=1,
        max_size=5,
        unique_by=lambda p: p[0],
    ),
    st.floats(-17, 17),
)
def test_the_least_score_is_the_border(points: list[tuple[float, float]], least: float) -> None:
    score, odds = (tuple(sorted(values)) for values in zip(*points, strict=True))
    found = Curve(0, 0, score, odds).least_score(least)
    if found == np.inf:
        assert odds[-1] < least
        return
    assert np.interp(found, score, odds) >= least - 1e-6
    below = np.nextafter(found, -1)
    assert found == 0 or np.interp(below, score, odds) <= least + 1e-6
    assert np.isnan(Curve(0, 0).least_score(least))


@pytest.mark.browser
def test_the_page_shows_probabilities_and_rates(sample: Scored, tmp_path: Path) -> None:
    sample.write(tmp_path, calibration=LINE, preset="relaxed", prior=0.75)
    by_id = {row["record_id"]: row for row in table(tmp_path / "contigs.tsv")}
    with chromium() as browser:
        page = browser.new_page()
        page.goto((tmp_path / "report.html").as_uri())
        titles = page.locator("#table th").all_inner_texts()
        assert titles[2:5] == ["Score", "Probability", "FDR"]
        lines = page.locator("#table tbody tr")
        for k in range(lines.count()):
            cells = lines.nth(k).locator("td").all_inner_texts()
            row = by_id[cells[0]]
            for name, text in zip(("score", "probability", "fdr"), cells[2:5], strict=True):
                assert (
                    text == NONE
                    if row[name] == ""
                    else float(text) == pytest.approx(float(row[name]), abs=1e-4)
                )
            # A rate above the limit never reads as one that keeps it.
            assert row["fdr"] == "" or (float(cells[4]) <= PRESETS["relaxed"]) == (row["call"] == "virus")


def test_the_one_beside_the_classifier_is_found(tmp_path: Path) -> None:
    assert find_calibration(tmp_path, CLASSIFIER, 60) is None
    LINE.save(calibration_file(tmp_path, 60))
    found = find_calibration(tmp_path, CLASSIFIER, 60)
    assert found is not None
    assert found.digest == LINE.digest
    assert find_calibration(tmp_path, CLASSIFIER, 300) is None
    assert find_calibration(tmp_path, CLASSIFIER, 60, file="none") is None


def test_another_classifier_or_chunk_size_is_refused_with_both_values(tmp_path: Path) -> None:
    file = calibration_file(tmp_path, 60)
    LINE.save(file)
    with pytest.raises(WeightsError, match=f"classifier {CLASSIFIER[:16]}..., this one is {'b2' * 8}..."):
        find_calibration(tmp_path, "b2" * 32, 60)
    with pytest.raises(WeightsError, match="chunks of 60 bases, the sample has chunks of 300"):
        find_calibration(tmp_path, CLASSIFIER, 300, file=str(file))


@pytest.mark.parametrize("option", ["--conservative", "--prior"])
def test_an_option_without_a_calibration_is_refused(tmp_path: Path, option: str) -> None:
    for file in ("", "none"):
        with pytest.raises(UsageError, match=f"{option} needs a calibration.* for chunks of 60 bases"):
            find_calibration(tmp_path, CLASSIFIER, 60, file=file, needed_by=option)


def test_a_changed_or_strange_file_is_no_calibration(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    with pytest.raises(WeightsError, match="no such calibration"):
        read_calibration(file)
    LINE.save(file)
    for text in (file.read_text().replace("5.0", "6.0"), "{}", "[]", "", "\x00"):
        file.write_text(text)
        with pytest.raises(WeightsError, match="not a calibration, or damaged"):
            read_calibration(file)
