"""Show the progress of each sample, from its folder alone: products, lanes, results, refusals, disk use, time left.

Counts file names and adds up sizes; reads no shard and verifies nothing. A folder that cannot be read is listed as a
damaged sample and is never an error, so the other samples are always listed.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from virnucpro_core.engine.shards import RELEASED_ENTRY, lane_shards
from virnucpro_core.engine.telemetry import Progress, read_progress
from virnucpro_core.errors import StoreError, VirnucproError, printable
from virnucpro_core.files.disk import bytes_below
from virnucpro_core.pipeline.pace import Pace, kind_of
from virnucpro_core.results.folder import RUN
from virnucpro_core.samples.occupancy import workers
from virnucpro_core.samples.products import EMBEDDINGS, PREDICTIONS, SHARDED
from virnucpro_core.samples.sample import Sample, is_registered, open_sample, read_refusal
from virnucpro_core.samples.settings import OF_RESULTS, differing, settings_in_words
from virnucpro_core.sequences.chunks import Chunks
from virnucpro_core.sequences.frames import Frames

SampleState = Literal[
    "damaged", "registered", "refused", "chunked", "translated", "embedding", "embedded", "scored", "called"
]
_UNREADABLE = (VirnucproError, OSError, ValueError, KeyError, TypeError, AttributeError)
# Approximate size of one manifest entry; sums that use it are marked as estimated.
_ENTRY_BYTES = 700


@dataclass(frozen=True, slots=True)
class LaneState:
    """One product on one rank. `done` of `total` shards, whichever lane computed them.

    state: `working` while a process holds the lane's lock, else `done`, `released` or `open`. The rates are the last
    ones of its last run.
    """

    product: str
    rank: int
    world_size: int
    done: int
    total: int
    state: Literal["working", "done", "released", "open"]
    sequences_per_second: float
    tokens_per_second: float
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """One sample. shards: product -> (shards present, shards in total); released: product -> shards released.

    bytes: product -> bytes on disk; `estimated` if shards were counted and only one of them measured. since: when it
    was registered; changed: when its results were written, or if there are none when it was registered (seconds since
    1970). reason: why its input was refused, or what is damaged. seconds_left: until the results are there, by the pace
    of the running lanes and, for what follows them, that of an earlier sample (pace.py).
    settings: in words. variant_of: the sample of which this is a variant. differs: the settings that are not the same
    in both, by name, as (the value there, the value here); empty also if the other sample is not there any more.
    """

    name: str
    state: SampleState
    profile: str = ""
    records: int | None = None
    shards: dict[str, tuple[int, int]] = field(default_factory=dict)
    released: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    estimated: bool = False
    since: float = 0.0
    changed: float = 0.0
    reason: str = ""
    lanes: tuple[LaneState, ...] = ()
    workers: dict[str, str] = field(default_factory=dict)
    settings: str = ""
    variant_of: str = ""
    differs: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        return sum(self.bytes.values())

    @property
    def seconds_left(self) -> float | None:
        return max((lane.seconds_left for lane in self.lanes if lane.seconds_left is not None), default=None)


def overviews(home: Path) -> Iterator[Overview]:
    """All samples, sorted by name, in about a millisecond each; sizes of shards are estimated."""
    folders = sorted(p for p in (home / "samples").glob("*") if p.is_dir())
    return (overview(home, folder.name) for folder in folders if _is_sample(folder))


def overview(home: Path, name: str, *, exact: bool = False) -> Overview:
    """The progress of this sample. `exact` measures every file, and includes the lanes of a finished sample.

    Raises UsageError for an unknown name. A damaged sample is not an error but a state.
    """
    folder = home / "samples" / name
    if not _is_sample(folder):
        open_sample(home, name)
    if not (folder / "sample.json").exists():
        remedy = f"predict its file again, or `virnucpro samples remove {printable(name)}`"
        return Overview(printable(name), "damaged", reason=f"sample.json is missing; {remedy}")
    try:
        return _overview(open_sample(home, name), exact=exact)
    except _UNREADABLE as error:
        what = str(error) if isinstance(error, VirnucproError) else f"cannot be read: {error!r}"
        return Overview(printable(name), "damaged", reason=printable(what))


def _overview(sample: Sample, *, exact: bool) -> Overview:
    run = sample.results / RUN
    called = run.exists()
    chunks = None if called else _chunks(sample)
    frames = None if called and not exact else _frames(sample)
    total = frames.n_shards(sample.settings.shard_rows) if frames else 0
    counted = {product: _count(sample.product(product)) for product in SHARDED}
    shards = {
        product: (there, total or there + released)
        for product, (there, released, _) in counted.items()
        if total or there or released
    }
    records = chunks.n_records if chunks else None
    if called:
        records = int(json.loads(run.read_bytes())["counts"]["records"])
    since = (sample.folder / "sample.json").stat().st_mtime
    refused = read_refusal(sample)
    busy = {} if called and not exact else workers(sample.folder)
    most = max((all_ for _, all_ in shards.values()), default=0)
    return Overview(
        name=sample.name,
        state="refused" if refused else "called" if called else _state(shards if total else {}, chunks),
        profile=sample.settings.profile,
        records=records,
        shards=shards,
        released={product: released for product, (_, released, _) in counted.items() if released},
        bytes=_measure(sample, {product: size for product, (_, _, size) in counted.items()}, exact=exact),
        estimated=not exact,
        since=since,
        changed=run.stat().st_mtime if called else since,
        reason=refused,
        lanes=()
        if called and not exact
        else tuple(_lanes(sample, most, frames.n_unique if frames else 0, busy)),
        workers=busy,
        settings=printable(settings_in_words(sample.settings)),
        variant_of=sample.variant_of,
        differs=_differs(sample),
    )


def _differs(sample: Sample) -> dict[str, tuple[Any, Any]]:
    """Settings that the sample and the one of which it is a variant do not share; none if that one cannot be read."""
    if not sample.variant_of or not is_registered(sample.home, sample.variant_of):
        return {}
    try:
        there, here = open_sample(sample.home, sample.variant_of).settings, sample.settings
    except VirnucproError:  # it is listed as damaged
        return {}
    return {
        name: (getattr(there, name), getattr(here, name)) for name in differing(there, here, also=OF_RESULTS)
    }


def _state(shards: dict[str, tuple[int, int]], chunks: Chunks | None) -> SampleState:
    if not shards:
        return "chunked" if chunks else "registered"
    whole = {product for product, (there, total) in shards.items() if there >= total}
    if PREDICTIONS in whole:
        return "scored"
    if set(EMBEDDINGS) <= whole:
        return "embedded"
    return "embedding" if any(there for there, _ in shards.values()) else "translated"


def _count(folder: Path) -> tuple[int, int, int]:
    """Number of shards with an entry, number of released shards, and bytes estimated from the size of one shard."""
    names: list[str] = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name[0].isdigit()]
    there = {name[:-5] for name in names if name.endswith(".json")}
    released = {name.removesuffix(RELEASED_ENTRY) for name in names if name.endswith(RELEASED_ENTRY)} - there
    data = [name for name in names if name.endswith(".h5")]
    size = len(data) * (folder / min(data)).stat().st_size if data else 0
    return len(there), len(released), size + _ENTRY_BYTES * (len(there) + len(released))


def _measure(sample: Sample, counted: dict[str, int], *, exact: bool) -> dict[str, int]:
    """Bytes below each of the sample's folders; those of shards as `counted` unless `exact`."""
    sizes = {}
    with os.scandir(sample.folder) as entries:
        folders = sorted(e.name for e in entries if e.is_dir() and e.name != "locks")
    for name in folders:
        known = None if exact else counted.get(name)
        sizes[name] = bytes_below(sample.folder / name) if known is None else known
    return sizes


