"""Measures of scores against labels, with bootstrap intervals over whole groups.

A measure that is not defined (one class only, too few others for 1 % of them) is None and says why; it is never a
number. A row without a score counts in `no_call` and in no measure.

Shapes: N rows. label 0 others, 1 virus.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import auc, average_precision_score, roc_curve

from virnucpro_core.sequences.labelled import LABELS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL = 0.95
BOOTSTRAP = 500
FALSE_POSITIVES = (0.01, 0.05)


@dataclass(frozen=True, slots=True)
class Rows:
    """What is measured: records or chunks.

    label (N,), score (N,) with NaN where there is no call, group (N,) number of the group, length (N,) in bases.
    """

    label: Ints
    score: Floats
    group: Ints
    length: Ints

    def where(self, mask: NDArray[np.bool_]) -> "Rows":
        """The rows with `mask` (N,)."""
        return Rows(self.label[mask], self.score[mask], self.group[mask], self.length[mask])

    @property
    def scored(self) -> "Rows":
        """The rows with a score."""
        return self.where(~np.isnan(self.score))


@dataclass(frozen=True, slots=True)
class Measure:
    """A value from 0 to 1 (MCC: from -1) with its 95 % interval, or None and the reason why there is none.

    low, high: None if there is no interval; `reason` then says why.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Confusion:
    """Rows by label and call, at one way of calling."""

    name: str
    virus_virus: int
    virus_others: int
    virus_no_call: int
    others_virus: int
    others_others: int
    others_no_call: int


def values(label: Ints, score: Floats, weight: Floats, cutoff: float) -> dict[str, float]:
    """All measures of rows with a score, each row counted `weight` times; NaN for an MCC whose calls are all alike.

    auroc: area under the curve of true against false positives. auprc: average precision. mcc: Matthews' correlation
    coefficient at the cut-off. sensitivity_at_...: the highest share of virus rows found by a cut-off that calls at
    most this share of others virus.
    """
    false, true, _ = roc_curve(label, score, sample_weight=weight, drop_intermediate=False)
    found = {
        "auroc": float(auc(false, true)),
        "auprc": float(average_precision_score(label, score, sample_weight=weight)),
        "mcc": _mcc(label, score >= cutoff, weight),
    }
    for name, share in _SHARES.items():
        found[name] = float(true[false <= share + 1e-12].max())
    return found


def _mcc(label: Ints, called: NDArray[np.bool_], weight: Floats) -> float:
    tp, fn = float(weight[(label == 1) & called].sum()), float(weight[(label == 1) & ~called].sum())
    fp, tn = float(weight[(label == 0) & called].sum()), float(weight[(label == 0) & ~called].sum())
    below = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / math.sqrt(below) if below else math.nan


def measures(rows: Rows, *, cutoff: float, bootstrap: int, seed: int) -> dict[str, Measure]:
    """All measures of the rows that have a score.

    bootstrap: how often the groups are drawn again, with replacement, among those with the same labels. 0: no
    intervals. An interval is widened to the value if the value lies outside.
    """
    rows = rows.scored
    counts = np.bincount(rows.label, minlength=2)
    for label, words in enumerate(LABELS):
        if not counts[label]:
            return dict.fromkeys(NAMES, Measure(None, reason=f"no {words} with a score"))
    whole = values(rows.label, rows.score, np.ones(len(rows.label)), cutoff)
    drawn = (
        []
        if bootstrap == 0
        else [
            values(rows.label[w > 0], rows.score[w > 0], w[w > 0], cutoff)
            for w in _drawn(rows, bootstrap, seed)
        ]
    )
    why = _no_interval(rows, bootstrap)
    found = {}
    for name in NAMES:
        least = math.ceil(1 / _SHARES[name]) if name in _SHARES else 0
        if counts[0] < least:
            said = f"{counts[0]:,} others; {_SHARES[name]:.0%} needs {least:,} or more"
            found[name] = Measure(None, reason=said)
        else:
            found[name] = _with_interval(whole[name], [one[name] for one in drawn], why)
    return found


def _with_interval(value: float, drawn: list[float], why: str) -> Measure:
    if math.isnan(value):
        return Measure(None, reason="all calls are alike")
    known = [one for one in drawn if not math.isnan(one)]
    if not known:
        return Measure(value, reason="all calls are alike in every draw" if drawn else why)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return Measure(value, min(low, value), max(high, value))


