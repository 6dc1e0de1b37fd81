"""Compute scores from both encoders' shards: merge the embeddings, classify them, collect the scores."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from virnucpro_core.devices.compute import Compute
from virnucpro_core.devices.cuda import device_name, usable_device
from virnucpro_core.engine.shards import Entry
from virnucpro_core.errors import StoreError
from virnucpro_core.models.classifier import load_classifier
from virnucpro_core.pipeline.at_hand import take_scores
from virnucpro_core.pipeline.lane import Lane, LaneResult, OnShard, collected, in_threads, lane_lock, survey
from virnucpro_core.samples.products import MERGED, PREDICTIONS, PRODUCTS

# Threads that read merged rows ahead of the classifier. A shard has 133 MB of them.
READERS = 2


def merge_lane(lane: Lane, *, on_shard: OnShard) -> LaneResult:
    """Write one virtual dataset per shard: DNABERT-S columns, then ESM-2 columns. Verifies the source shards."""
    with lane_lock(lane, MERGED):
        merged = lane.store(MERGED)
        sources = [lane.store(source) for source in PRODUCTS[MERGED].sources]

        def merge(shard: int) -> tuple[str, Entry | None]:
            """State of the shard before, and its entry if it was written."""
            ids = lane.ids(shard)
            entries = [s.require(shard, ids) for s in sources]
            state, known = merged.state(shard, ids), merged.entry(shard)
            if state == "done" and known and known.sources == tuple(e.sha256 for e in entries):
                return state, None
            frame_R = lane.frames.shard(shard, lane.n_shards)
            pairs = list(zip(sources, entries, strict=True))
            return state, merged.write_virtual(shard, frame_R, lane.frames.digests[frame_R], pairs)

        states: Counter[str] = Counter()
        resumed = 0
        for state, entry in in_threads(merge, lane.shards):
            states[state] += 1
            if entry is None:
                resumed += 1
            else:
                on_shard(entry)
        return collected(lane, merged, resumed, dict(states), None)


def score_lane(lane: Lane, compute: Compute, *, on_shard: OnShard) -> LaneResult:
    """Score the lane's merged shards: (rows, 2) float32 per shard, columns others and virus.

    Scores that are at hand (at_hand.py) are written as they are; for the others the rows are read.
    """
    with lane_lock(lane, PREDICTIONS):
        predictions = lane.store(PREDICTIONS)
        todo, states = survey(lane, predictions)
        if todo:
            with compute.held() as name:
                device = usable_device(name, lane.sample.settings.precision)
                maker = {"rank": lane.rank, "device": device_name(device)}

                def write(scored: tuple[int, NDArray[np.float32]]) -> Entry:
                    shard, scores_R2 = scored
                    frame_R = lane.frames.shard(shard, lane.n_shards)
                    digest_RD = lane.frames.digests[frame_R]
                    return predictions.write(shard, frame_R, digest_RD, scores_R2, maker=maker)

                for entry in in_threads(write, _scored(lane, todo, device)):
                    on_shard(entry)
        return collected(lane, predictions, len(lane.shards) - len(todo), states, None)


def _scored(
    lane: Lane, shards: Sequence[int], device: torch.device
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Each shard and its scores (rows, 2). First the shards whose scores are at hand, then those that must be read."""
    to_read: list[int] = []
    for shard in shards:
        entries = [lane.store(product).entry(shard) for product in PRODUCTS[MERGED].sources]
        scores_R2 = take_scores(lane, [entry for entry in entries if entry], device)
        if scores_R2 is None:
            to_read.append(shard)
        else:
            _verify(lane, shard)
            yield shard, scores_R2
    if to_read:
        profile = lane.profile
        classifier = load_classifier(profile.classifier, device, fingerprint=profile.classifier_fingerprint)
        for shard, rows_RF in in_threads(partial(_merged_rows, lane), to_read, READERS):
            yield shard, classifier.score(rows_RF)


def _verify(lane: Lane, shard: int) -> None:
    """Verify the merged shard and its sources. Raises StoreError."""
    for product in (*PRODUCTS[MERGED].sources, MERGED):
        lane.store(product).require(shard, lane.ids(shard))


def _merged_rows(lane: Lane, shard: int) -> tuple[int, NDArray[np.float32]]:
    """(shard, merged rows), verified."""
    _verify(lane, shard)
    return shard, lane.store(MERGED).read(shard)[1]


def collect_scores(lane: Lane) -> NDArray[np.float32]:
    """Scores of all unique frames of the sample, (n_unique, 2) float32, from all ranks.

    Raises StoreError that names the first shard that is missing, stale or damaged, or whose ids differ.
    """
    predictions = lane.store(PREDICTIONS)
    scores_U2 = np.full((lane.frames.n_unique, 2), np.nan, dtype=np.float32)

    def read(shard: int) -> tuple[int, NDArray[np.int64], NDArray[np.float32]]:
        predictions.require(shard, lane.ids(shard))
        return shard, *predictions.read(shard)

    for shard, frame_R, values_R2 in in_threads(read, range(lane.n_shards)):
        if not np.array_equal(frame_R, lane.frames.shard(shard, lane.n_shards)):
            raise StoreError("rows are not the shard's frames", where=predictions.path(shard))
        scores_U2[frame_R] = values_R2
    if np.isnan(scores_U2).any():
        raise StoreError(
            f"{int(np.isnan(scores_U2).any(axis=1).sum())} frames have no score",
            where=predictions.folder,
        )
    return scores_U2
