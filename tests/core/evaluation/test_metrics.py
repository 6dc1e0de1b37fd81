"""Measures: the textbook's values, nothing where nothing is defined, intervals over whole groups."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro_core.evaluation.metrics import (
    NAMES,
    Rows,
    brier,
    calibration_error,
    confusion,
    measures,
    reliability,
    values,
    wilson,
)


def rows(label: list[int], score: list[float], group: list[int] | None = None) -> Rows:
    n = len(label)
    return Rows(
        np.array(label, np.int64),
        np.array(score, float),
        np.array(range(n) if group is None else group, np.int64),
        np.full(n, 600),
    )


def test_values_are_those_of_the_definitions() -> None:
    label = np.array([1] * 20 + [0] * 100)
    score = np.concatenate([np.linspace(0.31, 0.995, 20), np.linspace(0.0, 0.8, 100)])
    found = values(label, score, np.ones(120), 0.5)
    pairs = [(a > b) + 0.5 * (a == b) for a in score[:20] for b in score[20:]]
    assert found["auroc"] == pytest.approx(np.mean(pairs))
    for share, most in (("1", 1), ("5", 5)):
        cut = np.sort(score[20:])[::-1][most]  # at most `most` others lie above the next one
        assert found[f"sensitivity_at_{share}_percent_false"] == pytest.approx((score[:20] > cut).mean())
    tp, fp = (score[:20] >= 0.5).sum(), (score[20:] >= 0.5).sum()
    fn, tn = 20 - tp, 100 - fp
    expected = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert found["mcc"] == pytest.approx(expected)
    order = np.argsort(-score)
    hits = label[order]
    precision = np.cumsum(hits) / np.arange(1, 121)
    assert found["auprc"] == pytest.approx((precision * hits).sum() / 20)


def test_a_weight_counts_a_row_that_often() -> None:
    generator = np.random.default_rng(5)
    label, score = generator.integers(0, 2, 60), generator.random(60).round(1)
    weight = generator.integers(1, 4, 60)
    often = np.repeat(np.arange(60), weight)
    weighted = values(label, score, weight.astype(float), 0.5)
    assert weighted == pytest.approx(values(label[often], score[often], np.ones(len(often)), 0.5))


@pytest.mark.parametrize(
    ("label", "words"), [([1, 1, 1], "no others"), ([0, 0], "no virus"), ([], "no others")]
)
def test_one_class_has_no_number(label: list[int], words: str) -> None:
    found = measures(rows(label, [0.5] * len(label)), cutoff=0.5, bootstrap=10, seed=1)
    assert set(found) == set(NAMES)
    assert all(one.value is None and words in one.reason for one in found.values())


def test_a_class_without_scores_has_no_number() -> None:
    found = measures(rows([1, 1, 0], [math.nan, math.nan, 0.5]), cutoff=0.5, bootstrap=0, seed=1)
    assert found["auroc"].value is None
    assert found["auroc"].reason == "no virus with a score"


def test_a_percent_of_too_few_others_is_not_defined() -> None:
    found = measures(rows([1] * 5 + [0] * 99, [0.9] * 5 + [0.1] * 99), cutoff=0.5, bootstrap=0, seed=1)
    assert found["sensitivity_at_1_percent_false"].reason == "99 others; 1% needs 100 or more"
    assert found["sensitivity_at_1_percent_false"].value is None
    assert found["sensitivity_at_5_percent_false"].value == 1.0
    assert found["auroc"].reason == "no bootstrap"


def test_calls_that_are_all_alike_have_no_mcc() -> None:
    found = measures(rows([1, 1, 0, 0], [0.9, 0.8, 0.7, 0.6]), cutoff=0.5, bootstrap=20, seed=1)
    assert found["mcc"].value is None
    assert found["mcc"].reason == "all calls are alike"


def test_groups_are_drawn_and_not_rows() -> None:
    """A hundred rows of one genome are one genome: the interval is as wide as that of the genomes alone."""
    label, score = [1, 1, 1, 0, 0, 0], [0.9, 0.4, 0.8, 0.5, 0.2, 0.1]
    few = measures(rows(label, score), cutoff=0.5, bootstrap=200, seed=3)["auroc"]
    many = measures(rows(label * 100, score * 100, [*range(6)] * 100), cutoff=0.5, bootstrap=200, seed=3)[
        "auroc"
    ]
    assert (many.value, many.low, many.high) == pytest.approx((few.value, few.low, few.high))
    single = measures(rows(label * 100, score * 100), cutoff=0.5, bootstrap=200, seed=3)["auroc"]
    assert single.high - single.low < (few.high - few.low) / 3


def test_one_group_of_a_class_has_no_interval() -> None:
    found = measures(rows([1, 1, 0, 0], [0.9, 0.4, 0.5, 0.2], [7, 7, 8, 9]), cutoff=0.5, bootstrap=50, seed=1)
    assert found["auroc"].low is None
    assert found["auroc"].reason == "a class has one group only"


@settings(max_examples=30)
@given(st.data())
def test_an_interval_contains_its_value(data: st.DataObject) -> None:
    n = data.draw(st.integers(4, 40))
    label = data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    score = data.draw(st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0, math.nan]), min_size=n, max_size=n))
    group = data.draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    found = measures(rows(label, score, group), cutoff=0.5, bootstrap=25, seed=data.draw(st.integers(0, 99)))
    for name, one in found.items():
        assert (one.value is None) <= (one.reason != "")
        if one.low is not None:
            assert (-1 if name == "mcc" else 0) <= one.low <= one.value <= one.high <= 1


def test_confusion_counts_every_row_once() -> None:
    label = np.array([1, 1, 1, 0, 0])
    called, has = np.array([1, 0, 1, 1, 0], bool), np.array([1, 1, 0, 1, 1], bool)
    one = confusion("x", label, called, has)
    assert (one.virus_virus, one.virus_others, one.virus_no_call) == (1, 1, 1)
    assert (one.others_virus, one.others_others, one.others_no_call) == (1, 1, 0)


def test_reliability_of_known_probabilities() -> None:
    generator = np.random.default_rng(8)
    value = generator.random(20_000)
    label = (generator.random(20_000) < value).astype(np.int64)
    found = reliability(label, value)
    assert sum(one.rows for one in found) == 20_000
    assert all(abs(one.share - one.mean) < 0.05 for one in found)
    assert sum(one.share_low <= one.mean <= one.share_high for one in found) >= 8
    assert calibration_error(label, value) < 0.02
    assert calibration_error(label, value**3) > 0.15
    assert brier(label, value) == pytest.approx(1 / 6, abs=0.01)
    assert brier(label, np.full(20_000, np.nan)) is calibration_error(label[:0], value[:0]) is None


@given(st.integers(1, 500), st.data())
def test_wilson_contains_the_share(n: int, data: st.DataObject) -> None:
    share = data.draw(st.integers(0, n)) / n
    low, high = wilson(share, n)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
