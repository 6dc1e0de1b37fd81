"""Scores the shards of a lane while their rows are in memory, so that `predictions` need not read gigabytes again.

The process that computes a shard with the second encoder has its rows in memory, and those of the first on disk. It
classifies them then and keeps the scores, 8 bytes a row, inside a `scores_at_hand` block. A step that needs the scores
takes them by what they were made from: the sha256 of both shards, the classifier and the device. Everything else is
read from disk. The bits are the same: the same rows go through the same classifier in the same blocks.
"""

import contextlib
import functools
import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from virnucpro_core.engine.shards import Entry
from virnucpro_core.errors import VirnucproError
from virnucpro_core.models.classifier import Classifier, load_classifier
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.samples.products import MERGED, PRODUCTS, Embedding

log = logging.getLogger(__name__)
Key = tuple[str, ...]
# One block at a time a process: None outside of one.
_scores: dict[Key, NDArray[np.float32]] | None = None


@contextlib.contextmanager
def scores_at_hand() -> Iterator[None]:
    """Keep the scores of shards that are computed inside the block until they are taken, or until it ends."""
    global _scores  # noqa: PLW0603 - what a process has in memory is the process's
    _scores = {}
    try:
        yield
    finally:
        _scores = None


def take_scores(lane: Lane, sources: Sequence[Entry], device: torch.device) -> NDArray[np.float32] | None:
    """The scores (rows, 2) of merged shards with these sources, in the order of MERGED's, if they are at hand."""
    return _scores.pop(_key(lane, sources, device), None) if _scores else None


class AtHand:
    """Classifies the rows of each shard that the lane has computed with `product` on `device`."""

    def __init__(self, lane: Lane, product: Embedding, device: torch.device) -> None:
        self.lane, self.product, self.device = lane, product, device

    def __call__(self, entry: Entry, values_RD: NDArray[np.float32]) -> None:
        """Score a published shard, if that of the other encoder is there. What fails here is done and told later."""
        others = [name for name in PRODUCTS[MERGED].sources if name != self.product]
        if _scores is None or not all(self.lane.store(name).looks_done(entry.shard) for name in others):
            return
        try:
            ids = self.lane.ids(entry.shard)
            entries = {name: self.lane.store(name).require(entry.shard, ids) for name in others}
            rows = {name: self.lane.store(name).read(entry.shard)[1] for name in others}
            entries[self.product], rows[self.product] = entry, values_RD
            features_RF = np.concatenate([rows[name] for name in PRODUCTS[MERGED].sources], axis=1)
            with self._own_stream():
                scores_R2 = self._classifier.score(features_RF)
        except (VirnucproError, torch.OutOfMemoryError) as error:
            log.debug("shard %d is scored from disk: %s", entry.shard, error)
            return
        sources = [entries[name] for name in PRODUCTS[MERGED].sources]
        _scores[_key(self.lane, sources, self.device)] = scores_R2

    @functools.cached_property
    def _classifier(self) -> Classifier:
        profile = self.lane.profile
        return load_classifier(profile.classifier, self.device, fingerprint=profile.classifier_fingerprint)

    def _own_stream(self) -> contextlib.AbstractContextManager[object]:
        """A stream beside that of the encoder, so that nothing here waits for the encoder's next shard."""
        if self.device.type != "cuda":
            return contextlib.nullcontext()
        return torch.cuda.stream(self._stream)

    @functools.cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)


def _key(lane: Lane, sources: Sequence[Entry], device: torch.device) -> Key:
    return (*(entry.sha256 for entry in sources), lane.profile.classifier_fingerprint, str(device))
