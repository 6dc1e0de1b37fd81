"""One lane's share of each sharded product: which shards it has, which are done, and what they depend on.

The assets call `embed_lane` (embed.py), `merge_lane`, `score_lane` and `collect_scores` (score.py). These use only the
manifests to decide what is done, hold the lane's lock while they write, and return what they found and did.
"""

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from virnucpro_core.devices.compute import default_attention
from virnucpro_core.engine.shards import Entry, ShardStore, ids_digest, lane_shards
from virnucpro_core.engine.telemetry import LaneSummary
from virnucpro_core.errors import StoreError
from virnucpro_core.files.digests import sha256_json
from virnucpro_core.files.disk import REPORT_BYTES, RESULT_BYTES_A_FRAME, disk_errors, sharded_bytes
from virnucpro_core.files.locks import locked
from virnucpro_core.files.publish import sweep
from virnucpro_core.files.verification import Verification
from virnucpro_core.models.profiles import ResolvedProfile
from virnucpro_core.results.calibration import Calibration, find_calibration
from virnucpro_core.samples.occupancy import shared_lock
from virnucpro_core.samples.products import CHUNKS, EMBEDDINGS, PRODUCTS, SHARDED, TRANSLATIONS, is_current
from virnucpro_core.samples.sample import Sample
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.sequences.chunks import Chunks
from virnucpro_core.sequences.frames import Frames

OnShard = Callable[[Entry], None]
Item = TypeVar("Item")
Result = TypeVar("Result")
# Threads that digest, read or write shards side by side.
THREADS = 4


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    """An encoder's folder, the fingerprint of its weights, and the number of columns of its embeddings."""

    kind: Literal["dnabert-s", "esm2"]
    folder: Path
    fingerprint: str
    width: int


@dataclass(frozen=True)
class Lane:
    """A sample's share for one rank, with its stores. Each store is identified by everything its content depends on.

    attention: the kernel that was asked for; "" selects the default of the precision.
    """

    sample: Sample
    profile: ResolvedProfile
    rank: int
    world_size: int
    attention: str = ""

    @cached_property
    def frames(self) -> Frames:
        """The frame store, with every byte checked against its digest. Raises StoreError."""
        frames = self._opened()
        frames.store.verify()
        return frames

    def open_frames(self, verification: Verification) -> None:
        """Open `frames` without waiting for their verification, which runs in `verification`."""
        if "frames" not in self.__dict__:
            self.__dict__["frames"] = frames = self._opened()
            verification.start(frames.store.verify)

    def _opened(self) -> Frames:
        frames = Frames.open(self.sample.translations)
        if frames.attrs["chunks"] != open_chunks(self.sample).digest:
            raise _outdated(self.sample, TRANSLATIONS, "of other chunks")
        if not is_current(frames.attrs, TRANSLATIONS):
            raise _outdated(self.sample, TRANSLATIONS, "of another version of the program")
        if frames.min_open != self.sample.settings.open_length:
            raise _outdated(self.sample, TRANSLATIONS, "of other settings of --frames or --min-open")
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
        """Digest of the frame ids that the shard must hold, in order."""
        return ids_digest(self.frames.digests[self.frames.shard(shard, self.n_shards)])

    def precision(self, product: str) -> str:
        """The precision in which the product's encoder computes."""
        return PRODUCTS[product].precision(self.sample.settings.precision)

    def kernel(self, product: str) -> str:
        """The attention kernel that the product's encoder computes with."""
        return self.attention or default_attention("cuda", self.precision(product))

    def encoder(self, product: str) -> EncoderFiles:
        """The product's encoder."""
        profile = self.profile
        if PRODUCTS[product].encoder == "dnabert-s":
            return EncoderFiles(
                "dnabert-s", profile.dnabert, profile.dnabert_fingerprint, profile.dnabert_dim
            )
        return EncoderFiles("esm2", profile.esm2, profile.esm2_fingerprint, profile.esm2_dim)

    def recipe(self, product: str) -> dict[str, str]:
        """How the product is made: algorithm version; for an encoder's product also precision, kernel and settings.

        Frames say how long an open frame must be, if there are such. Imported embeddings have the digest of their
        import instead.
        """
        facts = {"version": PRODUCTS[product].version}
        if PRODUCTS[product].frames and self.sample.settings.open_length:
            facts |= {"min_open": str(self.sample.settings.open_length)}
        if PRODUCTS[product].encoder and self.profile.imported:
            facts |= {"imported": self.profile.imported}
        elif PRODUCTS[product].encoder:
            facts |= {"precision": self.precision(product), "attention": self.kernel(product)}
            facts |= {name: getattr(self.sample.settings, name) for name in PRODUCTS[product].settings}
        return facts

    @property
    def recipes(self) -> dict[str, dict[str, str]]:
        """How each product is made."""
        return {name: self.recipe(name) for name in PRODUCTS}

    @property
    def models(self) -> dict[str, str]:
        """Fingerprints of the weights that the sample's scores depend on, by model."""
        encoders = {str(PRODUCTS[name].encoder): self.encoder(name).fingerprint for name in EMBEDDINGS}
        return encoders | {"classifier": self.profile.classifier_fingerprint}

    @cached_property
    def calibration(self) -> Calibration | None:
        """What turns the classifier's scores into probabilities, if there is one. Raises WeightsError, UsageError."""
        return sample_calibration(self.profile, self.sample.settings)

    def store(self, product: str) -> ShardStore:
        """The product's shards."""
        return self._stores[product]

    @cached_property
    def _stores(self) -> dict[str, ShardStore]:
        stores: dict[str, ShardStore] = {}
        for name in SHARDED:
            product = PRODUCTS[name]
            identity: dict[str, Any] = {"product": name} | self.recipe(name)
            if product.encoder:
                identity |= {"frames": self.frames.digest, "shards": self.n_shards}
                identity |= {"encoder": self.encoder(name).fingerprint}
            if product.classifier:
                identity |= {"classifier": self.profile.classifier_fingerprint}
            identity |= {s: stores[s].identity_sha256 for s in product.sources if s in stores}
            stores[name] = ShardStore(self.sample.product(name), dataset=product.dataset, identity=identity)
        return stores

    def bytes_to_come(self) -> int:
        """Disk space in bytes for the sample's missing shards, of all ranks and products, and its results."""
        needed = RESULT_BYTES_A_FRAME * self.frames.n_frames + REPORT_BYTES
        for name in SHARDED:
            store, product = self.store(name), PRODUCTS[name]
            width = self.encoder(name).width if product.encoder else product.columns
            missing = [k for k in range(self.n_shards) if not store.path(k).exists()]
            needed += sharded_bytes(self.rows(missing), len(missing), width)
        return needed


