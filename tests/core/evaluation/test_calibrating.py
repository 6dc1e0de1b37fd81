"""Calibrations: rising, between 0 and 1, true on scores whose probability is known, and measured on other groups."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro_core.errors import UsageError
from virnucpro_core.evaluation.calibrating import (
    LEAST_RECORDS,
    Method,
    expected_fdr,
    fit_calibration,
    fit_curve,
    group_folds,
    held_out,
)
from virnucpro_core.evaluation.evaluation import length_ranges
from virnucpro_core.evaluation.metrics import Rows
from virnucpro_core.results.calibration import Calibration, Curve, probability, read_calibration

WHOLE = Curve(0, 0)


def known(n: int, seed: int, *, groups: int = 50, length: int = 800) -> tuple[Rows, np.ndarray]:
    """Rows whose probability of virus is the square of their score, and these probabilities."""
    generator = np.random.default_rng(seed)
    score = generator.random(n)
    truth = score**2
    label = (generator.random(n) < truth).astype(np.int64)
    return Rows(label, score, generator.integers(0, groups, n), np.full(n, length)), truth


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_known_probabilities_are_reproduced(method: Method) -> None:
    rows, truth = known(20_000, 1)
    if method == "platt":  # its family of curves: log-odds straight over the logit of the score
        generator = np.random.default_rng(2)
        logit = np.log(rows.score) - np.log1p(-rows.score)
        truth = 1 / (1 + np.exp(-(2 * logit - 1)))
        rows = Rows((generator.random(20_000) < truth).astype(np.int64), rows.score, rows.group, rows.length)
    made = Calibration("c", 500, method, (fit_curve(rows, WHOLE, method),), {})
    found = probability(made.log_odds(rows.score, rows.length), float(rows.label.mean()))
    assert np.abs(found - truth).mean() < 0.02
    for low in np.arange(0, 1, 0.1):
        mine = (rows.score >= low) & (rows.score < low + 0.1)
        assert found[mine].mean() == pytest.approx(truth[mine].mean(), abs=4 * 0.5 / mine.sum() ** 0.5)


def test_the_share_of_virus_in_the_labelled_data_does_not_matter() -> None:
    """Nine of ten virus records are left out: with the share of the data the same probabilities come back."""
    rows, _ = known(40_000, 3)
    kept = (rows.label == 0) | (np.arange(40_000) % 10 == 0)
    curves = [fit_curve(part, WHOLE, "isotonic") for part in (rows, rows.where(kept))]
    score, length = np.linspace(0.2, 0.9, 50), np.full(50, 800)
    one, other = (Calibration("", 0, "", (c,), {}).log_odds(score, length) for c in curves)
    assert np.abs(probability(one, 0.5) - probability(other, 0.5)).max() < 0.1


@settings(max_examples=40)
@given(st.data())
def test_curves_rise_and_stay_inside(data: st.DataObject) -> None:
    n = data.draw(st.integers(2 * LEAST_RECORDS, 90))
    label = np.array(data.draw(st.permutations([0, 1] * LEAST_RECORDS + [1] * (n - 2 * LEAST_RECORDS))))
    score = np.array(data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n)))
    rows = Rows(label, score, np.arange(n) % 7, np.full(n, 700))
    curve = fit_curve(rows, WHOLE, data.draw(st.sampled_from(["isotonic", "platt"])))
    if curve.reason:
        assert curve.reason == "virus does not score higher than others"
        assert not curve.score
        return
    at = np.linspace(0, 1, 101)
    found = probability(
        Calibration("", 0, "", (curve,), {}).log_odds(at, np.full(101, 700)),
        data.draw(st.floats(0.001, 0.999)),
    )
    assert (np.diff(found) >= 0).all()
    assert ((found > 0) & (found < 1)).all()


def test_too_few_records_or_groups_give_a_reason_and_no_curve() -> None:
    rows, _ = known(400, 4)
    virus, others = np.flatnonzero(rows.label == 1), np.flatnonzero(rows.label == 0)
    few = np.zeros(400, bool)
    few[np.concatenate([virus[: LEAST_RECORDS - 1], others])] = True
    assert fit_curve(rows.where(few), WHOLE, "isotonic").reason.startswith("19 virus with a score from")
    one = Rows(rows.label, rows.score, np.where(rows.label == 1, 1, rows.group + 2), rows.length)
    assert "virus with a score from 1 groups" in fit_curve(one, WHOLE, "isotonic").reason
    with pytest.raises(UsageError, match="nothing can be calibrated: 0 bases or more: "):
        fit_calibration(one, [WHOLE], method="isotonic", classifier="c", chunk_size=300, facts={})


def test_each_length_has_its_own_curve(tmp_path: Path) -> None:
    short, _ = known(3_000, 5)
    long = Rows(1 - short.label, 1 - short.score, short.group, np.full(3_000, 5_000))
    both = Rows(*(np.concatenate(pair) for pair in zip(_columns(short), _columns(long), strict=True)))
    made = fit_calibration(
        both,
        length_ranges((500, 1_000, 9_000)),
        method="isotonic",
        classifier="c",
        chunk_size=300,
        facts={"a": (1,)},
    )
    assert [bool(curve.score) for curve in made.curves] == [False, True, True, False]
    found = made.log_odds(np.full(4, 0.8), np.array([499, 500, 1_000, 9_000]))
    assert np.isnan(found[[0, 3]]).all()
    assert found[1] != found[2]
    made.save(tmp_path / "c.json")
    again = read_calibration(tmp_path / "c.json")
    assert again.digest == made.digest
    assert again.curves == made.curves
    assert json.loads((tmp_path / "c.json").read_text())["facts"] == {"a": [1]}


def _columns(rows: Rows) -> tuple[np.ndarray, ...]:
    return rows.label, rows.score, rows.group, rows.length


@given(st.data())
def test_folds_never_divide_a_group(data: st.DataObject) -> None:
    group = np.array(data.draw(st.lists(st.integers(0, 15), min_size=6, max_size=60)))
    label = np.array([int((g * 7) % 3 == 0) for g in group])
    rows = Rows(label, np.zeros(len(group)), group, np.full(len(group), 9))
    if min(len(np.unique(group[label == k])) for k in (0, 1)) < 2:
        with pytest.raises(UsageError, match="two groups of each class"):
            group_folds(rows, 1)
        return
    folds = group_folds(rows, data.draw(st.integers(0, 9)))
    assert all(len(np.unique(folds[group == g])) == 1 for g in np.unique(group))
    assert folds.max() >= 1


def test_held_out_probabilities_do_not_see_the_group() -> None:
    """Labels that only the group explains cannot be learned from the score: the held-out error stays high."""
    generator = np.random.default_rng(6)
    group = np.repeat(np.arange(60), 20)
    score = np.repeat(generator.random(60), 20)  # the score names the group
    label = np.repeat(generator.integers(0, 2, 60), 20)
    rows = Rows(label, score, group, np.full(1_200, 700))
    seen = fit_curve(rows, WHOLE, "isotonic")
    fitted = probability(Calibration("", 0, "", (seen,), {}).log_odds(score, rows.length), label.mean())
    found = held_out(rows, [WHOLE], "isotonic", 1)
    assert found.facts["records"] == 1_200
    assert found.facts["brier"] > ((fitted - label) ** 2).mean()
    assert found.facts["brier"] > 0.24


def test_held_out_probabilities_of_good_scores_are_good() -> None:
    rows, truth = known(6_000, 7)
    found = held_out(rows, [WHOLE], "isotonic", 1)
    assert np.abs(found.probability - truth).mean() < 0.03
    assert found.facts["calibration_error"] < 0.03
    assert found.facts["folds"] == 5


@given(st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), max_size=40))
def test_the_expected_fdr_falls_as_the_probability_rises(values: list[float]) -> None:
    value = np.array(values, float)
    found = expected_fdr(value)
    assert (np.isnan(found) == np.isnan(value)).all()
    known_ = ~np.isnan(value)
    for p, fdr in zip(value[known_], found[known_], strict=True):
        assert fdr == pytest.approx((1 - value[known_ & (value >= p)]).mean())
    order = np.argsort(value[known_])
    assert (np.diff(found[known_][order]) <= 1e-12).all()
