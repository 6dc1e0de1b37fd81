"""From scores to probabilities and expected false discovery rates, with a calibration that somebody made.

A calibration says how much more often virus than others has a record's score: the log-odds at equal shares of both,
one curve for each range of record lengths. It holds for one classifier and one chunk size, and lies beside the
classifier as `calibration-{chunk size}.json`. `virnucpro calibrate` makes it. Scores with open frames have calibrations
of their own, `calibration-{chunk size}-open{least amino acids}.json`.

    log-odds of the record = curve(score) + log(prior / (1 - prior))

The prior is the share of virus among the sample's records: an option, or estimated from the scores. geNomad counts
its calls for that and moves the shares towards equal ones if they are skewed; here the expected share is iterated
until it agrees with itself (Saerens, Latinne and Decaestecker 2002), and PSEUDO_RECORDS with equal shares are added,
so that the estimate of a few records stays near 0.5.

The expected false discovery rate of a record is the mean of 1 - probability over all records with at least its
probability. It never falls when the probability falls. Log-odds are rounded to 1 / STEPS, so that the sample is
counted in a histogram and memory does not grow with it.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.errors import UsageError, WeightsError
from virnucpro_core.files.digests import sha256_json
from virnucpro_core.files.foreign_json import parse_json
from virnucpro_core.files.publish import publish_json
from virnucpro_core.results.record_calls import NO_CALL, OTHERS, VIRUS, RecordCalls

FORMAT, KIND = 1, "virnucpro-calibration"
STEPS = 1_000
# A setting of a sample: use no calibration, although there may be one.
NO_CALIBRATION = "none"
MOST_LOG_ODDS = 16.0
_HALF = round(MOST_LOG_ODDS * STEPS)  # log-odds of 0 are in this bin
PSEUDO_RECORDS = 100
NOT_COVERED = "the calibration does not cover this length"
Preset = Literal["", "conservative", "relaxed"]
# A record is called virus if its expected false discovery rate is at most this.
PRESETS: dict[str, float] = {"conservative": 0.05, "relaxed": 0.2}

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """Log-odds of virus by score, for records of `first` to `end` - 1 bases (`end` 0: no limit).

    score, log_odds: (n,) rising; straight lines between the points, constant beyond them. Empty if there were too few
    records, and `reason` says so.
    """

    first: int
    end: int
    score: tuple[float, ...] = ()
    log_odds: tuple[float, ...] = ()
    reason: str = ""

    @property
    def words(self) -> str:
        """`500 to 999 bases`."""
        return f"{self.first:,} to {self.end - 1:,} bases" if self.end else f"{self.first:,} bases or more"

    def least_score(self, log_odds: float) -> float:
        """The least score with at least these log-odds; infinity if no score has them, NaN without a curve."""
        if not self.score:
            return math.nan
        k = int(np.searchsorted(self.log_odds, log_odds))
        if k in (0, len(self.score)):
            return 0.0 if k == 0 else math.inf
        return float(np.interp(log_odds, self.log_odds[k - 1 : k + 1], self.score[k - 1 : k + 1]))

    def covers(self, length: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,) lengths in bases -> (n,) bool."""
        return (length >= self.first) & ((length < self.end) if self.end else True)


@dataclass(frozen=True)
class Calibration:
    """Curves of one classifier (its fingerprint) and chunk size (bases). `facts`: how it was made, for people.

    min_open: least amino acids of the open frames that were scored, 0 for stop-free frames only.
    """

    classifier: str
    chunk_size: int
    method: str
    curves: tuple[Curve, ...]
    facts: dict[str, Any]
    min_open: int = 0

    def content(self) -> dict[str, Any]:
        """What the file holds, without its seal."""
        curves = [
            {"from": c.first, "to": c.end, "score": c.score, "log_odds": c.log_odds, "reason": c.reason}
            for c in self.curves
        ]
        head = {"kind": KIND, "format": FORMAT, "classifier": self.classifier, "chunk_size": self.chunk_size}
        head |= {"min_open": self.min_open} if self.min_open else {}
        # Through JSON, so that the digest of a calibration is the same before and after it was in a file.
        whole: dict[str, Any] = json.loads(
            json.dumps(head | {"method": self.method, "curves": curves, "facts": self.facts})
        )
        return whole

    @cached_property
    def digest(self) -> str:
        """sha256 over the content."""
        return sha256_json(self.content())

    def save(self, path: Path) -> None:
        """Publish the file. The same calibration gives the same bytes."""
        publish_json(path, self.content() | {"seal": self.digest})

    def log_odds(self, score: Floats, length: NDArray[np.int64]) -> Floats:
        """(n,) scores and lengths in bases -> (n,) log-odds at equal shares; NaN without a score or a curve."""
        found = np.full(len(score), np.nan)
        for curve in self.curves:
            if curve.score:
                mine = curve.covers(length) & ~np.isnan(score)
                found[mine] = np.interp(score[mine], curve.score, curve.log_odds)
        return found