def sample_calibration(profile: ResolvedProfile, settings: SampleSettings) -> Calibration | None:
    """The calibration for samples with these settings; None if there is none. Raises WeightsError, UsageError."""
    needed_by = f"--{settings.preset}" if settings.preset else "--prior" if settings.prior is not None else ""
    return find_calibration(
        profile.classifier,
        profile.classifier_fingerprint,
        settings.chunk_size,
        file=settings.calibration,
        needed_by=needed_by,
        min_open=settings.open_length,
    )


def open_chunks(sample: Sample) -> Chunks:
    """The sample's chunks. Raises StoreError, also if another version of the program made them."""
    chunks = Chunks.open(sample.chunks)
    if not is_current(chunks.attrs, CHUNKS):
        raise _outdated(sample, CHUNKS, "of another version of the program")
    return chunks


def _outdated(sample: Sample, product: str, what: str) -> StoreError:
    return StoreError(
        f"{product} are {what}",
        where=sample.product(product),
        remedy=f"materialize {product} again, or run `virnucpro predict` again",
    )


@dataclass(frozen=True, slots=True)
class LaneResult:
    """The state of a lane after a step: every shard's entry, how many were already done, and the run's telemetry."""

    entries: tuple[Entry, ...]
    resumed: int
    states: dict[str, int]
    summary: LaneSummary | None = None

    @property
    def rows(self) -> int:
        return sum(e.rows for e in self.entries)

    @property
    def digest(self) -> str:
        """Identity of the lane's content: a digest over the shards' numbers and sha256."""
        return sha256_json([[e.shard, e.sha256] for e in self.entries])


def in_threads(
    make: Callable[[Item], Result], items: Iterable[Item], threads: int = THREADS
) -> Iterator[Result]:
    """Yield `make(item)` for every item, in order. Each thread works on one item ahead of it, and one item waits.

    This is for digests and for synced files: they wait for the disk, or do not need Python's lock. An error of `make`
    is raised here, after what other threads have begun is done. A single item needs no thread.
    """
    items = list(items)
    if len(items) == 1:
        yield make(items[0])
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="shards") as pool:
        ahead = deque[Future[Result]]()
        try:
            for item in items:
                ahead.append(pool.submit(make, item))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def survey(lane: Lane, store: ShardStore) -> tuple[list[int], dict[str, int]]:
    """The lane's shards that must be computed, and the number of shards in each state."""

    def state(shard: int) -> str:
        # Hashing the ids is most of the work; it is skipped for shards without an entry.
        return store.state(shard, lane.ids(shard) if store.entry(shard) else "")

    states = dict(zip(lane.shards, in_threads(state, lane.shards), strict=True))
    return [k for k, state in states.items() if state != "done"], dict(Counter(states.values()))


def collected(
    lane: Lane, store: ShardStore, resumed: int, states: dict[str, int], summary: LaneSummary | None
) -> LaneResult:
    """The present state of the lane. Raises StoreError if a shard has no manifest entry."""
    entries = tuple(e for e in map(store.entry, lane.shards) if e is not None)
    if len(entries) != len(lane.shards):
        raise StoreError(
            f"{len(lane.shards) - len(entries)} shards have no manifest entry", where=store.folder
        )
    return LaneResult(entries, resumed, states, replace(summary) if summary else None)


@contextlib.contextmanager
def lane_lock(lane: Lane, product: str) -> Iterator[None]:
    """Hold the product's lock for this rank. Disk errors inside the block become a StoreError that names the file."""
    busy = f"another process works on {product} of sample {lane.sample.name!r}, rank {lane.rank}"
    with disk_errors(lane.sample.product(product)):
        sweep(lane.sample.product(product))
        own = locked(lane.sample.lock(f"{product}-{lane.rank}"), busy=busy, wait=True)
        with shared_lock(lane.sample.folder), own:
            yield
