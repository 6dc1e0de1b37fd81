"""Fit calibrations to labelled scores, and measure them on groups that they were not fitted to.

A curve is fitted for each range of record lengths, with both classes weighted equally: what it gives are log-odds at
equal shares of virus and others, to which `results/calibration.py` adds the share in a sample. "isotonic" is a rising
step function (pool adjacent violators) with straight lines between the steps; "platt" a line of log-odds over the
score's logit (Platt 1999, with a logistic regression). Both come from scikit-learn.

The held-out probabilities are those of a calibration that was fitted without the record's group, in FOLDS parts. The
share of virus is taken as that of all labelled records: what is measured is the curve, not an estimate of the share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from virnucpro_core.errors import UsageError
from virnucpro_core.evaluation.metrics import Rows, brier, calibration_error, reliability
from virnucpro_core.results.calibration import Calibration, Curve, probability
from virnucpro_core.sequences.labelled import LABELS, Examined

Method = Literal["isotonic", "platt"]
LEAST_RECORDS, LEAST_GROUPS = 20, 2
FOLDS = 5
_LOGIT_LIMIT = 1e-6
_PLATT_POINTS = 201

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Probabilities and expected false discovery rates of records from calibrations of other groups, (records,).

    NaN where there is none. `facts`: how they were made and their errors. prior: the share of virus behind them.
    """

    probability: Floats
    fdr: Floats
    facts: dict[str, Any]
    prior: float