_SHARES = {f"sensitivity_at_{100 * share:.0f}_percent_false": share for share in FALSE_POSITIVES}
NAMES = ("auroc", "auprc", "mcc", *_SHARES)


def _no_interval(rows: Rows, bootstrap: int) -> str:
    """Why the groups cannot be drawn again; used only if they were not."""
    if bootstrap == 0:
        return "no bootstrap"
    absent = [words for label, words in enumerate(LABELS) if not (rows.label == label).any()]
    return f"there are no {absent[0]} here" if absent else "a class has one group only"


def _drawn(rows: Rows, times: int, seed: int) -> list[Floats]:
    """How often each row occurs, (N,), for each draw of the groups. Empty if a class has fewer than two groups.

    Groups are drawn within their kind: those with virus only, with others only, and with both. So every draw has
    both.
    """
    groups, number = np.unique(rows.group, return_inverse=True)
    has = np.zeros((len(groups), 2), bool)
    has[number, rows.label] = True
    if (has.sum(axis=0) < 2).any():
        return []
    kinds = [
        np.flatnonzero((has == kind).all(axis=1)) for kind in ((True, False), (False, True), (True, True))
    ]
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = []
    for _ in range(times):
        times_G = np.zeros(len(groups))
        for kind in kinds:
            if len(kind):
                np.add.at(times_G, generator.choice(kind, len(kind)), 1)
        drawn.append(times_G[number])
    return drawn


def shares(
    rows: Rows,
    parts: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_], str]],
    *,
    bootstrap: int,
    seed: int,
) -> dict[str, Measure]:
    """Shares of rows with their intervals: name -> how many of the rows in `of` (N,) are also in `which` (N,).

    parts: name -> (which, of, what to say if `of` is empty). Rows without a score count. The groups are
    drawn again as in `measures`.
    """
    drawn, why = _drawn(rows, bootstrap, seed), _no_interval(rows, bootstrap)
    found = {}
    for name, (which, of, none) in parts.items():
        if not of.any():
            found[name] = Measure(None, reason=none)
            continue
        sums = ((float(w[which & of].sum()), float(w[of].sum())) for w in drawn)
        value = float((which & of).sum() / of.sum())
        found[name] = _with_interval(value, [a / b if b else math.nan for a, b in sums], why)
    return found


def confusion(name: str, label: Ints, called: NDArray[np.bool_], has_call: NDArray[np.bool_]) -> Confusion:
    """Count rows: `called` (N,) says which are called virus, `has_call` (N,) which have a call at all."""
    numbers = [
        int(((label == truth) & mask).sum())
        for truth in (1, 0)
        for mask in (called & has_call, ~called & has_call, ~has_call)
    ]
    return Confusion(name, *numbers)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Rows whose probability is from `low` to `high`: their number, mean probability, and the share that is virus.

    share_low, share_high: 95 % Wilson interval of the share, which takes the rows as independent.
    """

    low: float
    high: float
    rows: int
    mean: float
    share: float
    share_low: float
    share_high: float


def reliability(label: Ints, value: Floats, bins: int = 10) -> list[ReliabilityBin]:
    """The bins of equal width that have rows; `value` (N,) from 0 to 1, rows with NaN are left out."""
    known = ~np.isnan(value)
    label, value = label[known], value[known]
    where = np.minimum((value * bins).astype(np.int64), bins - 1)
    found = []
    for k in np.unique(where).tolist():
        mine = where == k
        n, share = int(mine.sum()), float(label[mine].mean())
        low, high = wilson(share, n)
        found.append(ReliabilityBin(k / bins, (k + 1) / bins, n, float(value[mine].mean()), share, low, high))
    return found


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of n independent rows (Wilson 1927)."""
    z = 1.959964
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


def brier(label: Ints, value: Floats) -> float | None:
    """Mean squared difference of value and label, 0 (best) to 1; None without a value."""
    known = ~np.isnan(value)
    return float(((value[known] - label[known]) ** 2).mean()) if known.any() else None


def calibration_error(label: Ints, value: Floats) -> float | None:
    """Expected calibration error: mean difference of share and mean probability over the bins of `reliability`."""
    found = reliability(label, value)
    total = sum(one.rows for one in found)
    return sum(one.rows * abs(one.share - one.mean) for one in found) / total if total else None
