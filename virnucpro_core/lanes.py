"""One lane's part of each sharded product: what to compute, what is done already, what it depends on.

`merge_lane`, `score_lane` and `collect_scores` are what the assets call, and `embed_lane` (embedding.py). They
decide by the manifests alone, hold the lane's lock while they write, and return what they found and did.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.behind import begun
from virnucpro_core.chunks import Chunks
from virnucpro_core.classifier import load_classifier
from virnucpro_core.devices import Compute, device_name, usable_device
from virnucpro_core.durable import disk_errors, locked, sha256_json, sweep
from virnucpro_core.errors import StoreError
from virnucpro_core.frames import Frames
from virnucpro_core.occupancy import in_use
from virnucpro_core.profiles import ResolvedProfile
from virnucpro_core.registry import Sample
from virnucpro_core.shards import Entry, ShardStore, ids_digest, lane_shards
from virnucpro_core.space import REPORT_BYTES, RESULT_BYTES_A_FRAME, sharded_bytes
from virnucpro_core.telemetry import LaneSummary

Embedding = Literal["dnabert_embeddings", "esm_embeddings"]
DNABERT: Literal["dnabert_embeddings"] = "dnabert_embeddings"
ESM: Literal["esm_embeddings"] = "esm_embeddings"
MERGED, PREDICTIONS = "merged_features", "predictions"
OnShard = Callable[[Entry], None]


@dataclass(frozen=True)
class Lane:
    """A sample's share for one rank, with its stores opened. Stores are named by all their content depends on."""

    sample: Sample
    profile: ResolvedProfile
    rank: int
    world_size: int

    @cached_property
    def frames(self) -> Frames:
        """The frame store, every byte of it held against its digest. Raises StoreError."""
        frames = self._opened()
        frames.store.verify()
        return frames

    def frames_behind(self) -> Callable[[], None]:
        """Have `frames` at once; nothing may be published before the call that this returns, which verifies it."""
        if "frames" in self.__dict__:
            return lambda: None
        self.__dict__["frames"] = frames = self._opened()
        return begun(frames.store.verify)

    def _opened(self) -> Frames:
        frames = Frames.open(self.sample.translations)
        chunks = Chunks.open(self.sample.chunks)
        if frames.attrs["chunks"] != chunks.digest:
            raise StoreError(
                "translations belong to other chunks",
                where=self.sample.translations,
                remedy="materialize translations",
            )
        return frames

    @cached_property
    def n_shards(self) -> int:
        return self.frames.n_shards(self.sample.settings.shard_rows)

    @property
    def shards(self) -> range:
        return lane_shards(self.n_shards, self.rank, self.world_size)

    def rows(self, shards: Iterable[int]) -> int:
        """Unique frames in these shards."""
        return sum(len(self.frames.shard(shard, self.n_shards)) for shard in shards)

    def ids(self, shard: int) -> str:
        """Digest of the frame ids that the shard has to hold, in order."""
        return ids_digest(self.frames.digests[self.frames.shard(shard, self.n_shards)])

    def precision(self, product: str) -> str:
        """What the product is computed in; fp8 is a mode of ESM-2, DNABERT-S then computes float16."""
        asked = self.sample.settings.precision
        return "float16" if asked == "fp8" and product == DNABERT else asked

    def weights(self, product: str) -> Path:
        """The folder of the product's encoder."""
        return self.profile.dnabert if product == DNABERT else self.profile.esm2

    def embeddings(self, product: str) -> ShardStore:
        profile = self.profile
        encoder = profile.dnabert_fingerprint if product == DNABERT else profile.esm2_fingerprint
        identity = {
            "product": product,
            "frames": self.frames.digest,
            "shards": self.n_shards,
            "encoder": encoder,
            "precision": self.precision(product),
        }
        if product == ESM:
            identity["overlong"] = self.sample.settings.overlong
        return ShardStore(self.sample.product(product), dataset="embeddings", identity=identity)

    @cached_property
    def merged(self) -> ShardStore:
        sources = {p: self.embeddings(p).identity_sha256 for p in (DNABERT, ESM)}
        return ShardStore(
            self.sample.product(MERGED), dataset="features", identity={"product": MERGED} | sources
        )

    @cached_property
    def predictions(self) -> ShardStore:
        identity = {
            "product": PREDICTIONS,
            MERGED: self.merged.identity_sha256,
            "classifier": self.profile.classifier_fingerprint,
        }
        return ShardStore(self.sample.product(PREDICTIONS), dataset="scores", identity=identity)

    def bytes_to_come(self) -> int:
        """Room that the sample's missing shards, of all ranks and products, and its results will take."""
        widths = {DNABERT: self.profile.dnabert_dim, ESM: self.profile.esm2_dim, MERGED: 0, PREDICTIONS: 2}
        needed = RESULT_BYTES_A_FRAME * self.frames.n_frames + REPORT_BYTES
        for product, width in widths.items():
            store = self.store(product)
            missing = [k for k in range(self.n_shards) if not store.path(k).exists()]
            needed += sharded_bytes(self.rows(missing), len(missing), width)
        return needed

    def store(self, product: str) -> ShardStore:
        """The store of a product by its asset name."""
        if product in (DNABERT, ESM):
            return self.embeddings(product)
        return self.merged if product == MERGED else self.predictions