def calibration_file(classifier: Path, chunk_size: int, min_open: int = 0) -> Path:
    """Where the calibration of a classifier (its folder) for this chunk size and these open frames lies."""
    return classifier / f"calibration-{chunk_size}{f'-open{min_open}' if min_open else ''}.json"


def frames_in_words(min_open: int) -> str:
    """`stop-free frames only`, or with open frames their least length in amino acids."""
    return f"open frames of {min_open} or more amino acids too" if min_open else "stop-free frames only"


def read_calibration(path: Path) -> Calibration:
    """Raises WeightsError if the file is missing, is damaged or is no calibration."""
    try:
        raw: dict[str, Any] = parse_json(path.read_bytes())
        seal = raw.pop("seal", "")
        if raw["kind"] != KIND or raw["format"] != FORMAT or sha256_json(raw) != seal:
            raise ValueError("its content does not match its seal")
        curves = tuple(
            Curve(int(c["from"]), int(c["to"]), tuple(c["score"]), tuple(c["log_odds"]), str(c["reason"]))
            for c in raw["curves"]
        )
        return Calibration(
            str(raw["classifier"]),
            int(raw["chunk_size"]),
            str(raw["method"]),
            curves,
            dict(raw["facts"]),
            int(raw.get("min_open", 0)),
        )
    except FileNotFoundError as error:
        raise WeightsError(
            "no such calibration", where=path, remedy="make one with `virnucpro calibrate`"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"not a calibration, or damaged ({error})",
            where=path,
            remedy="make it again with `virnucpro calibrate`",
        ) from error


def find_calibration(
    classifier: Path,
    fingerprint: str,
    chunk_size: int,
    *,
    file: str = "",
    needed_by: str = "",
    min_open: int = 0,
) -> Calibration | None:
    """The calibration for a classifier (folder and fingerprint) and a chunk size: `file`, or else the one beside it.

    min_open: least amino acids of open frames, 0 without such. None if `file` is "none", or if none was given and none
    lies there. Raises WeightsError for a calibration of another classifier, chunk size or kind of frames, with both
    values; UsageError if an option, `needed_by`, needs one and there is
    none.
    """
    path = Path(file) if file else calibration_file(classifier, chunk_size, min_open)
    if file == NO_CALIBRATION or (not file and not path.exists()):
        if needed_by:
            of_open = f" and {frames_in_words(min_open)}" if min_open else ""
            raise UsageError(
                f"{needed_by} needs a calibration of this classifier for chunks of {chunk_size} bases{of_open};"
                " there is none",
                where=classifier,
                remedy="make one with `virnucpro calibrate`, or leave the option out",
            )
        return None
    found = read_calibration(path)
    if found.classifier != fingerprint:
        raise WeightsError(
            f"the calibration is for the classifier {found.classifier[:16]}..., this one is {fingerprint[:16]}...",
            where=path,
            remedy="calibrate this classifier with `virnucpro calibrate`",
        )
    if found.chunk_size != chunk_size:
        raise WeightsError(
            f"the calibration is for chunks of {found.chunk_size} bases, the sample has chunks of {chunk_size}",
            where=path,
            remedy="make a calibration for this chunk size with `virnucpro calibrate`",
        )
    if found.min_open != min_open:
        raise WeightsError(
            f"the calibration is for scores of {frames_in_words(found.min_open)}, these are of"
            f" {frames_in_words(min_open)}",
            where=path,
            remedy="make one with `virnucpro calibrate` and the same --frames and --min-open",
        )
    return found


def probability(log_odds: Floats, prior: float) -> Floats:
    """(n,) log-odds at equal shares -> (n,) probability of virus where a share `prior` (0 to 1) is virus."""
    shift = math.log(prior) - math.log1p(-prior)
    found: Floats = 1 / (1 + np.exp(-(log_odds + shift)))
    return found


