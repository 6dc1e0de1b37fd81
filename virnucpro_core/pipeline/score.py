"""Compute scores from both encoders' shards: merge the embeddings, classify them, collect the scores."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.devices.compute import Compute, device_name, usable_device
from virnucpro_core.errors import StoreError
from virnucpro_core.models.classifier import load_classifier
from virnucpro_core.pipeline.lane import Lane, LaneResult, OnShard, collected, lane_lock, survey
from virnucpro_core.samples.products import MERGED, PREDICTIONS, PRODUCTS


def merge_lane(lane: Lane, *, on_shard: OnShard) -> LaneResult:
    """Write one virtual dataset per shard: DNABERT-S columns, then ESM-2 columns. Verifies the source shards."""
    with lane_lock(lane, MERGED):
        merged = lane.store(MERGED)
        sources = [lane.store(source) for source in PRODUCTS[MERGED].sources]
        resumed = 0
        states: dict[str, int] = {}
        for shard in lane.shards:
            ids = lane.ids(shard)
            entries = [s.require(shard, ids) for s in sources]
            state, known = merged.state(shard, ids), merged.entry(shard)
            states[state] = states.get(state, 0) + 1
            if state == "done" and known and known.sources == tuple(e.sha256 for e in entries):
                resumed += 1
                continue
            frame_R = lane.frames.shard(shard, lane.n_shards)
            pairs = list(zip(sources, entries, strict=True))
            on_shard(merged.write_virtual(shard, frame_R, lane.frames.digests[frame_R], pairs))
        return collected(lane, merged, resumed, states, None)


def score_lane(lane: Lane, compute: Compute, *, on_shard: OnShard) -> LaneResult:
    """Score the lane's merged shards: (rows, 2) float32 per shard, columns others and virus."""
    with lane_lock(lane, PREDICTIONS):
        predictions = lane.store(PREDICTIONS)
        todo, states = survey(lane, predictions)
        if todo:
            with compute.held() as name:
                device = usable_device(name, lane.sample.settings.precision)
                classifier = load_classifier(
                    lane.profile.classifier, device, fingerprint=lane.profile.classifier_fingerprint
                )
                for shard, frame_R, features_RF in _read_ahead(lane, todo):
                    scores_R2 = classifier.score(features_RF)
                    maker = {"rank": lane.rank, "device": device_name(device)}
                    digest_RD = lane.frames.digests[frame_R]
                    on_shard(predictions.write(shard, frame_R, digest_RD, scores_R2, maker=maker))
        return collected(lane, predictions, len(lane.shards) - len(todo), states, None)


def _read_ahead(
    lane: Lane, shards: Sequence[int]
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
    """Yield (shard, frames, merged rows). A thread verifies and reads the next shard while the caller scores one."""

    def read(shard: int) -> tuple[int, NDArray[np.int64], NDArray[np.float32]]:
        ids = lane.ids(shard)
        for product in (*PRODUCTS[MERGED].sources, MERGED):
            lane.store(product).require(shard, ids)
        return shard, *lane.store(MERGED).read(shard)

    with ThreadPoolExecutor(1, thread_name_prefix="read-merged") as thread:
        ahead = deque(thread.submit(read, shard) for shard in shards[:2])
        try:
            for at in range(len(shards)):
                rows = ahead.popleft().result()
                if at + 2 < len(shards):
                    ahead.append(thread.submit(read, shards[at + 2]))
                yield rows
        finally:
            for future in ahead:
                future.cancel()


def collect_scores(lane: Lane) -> NDArray[np.float32]:
    """Scores of all unique frames of the sample, (n_unique, 2) float32, from all ranks.

    Raises StoreError that names the first shard that is missing, stale or damaged, or whose ids differ.
    """
    predictions = lane.store(PREDICTIONS)
    scores_U2 = np.full((lane.frames.n_unique, 2), np.nan, dtype=np.float32)
    for shard in range(lane.n_shards):
        predictions.require(shard, lane.ids(shard))
        frame_R, values_R2 = predictions.read(shard)
        if not np.array_equal(frame_R, lane.frames.shard(shard, lane.n_shards)):
            raise StoreError("rows are not the shard's frames", where=predictions.path(shard))
        scores_U2[frame_R] = values_R2
    if np.isnan(scores_U2).any():
        raise StoreError(
            f"{int(np.isnan(scores_U2).any(axis=1).sum())} frames have no score",
            where=predictions.folder,
        )
    return scores_U2