def check_enough(examined: Examined, pieces: Sequence[int], ranges: Sequence[Curve]) -> None:
    """Raise UsageError if no range can have enough records, whatever their scores will be.

    pieces: lengths (bases) into which the records will be cut; none for whole records.
    """
    label = np.array([one.label for one in examined.truth.values()], np.int64)
    _, group = np.unique([one.group for one in examined.truth.values()], return_inverse=True)
    sizes = np.array(sorted(set(pieces)), np.int64)
    found = []
    for one in ranges:
        times = np.where(one.covers(examined.lengths) & (examined.lengths > 0), 1, 0)
        if pieces:
            times = (examined.lengths[:, None] // sizes[one.covers(sizes)]).sum(axis=1)
        counts = [
            (int(times[label == k].sum()), len(np.unique(group[(label == k) & (times > 0)])))
            for k in range(len(LABELS))
        ]
        if all(records >= LEAST_RECORDS and groups >= LEAST_GROUPS for records, groups in counts):
            return
        found.append((min(records for records, _ in counts), one.words, counts))
    _, words, fullest = max(found)
    said = " and ".join(
        f"{records:,} {LABELS[k]} from {groups:,} groups" for k, (records, groups) in enumerate(fullest)
    )
    raise UsageError(
        f"nothing can be calibrated: a length bin needs {LEAST_RECORDS} records of each class from {LEAST_GROUPS}"
        f" groups; the fullest, {words}, has {said}",
        remedy="give more labelled genomes; --lengths cuts long ones into pieces, --length-bins makes other bins",
    )


def fit_calibration(
    records: Rows,
    ranges: Sequence[Curve],
    *,
    method: Method,
    classifier: str,
    chunk_size: int,
    facts: Mapping[str, Any],
    min_open: int = 0,
) -> Calibration:
    """Fit a curve for each range of record lengths. classifier: its fingerprint. facts: kept for people.

    min_open: least amino acids of open frames, 0 if the scores are of stop-free frames only.

    Raises UsageError if no range has enough records: LEAST_RECORDS of each class, from LEAST_GROUPS groups.
    """
    curves = tuple(fit_curve(records.where(one.covers(records.length)), one, method) for one in ranges)
    if not any(one.score for one in curves):
        raise UsageError(
            "nothing can be calibrated: " + "; ".join(f"{one.words}: {one.reason}" for one in curves),
            remedy="give more labelled genomes; --lengths cuts long ones into pieces",
        )
    return Calibration(classifier, chunk_size, method, curves, dict(facts), min_open)


def fit_curve(rows: Rows, where: Curve, method: Method) -> Curve:
    """The curve of the rows, all in the length range `where`; if they are too few, no points but the reason."""
    rows = rows.scored
    if reason := _too_few(rows):
        return replace(where, reason=reason)
    counts = np.bincount(rows.label, minlength=2)
    weight = (0.5 / counts)[rows.label] * len(rows.label)
    if method == "isotonic":
        model = IsotonicRegression(out_of_bounds="clip").fit(rows.score, rows.label, sample_weight=weight)
        score, value = model.X_thresholds_, model.y_thresholds_
    else:
        regression = LogisticRegression(C=1e6).fit(
            _logit(rows.score)[:, None], rows.label, sample_weight=weight
        )
        if regression.coef_[0, 0] <= 0:
            return replace(where, reason="virus does not score higher than others")
        score = np.linspace(0, 1, _PLATT_POINTS)
        value = regression.predict_proba(_logit(score)[:, None])[:, 1]
    # No finite number of records shows a probability of 0 or 1.
    edge = 1 / (counts.min() + 2)
    value = np.clip(value, edge, 1 - edge)
    log_odds = np.maximum.accumulate(np.log(value) - np.log1p(-value))
    return replace(where, score=tuple(score.tolist()), log_odds=tuple(log_odds.tolist()))


def _too_few(rows: Rows) -> str:
    for label, words in enumerate(LABELS):
        mine = rows.group[rows.label == label]
        if len(mine) < LEAST_RECORDS or len(np.unique(mine)) < LEAST_GROUPS:
            return (
                f"{len(mine):,} {words} with a score from {len(np.unique(mine)):,} groups, at least"
                f" {LEAST_RECORDS} from {LEAST_GROUPS} are needed"
            )
    return ""


def _logit(score: Floats) -> Floats:
    inside = np.clip(score, _LOGIT_LIMIT, 1 - _LOGIT_LIMIT)
    found: Floats = np.log(inside) - np.log1p(-inside)
    return found


def held_out(records: Rows, ranges: Sequence[Curve], method: Method, seed: int) -> HeldOut:
    """Probabilities of every record from calibrations of other groups. No group is on both sides.

    Raises UsageError if a class has fewer than two groups.
    """
    found = np.full(len(records.label), np.nan)
    known = np.flatnonzero(~np.isnan(records.score))
    folds = group_folds(records.where(~np.isnan(records.score)), seed)
    share = float(records.label[known].mean())
    for fold in range(int(folds.max()) + 1):
        test, train = known[folds == fold], np.zeros(len(records.label), bool)
        train[known[folds != fold]] = True
        rows = records.where(train)
        curves = tuple(fit_curve(rows.where(one.covers(rows.length)), one, method) for one in ranges)
        log_odds = Calibration("", 0, method, curves, {}).log_odds(records.score[test], records.length[test])
        found[test] = probability(log_odds, share)
    label = records.label
    facts = {
        "folds": int(folds.max()) + 1,
        "records": int((~np.isnan(found)).sum()),
        "prior": share,
        "brier": brier(label, found),
        "calibration_error": calibration_error(label, found),
        "reliability": [[b.rows, b.mean, b.share] for b in reliability(label, found)],
        "ranges": [_of_range(one, records, found) for one in ranges],
    }
    return HeldOut(found, expected_fdr(found), facts, share)


def _of_range(one: Curve, records: Rows, found: Floats) -> dict[str, Any]:
    mine = one.covers(records.length)
    label, value = records.label[mine], found[mine]
    return {
        "range": one.words,
        "records": int((~np.isnan(value)).sum()),
        "brier": brier(label, value),
        "calibration_error": calibration_error(label, value),
    }


def group_folds(rows: Rows, seed: int) -> NDArray[np.int64]:
    """The part of each row, (N,), from 0: at most FOLDS parts, no group in two of them, labels spread evenly."""
    least = min(len(np.unique(rows.group[rows.label == label])) for label in range(len(LABELS)))
    if least < 2:
        raise UsageError(
            "calibration needs at least two groups of each class with a score",
            remedy="give more genomes; the column `group` of --labels says what belongs together",
        )
    splitter = StratifiedGroupKFold(min(FOLDS, least), shuffle=True, random_state=seed)
    part = np.zeros(len(rows.label), np.int64)
    for fold, (_, test) in enumerate(splitter.split(rows.score, rows.label, rows.group)):
        part[test] = fold
    return part


def expected_fdr(value: Floats) -> Floats:
    """For each probability, (N,), the mean of 1 - probability over all that are at least as high; NaN stays NaN."""
    found = np.full(len(value), np.nan)
    known = np.flatnonzero(~np.isnan(value))
    if not len(known):
        return found
    values, number, counts = np.unique(-value[known], return_inverse=True, return_counts=True)
    false = np.cumsum(counts * (1 + values)) / np.cumsum(counts)
    found[known] = false[number]
    return found