@dataclass(frozen=True, slots=True)
class LaneResult:
    """What a lane holds now: every shard's entry, which of them were found done, and the run's telemetry."""

    entries: tuple[Entry, ...]
    resumed: int
    states: dict[str, int]
    summary: LaneSummary | None = None

    @property
    def rows(self) -> int:
        return sum(e.rows for e in self.entries)

    @property
    def digest(self) -> str:
        """Identity of the lane's content: over the shards' numbers and sha256."""
        return sha256_json([[e.shard, e.sha256] for e in self.entries])


def merge_lane(lane: Lane, *, on_shard: OnShard) -> LaneResult:
    """DNABERT-S columns, then ESM-2 columns, per shard, as virtual datasets; the sources must verify."""
    with lane_lock(lane, MERGED):
        sources = [lane.embeddings(p) for p in (DNABERT, ESM)]
        resumed = 0
        states: dict[str, int] = {}
        for shard in lane.shards:
            ids = lane.ids(shard)
            entries = [s.require(shard, ids) for s in sources]
            state, known = lane.merged.state(shard, ids), lane.merged.entry(shard)
            states[state] = states.get(state, 0) + 1
            if state == "done" and known and known.sources == tuple(e.sha256 for e in entries):
                resumed += 1
                continue
            frame_R = lane.frames.shard(shard, lane.n_shards)
            pairs = list(zip(sources, entries, strict=True))
            on_shard(lane.merged.write_virtual(shard, frame_R, lane.frames.digests[frame_R], pairs))
        return collected(lane, lane.merged, resumed, states, None)


def score_lane(lane: Lane, compute: Compute, *, on_shard: OnShard) -> LaneResult:
    """Classifier scores (rows, 2) float32, others then virus, of the lane's merged shards."""
    with lane_lock(lane, PREDICTIONS):
        todo, states = survey(lane, lane.predictions)
        if todo:
            with compute.held() as name:
                device = usable_device(name, lane.sample.settings.precision)
                classifier = load_classifier(
                    lane.profile.classifier, device, fingerprint=lane.profile.classifier_fingerprint
                )
                for shard in todo:
                    ids = lane.ids(shard)
                    for product in (DNABERT, ESM):
                        lane.store(product).require(shard, ids)
                    lane.merged.require(shard, ids)
                    frame_R, features_RF = lane.merged.read(shard)
                    scores_R2 = classifier.score(features_RF)
                    maker = {"rank": lane.rank, "device": device_name(device)}
                    on_shard(
                        lane.predictions.write(
                            shard, frame_R, lane.frames.digests[frame_R], scores_R2, maker=maker
                        )
                    )
        return collected(lane, lane.predictions, len(lane.shards) - len(todo), states, None)


def collect_scores(lane: Lane) -> NDArray[np.float32]:
    """Scores of all unique frames of the sample, (n_unique, 2) float32, whichever rank computed them.

    Raises StoreError naming the first shard that is missing, stale or damaged, or whose ids differ.
    """
    scores_U2 = np.full((lane.frames.n_unique, 2), np.nan, dtype=np.float32)
    for shard in range(lane.n_shards):
        lane.predictions.require(shard, lane.ids(shard))
        frame_R, values_R2 = lane.predictions.read(shard)
        if not np.array_equal(frame_R, lane.frames.shard(shard, lane.n_shards)):
            raise StoreError("rows are not the shard's frames", where=lane.predictions.path(shard))
        scores_U2[frame_R] = values_R2
    if np.isnan(scores_U2).any():
        raise StoreError(
            f"{int(np.isnan(scores_U2).any(axis=1).sum())} frames have no score",
            where=lane.predictions.folder,
        )
    return scores_U2


def survey(lane: Lane, store: ShardStore) -> tuple[list[int], dict[str, int]]:
    """The lane's shards that must be computed, and how many were found in each state."""
    # Digesting ids is most of the work, and what has no entry needs none.
    states: dict[int, str] = {
        shard: store.state(shard, lane.ids(shard) if store.entry(shard) else "") for shard in lane.shards
    }
    return [k for k, state in states.items() if state != "done"], dict(Counter(states.values()))


def collected(
    lane: Lane, store: ShardStore, resumed: int, states: dict[str, int], summary: LaneSummary | None
) -> LaneResult:
    """What the lane holds now. Raises StoreError where a shard has no manifest entry."""
    entries = tuple(e for e in map(store.entry, lane.shards) if e is not None)
    if len(entries) != len(lane.shards):
        raise StoreError(
            f"{len(lane.shards) - len(entries)} shards have no manifest entry", where=store.folder
        )
    return LaneResult(entries, resumed, states, replace(summary) if summary else None)


@contextlib.contextmanager
def lane_lock(lane: Lane, product: str) -> Iterator[None]:
    """The product's lock for this rank; what the disk refuses under it is one line that names the file."""
    busy = f"another process works on {product} of sample {lane.sample.name!r}, rank {lane.rank}"
    with disk_errors(lane.sample.product(product)):
        sweep(lane.sample.product(product))
        own = locked(lane.sample.lock(f"{product}-{lane.rank}"), busy=busy, wait=True)
        with in_use(lane.sample.folder), own:
            yield
