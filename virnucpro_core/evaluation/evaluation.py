"""Evaluate labelled scores: measures of all records, by length and by group, per record and per chunk.

`evaluate` computes, `save` writes `evaluation.json` and `evaluation.tsv`; the page is in `page.py`.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.errors import UsageError
from virnucpro_core.evaluation.calibrating import HeldOut
from virnucpro_core.evaluation.metrics import (
    BOOTSTRAP,
    Confusion,
    Measure,
    ReliabilityBin,
    Rows,
    brier,
    calibration_error,
    confusion,
    measures,
    reliability,
    shares,
    wilson,
)
from virnucpro_core.evaluation.scores import Scored
from virnucpro_core.files.publish import publish_bytes, publish_json
from virnucpro_core.results.calibration import NO_CALIBRATION, NOT_COVERED, PRESETS, Curve
from virnucpro_core.sequences.labelled import LABELS

JSON, TABLE, PAGE = "evaluation.json", "evaluation.tsv", "evaluation.html"
FORMAT = 1
NOTHING_CALLED = "nothing is called virus"
NONE_WITH_PROBABILITY = "nothing that is called virus has a probability"
FOUND, FOUND_OF_ALL = "found_of_virus_with_a_call", "found_of_all_virus"
# Parts of a sample with open frames, beside those by length.
FULL, OPEN = "with a stop-free frame", "open frames only"
LENGTH_BINS = (500, 1_000, 3_000, 10_000)
Mask = NDArray[np.bool_]
_COLUMNS = ("level", "part", "measure", "value", "low", "high", "virus", "others", "no_call", "reason")


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """cutoff: of a record's score. length_bins: where bins begin, in bases. bootstrap: draws, 0 for no intervals."""

    cutoff: float = 0.5
    length_bins: tuple[int, ...] = LENGTH_BINS
    bootstrap: int = BOOTSTRAP
    seed: int = 42

    def __post_init__(self) -> None:
        bins = self.length_bins
        if not bins or bins[0] < 1 or any(a >= b for a, b in itertools.pairwise(bins)):
            raise UsageError(
                f"length bins {','.join(map(str, bins))} do not rise",
                remedy="give bases such as 500,1000,3000",
            )
        if not 0 <= self.bootstrap <= 100_000:
            raise UsageError(f"bootstrap is {self.bootstrap}", remedy="give 0 to 100,000 draws")


@dataclass(frozen=True, slots=True)
class Part:
    """The measures of some rows. Counts are of rows with a score, `no_call` those without one, by label.

    shares: for records, FOUND and FOUND_OF_ALL at the cut-off; for the latter a record without a call is not found.
    """

    name: str
    virus: int
    others: int
    no_call_virus: int
    no_call_others: int
    measures: dict[str, Measure]
    shares: dict[str, Measure]