def estimated_prior(log_odds: Floats, records: NDArray[np.int64]) -> float:
    """The share of virus that agrees with itself, from log-odds (n,) and how many records have each; see the module."""
    total = int(records.sum())
    share = 0.5
    for _ in range(1_000):
        before, share = (
            share,
            (float(probability(log_odds, share) @ records) + 0.5 * PSEUDO_RECORDS) / (total + PSEUDO_RECORDS),
        )
        if abs(share - before) < 1e-9:
            break
    return share


class SampleProbabilities:
    """The probabilities and expected false discovery rates of one sample.

    blocks: what `counted` says of all blocks of its records. prior: the share of virus, None to estimate it.
    preset: how to call, "" to leave the calls as they are.
    """

    def __init__(
        self,
        calibration: Calibration,
        blocks: Iterable[tuple[NDArray[np.int64], int]],
        *,
        prior: float | None,
        preset: Preset,
    ) -> None:
        self.calibration, self.preset = calibration, preset
        counts = np.zeros(2 * _HALF + 1, np.int64)
        self.without = 0
        for steps, without in blocks:
            counts += steps
            self.without += without
        log_odds = (np.arange(len(counts)) - _HALF) / STEPS
        self.records = int(counts.sum())
        self.is_estimated = prior is None
        self.prior = estimated_prior(log_odds, counts) if prior is None else prior
        self._probability = probability(log_odds, self.prior)
        above = np.cumsum(counts[::-1])[::-1]
        false = np.cumsum((counts * (1 - self._probability))[::-1])[::-1]
        self._fdr = np.divide(false, above, out=np.zeros(len(counts)), where=above > 0)

    def applied(self, block: RecordCalls) -> RecordCalls:
        """The block with `probability` and `fdr` (n,), NaN where there is none; with a preset also called by it.

        With a preset, a record whose length the calibration does not cover has no call.
        """
        step = _steps(self.calibration, block)
        found, fdr = (np.where(step >= 0, values[step], np.nan) for values in (self._probability, self._fdr))
        block = replace(block, probability=found, fdr=fdr)
        if not self.preset:
            return block
        called = np.where(fdr <= PRESETS[self.preset], VIRUS, OTHERS)
        call = np.where(step >= 0, called, NO_CALL).astype(np.uint8)
        pairs = zip(block.reasons, call.tolist(), strict=True)
        reasons = [NOT_COVERED if k == NO_CALL and not reason else reason for reason, k in pairs]
        return replace(block, call=call, reasons=reasons, cutoff=self._cutoffs(block.length))

    def _cutoffs(self, length: NDArray[np.int64]) -> Floats:
        """The least score with which the preset calls a record of this length (n,) virus; NaN if none decides."""
        good = np.flatnonzero(
            self._fdr <= PRESETS[self.preset]
        )  # it falls, so that all above the first one are good
        least = (int(good[0]) - _HALF) / STEPS if len(good) else math.inf
        found = np.full(len(length), np.nan)
        for curve in self.calibration.curves:
            found[curve.covers(length)] = curve.least_score(least)
        return found

    def facts(self) -> dict[str, Any]:
        """For `run.json` and the report."""
        return {
            "sha256": self.calibration.digest,
            "method": self.calibration.method,
            "prior": round(self.prior, 6),
            "prior_is_estimated": self.is_estimated,
            "records": self.records,
            "records_without": self.without,
        }


def counted(calibration: Calibration, block: RecordCalls) -> tuple[NDArray[np.int64], int]:
    """How many records of the block have each log-odds, and how many with a call have none."""
    step = _steps(calibration, block)
    without = int(((step < 0) & (block.call != NO_CALL)).sum())
    return np.bincount(step[step >= 0], minlength=2 * _HALF + 1), without


def _steps(calibration: Calibration, block: RecordCalls) -> NDArray[np.int64]:
    """The bin of each record's log-odds, (n,); -1 without a probability."""
    log_odds = calibration.log_odds(block.score, block.length)
    steps = np.rint(np.clip(np.nan_to_num(log_odds), -MOST_LOG_ODDS, MOST_LOG_ODDS) * STEPS).astype(np.int64)
    return np.where(np.isnan(log_odds), -1, steps + _HALF)