def _lanes(sample: Sample, total: int, frames: int, busy: dict[str, str]) -> Iterator[LaneState]:
    """Both encoders' lanes that have run, by product and rank. total: shards, frames: unique frames of the sample."""
    for product in EMBEDDINGS:
        folder = sample.product(product)
        for file in sorted((sample.folder / "telemetry").glob(f"{product}-*.jsonl")):
            progress = _progress(file)
            if progress is None:
                continue
            own = lane_shards(total, progress.rank, progress.world_size)
            done = sum((folder / f"{k:05d}.json").exists() for k in own)
            gone = sum((folder / f"{k:05d}{RELEASED_ENTRY}").exists() for k in own)
            working = f"{product}-{progress.rank}" in busy
            yield LaneState(
                product=product,
                rank=progress.rank,
                world_size=progress.world_size,
                done=done,
                total=len(own),
                state="working"
                if working
                else "done"
                if done >= len(own)
                else "released"
                if gone
                else "open",
                sequences_per_second=progress.sequences_per_second,
                tokens_per_second=progress.tokens_per_second,
                seconds_left=_left(sample, progress, frames) if working and not progress.ended else None,
            )


def _left(sample: Sample, progress: Progress, frames: int) -> float | None:
    """Seconds until the results; of the lane alone if no earlier sample tells how long the rest takes."""
    own = progress.seconds_left
    if own is None:
        return None
    pace, kind = Pace.read(sample.home), kind_of(sample.settings, progress.device)
    return own + (pace.after(progress.product, kind, lane=progress.total, frames=frames) or 0.0)


def _progress(file: Path) -> Progress | None:
    """The last progress line; None if there is none or it is damaged: telemetry is only shown and decides nothing."""
    try:
        found = read_progress(file)
    except (ValueError, KeyError, TypeError):
        return None
    return found if found and 0 <= found.rank < found.world_size else None


def _chunks(sample: Sample) -> Chunks | None:
    try:
        return Chunks.open(sample.chunks)
    except StoreError:
        return None


def _frames(sample: Sample) -> Frames | None:
    try:
        return Frames.open(sample.translations)
    except StoreError:
        return None


def _is_sample(folder: Path) -> bool:
    """Whether the folder is a registered sample or the rest of one. A folder with only locks was a deleted sample."""
    return (folder / "sample.json").exists() or any(entry.name != "locks" for entry in folder.glob("*"))
