"""Runs the golden self-check on installed models, one after the other, and says for each what is wrong."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from virnucpro_core.encoders.encoder import Kind, load_encoder
from virnucpro_core.encoders.loaded import free_encoders
from virnucpro_core.files.manifest import verify
from virnucpro_core.models.classifier import Classifier, load_classifier
from virnucpro_core.models.golden import (
    BOUNDS,
    CLASSIFIER,
    CLASSIFIER_BOUND,
    ENCODERS,
    Golden,
    Outcome,
    Vectors,
    compare_classifier,
    compare_encoder,
    flips,
)
from virnucpro_core.models.golden_diagnosis import diagnose_classifier, diagnose_encoder


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """The outcome of each model, and of all three together.

    agreeing: frames whose call is the published one; difference: the largest of their scores, and `allowed` what it may
    be. All None if not all three models were checked.
    """

    outcomes: tuple[Outcome, ...]
    agreeing: int | None = None
    difference: float | None = None
    allowed: float | None = None

    @property
    def passed(self) -> bool:
        """Whether each model has passed, and all three together."""
        return all(outcome.passed for outcome in self.outcomes) and self.passed_together

    @property
    def passed_together(self) -> bool:
        """Whether no call is another one and no score differs too much; True if not all three models were checked."""
        if self.agreeing is None or self.difference is None or self.allowed is None:
            return True
        return self.agreeing == self.outcomes[0].frames and self.difference <= self.allowed


def check_models(
    golden: Golden,
    folders: Mapping[str, Path],
    *,
    device: torch.device,
    precision: str,
    on_outcome: Callable[[Outcome], None],
) -> SelfCheck:
    """Verify the files of each model, compute its answers and compare them; `on_outcome` is called after each.

    folders: of the models, by their names in `ENCODERS` and `CLASSIFIER`. precision: float32, float16 or fp8. Where fp8
    is asked for, DNABERT-S computes in float16, as in a prediction; the classifier always computes in float32. Raises
    WeightsError for damaged files, DeviceError if the device cannot compute in this precision.
    """
    outcomes: list[Outcome] = []
    vectors: dict[Kind, Vectors] = {}

    def checked(outcome: Outcome, diagnose: Callable[[], str]) -> None:
        outcomes.append(outcome if outcome.passed else replace(outcome, diagnosis=diagnose()))
        on_outcome(outcomes[-1])

    for folder in folders.values():
        verify(folder)
    classifier = load_classifier(folders[CLASSIFIER], device) if CLASSIFIER in folders else None
    for name, kind in ENCODERS.items():
        if name in folders:
            own = "float16" if (kind, precision) == ("dnabert-s", "fp8") else precision
            encoder = load_encoder(kind, folders[name], device=device, dtype=own)
            vectors[kind] = encoder.embed(golden.sequences(kind))
            answer = compare_encoder(golden, name, encoder, vectors[kind], classifier, own)
            checked(answer, functools.partial(diagnose_encoder, golden, encoder))
            del encoder
            free_encoders()
    if classifier is not None:
        folder, answer = folders[CLASSIFIER], compare_classifier(golden, CLASSIFIER, classifier)
        checked(answer, functools.partial(diagnose_classifier, golden, folder, classifier))
    if classifier is None or len(vectors) < 2 or not _fits(classifier, vectors):
        return SelfCheck(tuple(outcomes))
    scores_N2 = classifier.score(np.concatenate([vectors["dnabert-s"], vectors["esm2"]], axis=1))
    agreeing = len(golden.ids) - flips(scores_N2, golden.scores_N2)
    # Each model may shift a score by its own bound, so the three together by the sum.
    allowed = CLASSIFIER_BOUND + sum(BOUNDS[o.precision].scores for o in outcomes if o.model in ENCODERS)
    difference = float(np.abs(scores_N2 - golden.scores_N2).max())
    found = SelfCheck(tuple(outcomes), agreeing, difference, allowed)
    if all(outcome.passed for outcome in outcomes) and not found.passed_together:
        words = f"passed alone, but {together(found)}"
        failed = tuple(replace(outcome, passed=False, diagnosis=words) for outcome in outcomes)
        return replace(found, outcomes=failed)
    return found


def _fits(classifier: Classifier, vectors: Mapping[Kind, Vectors]) -> bool:
    return classifier.input_dim == sum(int(v.shape[1]) for v in vectors.values())


def bytes_needed(folder: Path) -> int:
    """Memory in bytes that a model takes in float32, by its number of parameters. Raises WeightsError."""
    return 4 * int(verify(folder, up_to=0).get("parameters", 0))


def together(found: SelfCheck) -> str:
    """What the three models answer together, for people."""
    return (
        f"with the other models {found.agreeing} of {found.outcomes[0].frames} frames have the published call, largest"
        f" score difference {found.difference:.1e} (allowed: all frames, {found.allowed:g})"
    )


def shown_bounds(outcome: Outcome) -> str:
    """The bounds of this outcome, for people."""
    if outcome.vectors is None:
        return f"score {CLASSIFIER_BOUND:g}"
    bounds = BOUNDS[outcome.precision]
    return f"vector {bounds.vectors:g}, score {bounds.scores:g}"