@dataclass(frozen=True, slots=True)
class GroupPart:
    """A group: how many of its records with a call have the right one, with the share's 95 % Wilson interval."""

    name: str
    labels: str
    records: int
    no_call: int
    right: int
    mean_score: float | None
    share: Measure


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well the values of `records` records agree with shares. `error`: the expected calibration error.

    brier, error: None without records.
    """

    name: str
    records: int
    bins: list[ReliabilityBin]
    brier: float | None
    error: float | None


@dataclass(frozen=True, slots=True)
class Calling:
    """One way of calling. found: called virus among virus with a score; found_of_all: among all virus, no_call is not
    found. false: others among what is called virus (observed false discovery rate); expected_false: what the
    probabilities let expect, None without a calibration. With a calibration both are of the same records: those called
    virus that have a probability. called_without: records called virus that have none.
    """

    name: str
    found: Measure
    found_of_all: Measure
    false: Measure
    expected_false: float | None
    called_without: int


@dataclass(frozen=True)
class Evaluation:
    """The whole evaluation. `run`: sample, profile, note, settings, versions, digests of what was evaluated.

    shares: `virus`, the share of virus among the records with a score; `prior`, the share behind the probabilities, and
    `prior_words`, where it is from; None and "" without a calibration. without_probability: records with a score but no
    probability, 0 without a calibration; no_probability: why they have none, or why none has one.
    """

    run: dict[str, Any]
    settings: EvaluationSettings
    records: list[Part]
    chunks: list[Part]
    groups: list[GroupPart]
    confusion: list[Confusion]
    reliability: list[Reliability]
    chunks_without: int
    callings: list[Calling]
    shares: dict[str, Any]
    without_probability: int
    no_probability: str
    calibration: dict[str, Any] = field(default_factory=dict)


def evaluate(
    scored: Scored, settings: EvaluationSettings, run: Mapping[str, Any], held_out: HeldOut | None = None
) -> Evaluation:
    """Evaluate records and chunks. held_out: probabilities from calibrations of other groups, if one was made."""
    records, label = scored.records, scored.records.label
    known = scored if held_out is None else held_out
    ways = [(f"cut-off {settings.cutoff:g}", records.score >= settings.cutoff, ~np.isnan(records.score))]
    if known.fdr is not None:
        has_rate = ~np.isnan(known.fdr)
        ways += [
            (f"{name} (fdr at most {most:g})", known.fdr <= most, has_rate) for name, most in PRESETS.items()
        ]
    probability = known.probability
    without = 0 if probability is None else int((np.isnan(probability) & ~np.isnan(records.score)).sum())
    shown = [_reliability("score", label, records.score)]
    if probability is not None:
        if not np.isnan(probability).all():  # both of the same records, so that their errors can be compared
            shown = [_reliability("score", label, np.where(np.isnan(probability), np.nan, records.score))]
        name = "probability" if held_out is None else "probability, held-out groups"
        shown.append(_reliability(name, label, probability))
    return Evaluation(
        run=dict(run),
        settings=settings,
        records=_parts(records, settings, with_shares=True)
        + _by_frames(records, scored.open_records, settings, with_shares=True),
        chunks=_parts(scored.chunks, settings) + _by_frames(scored.chunks, scored.open_chunks, settings),
        groups=_groups(scored, settings.cutoff),
        confusion=[confusion(name, label, called, has_call) for name, called, has_call in ways],
        callings=[_calling(records, way, probability, settings) for way in ways],
        reliability=shown,
        chunks_without=scored.chunks_without,
        shares=_shares(records, scored, held_out),
        without_probability=without,
        no_probability=_no_probability(run, held_out, is_calibrated=probability is not None),
        calibration={} if held_out is None else held_out.facts,
    )


def _no_probability(run: Mapping[str, Any], held_out: HeldOut | None, *, is_calibrated: bool) -> str:
    """Why records with a score have no probability: some of them, or all if there is no calibration."""
    if held_out is not None:
        return "in the other groups there are too few records of their length"
    if is_calibrated:
        return NOT_COVERED
    if run.get("settings", {}).get("calibration") == NO_CALIBRATION:
        return "the calibration was left out by --calibration none"
    return "this classifier has no calibration"


def _shares(records: Rows, scored: Scored, held_out: HeldOut | None) -> dict[str, Any]:
    label = records.scored.label
    virus = float(label.mean()) if len(label) else None
    if held_out is not None:
        return {"virus": virus, "prior": held_out.prior, "prior_words": "that of the labelled records"}
    return {"virus": virus, "prior": scored.prior, "prior_words": scored.prior_words}


def _calling(
    rows: Rows,
    way: tuple[str, Mask, Mask],
    probability: NDArray[np.float64] | None,
    settings: EvaluationSettings,
) -> Calling:
    name, called, has_call = way
    virus = rows.label == 1
    judged = called if probability is None else called & ~np.isnan(probability)
    parts = {
        "found": (called, virus & has_call, "no virus has a call"),
        "found_of_all": (called, virus, "no virus"),
        "false": (~virus, judged, NONE_WITH_PROBABILITY if called.any() else NOTHING_CALLED),
    }
    found = shares(rows, parts, bootstrap=settings.bootstrap, seed=settings.seed)
    expected = None
    if probability is not None and judged.any():
        expected = float((1 - probability[judged]).mean())
    return Calling(name, **found, expected_false=expected, called_without=int((called & ~judged).sum()))


def length_ranges(edges: Sequence[int]) -> list[Curve]:
    """The length ranges of bins that begin at 0 and at `edges` (bases), without any curve in them yet."""
    return [Curve(a, b) for a, b in zip((0, *edges), (*edges, 0), strict=True)]


def _parts(rows: Rows, settings: EvaluationSettings, *, with_shares: bool = False) -> list[Part]:
    found = [_part("all", rows, settings, with_shares=with_shares)]
    for one in length_ranges(settings.length_bins):
        mine = one.covers(rows.length)
        if mine.any():
            found.append(_part(one.words, rows.where(mine), settings, with_shares=with_shares))
    return found


def _by_frames(
    rows: Rows, is_open: NDArray[np.bool_] | None, settings: EvaluationSettings, *, with_shares: bool = False
) -> list[Part]:
    """The rows with a score by a stop-free frame, and those with one by open frames only. is_open: (N,)."""
    if is_open is None:
        return []
    kinds = {FULL: ~is_open & ~np.isnan(rows.score), OPEN: is_open}
    return [
        _part(name, rows.where(mine), settings, with_shares=with_shares)
        for name, mine in kinds.items()
        if mine.any()
    ]


def _part(name: str, rows: Rows, settings: EvaluationSettings, *, with_shares: bool) -> Part:
    without = np.isnan(rows.score)
    virus = rows.label == 1
    called = rows.score >= settings.cutoff
    parts = {
        FOUND: (called, virus & ~without, "no virus has a call"),
        FOUND_OF_ALL: (called, virus, "no virus"),
    }
    return Part(
        name,
        int((virus & ~without).sum()),
        int((~virus & ~without).sum()),
        int((virus & without).sum()),
        int((~virus & without).sum()),
        measures(rows, cutoff=settings.cutoff, bootstrap=settings.bootstrap, seed=settings.seed),
        shares(rows, parts, bootstrap=settings.bootstrap, seed=settings.seed) if with_shares else {},
    )


def _groups(scored: Scored, cutoff: float) -> list[GroupPart]:
    rows, found = scored.records, []
    order = np.argsort(rows.group, kind="stable")
    bounds = np.searchsorted(rows.group[order], np.arange(len(scored.groups) + 1))
    for k, name in enumerate(scored.groups):
        mine = order[bounds[k] : bounds[k + 1]]
        label, score = rows.label[mine], rows.score[mine]
        known = ~np.isnan(score)
        n, right = int(known.sum()), int(((score >= cutoff) == (label == 1))[known].sum())
        share = Measure(None, reason="no record has a score")
        if n:
            share = Measure(right / n, *wilson(right / n, n))
        words = " and ".join(LABELS[k] for k in np.unique(label)[::-1])
        mean = float(score[known].mean()) if n else None
        found.append(GroupPart(name, words, len(mine), len(mine) - n, right, mean, share))
    return found


def _reliability(name: str, label: NDArray[np.int64], value: NDArray[np.float64]) -> Reliability:
    bins, error = reliability(label, value), calibration_error(label, value)
    return Reliability(name, int((~np.isnan(value)).sum()), bins, brier(label, value), error)


def save(evaluation: Evaluation, out: Path) -> None:
    """Write `evaluation.json` and `evaluation.tsv`. The same evaluation gives the same bytes."""
    publish_json(out / JSON, {"format": FORMAT} | asdict(evaluation))
    lines = ["\t".join(_COLUMNS)]
    for level, parts in (("records", evaluation.records), ("chunks", evaluation.chunks)):
        for part in parts:
            counts = (part.virus, part.others, part.no_call_virus + part.no_call_others)
            figures = part.measures | part.shares
            lines += [_line(level, part.name, name, one, counts) for name, one in figures.items()]
    for way in evaluation.callings:
        why = evaluation.no_probability if evaluation.shares["prior"] is None else way.false.reason
        expected = Measure(way.expected_false, reason="" if way.expected_false is not None else why)
        for name, one in (
            (FOUND, way.found),
            (FOUND_OF_ALL, way.found_of_all),
            ("observed_false_discovery_rate", way.false),
            ("expected_false_discovery_rate", expected),
            ("called_virus_without_probability", Measure(way.called_without)),
        ):
            lines.append(_line("calls", way.name, name, one, ("", "", "")))
    for group in evaluation.groups:
        scored = group.records - group.no_call
        counts = (scored * (group.labels == "virus"), scored * (group.labels == "others"), group.no_call)
        if " " not in group.labels:
            lines.append(_line("groups", group.name, "share_right", group.share, counts))
        else:
            lines.append(_line("groups", group.name, "share_right", group.share, ("", "", group.no_call)))
    publish_bytes(out / TABLE, ("\n".join(lines) + "\n").encode())


def _line(level: str, part: str, name: str, one: Measure, counts: Sequence[object]) -> str:
    numbers = ("" if v is None else f"{v:.6g}" for v in (one.value, one.low, one.high))
    return "\t".join([level, part, name, *numbers, *map(str, counts), one.reason])
