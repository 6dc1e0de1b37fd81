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

from virnucpro_core.engine.shards import Entry, ShardStore, ids_digest, lane_shards
from virnucpro_core.engine.telemetry import LaneSummary
from virnucpro_core.errors import StoreError
from virnucpro_core.files.background import begun
from virnucpro_core.files.digests import sha256_json
from virnucpro_core.files.disk import REPORT_BYTES, RESULT_BYTES_A_FRAME, disk_errors, sharded_bytes
from virnucpro_core.files.locks import locked
from virnucpro_core.files.publish import sweep
from virnucpro_core.models.profiles import ResolvedProfile
from virnucpro_core.samples.occupancy import in_use
from virnucpro_core.samples.products import DNABERT, ESM, MERGED, PREDICTIONS
from virnucpro_core.samples.sample import Sample
from virnucpro_core.sequences.chunks import Chunks
from virnucpro_core.sequences.frames import Frames

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
