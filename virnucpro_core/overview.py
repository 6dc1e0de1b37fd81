"""How far each sample is, told by its folder alone: products, shards, results, refusals, disk, what is left.

Counts manifest entries and looks at sizes; reads no shard. What is true of the bytes is for the lanes to verify.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from virnucpro_core.chunks import Chunks
from virnucpro_core.errors import StoreError
from virnucpro_core.frames import Frames
from virnucpro_core.lanes import DNABERT, ESM, MERGED, PREDICTIONS
from virnucpro_core.registry import Sample, list_samples, open_sample, read_refusal
from virnucpro_core.results import RUN
from virnucpro_core.telemetry import Progress, read_progress

State = Literal["registered", "refused", "chunked", "translated", "embedding", "embedded", "scored", "called"]
SHARDED = (DNABERT, ESM, MERGED, PREDICTIONS)


@dataclass(frozen=True, slots=True)
class Overview:
    """One sample. shards: product -> (entries there, shards in all); bytes: of its folder; reason: of a refusal.

    seconds_left: of the lanes that are embedding now, the longest; None if none is.
    """

    name: str
    profile: str
    state: State
    records: int | None
    shards: dict[str, tuple[int, int]]
    bytes: int
    reason: str
    seconds_left: float | None


def overviews(home: Path) -> Iterator[Overview]:
    """All registered samples, by name."""
    return (overview(open_sample(home, name)) for name in list_samples(home))


def overview(sample: Sample) -> Overview:
    """How far this sample is."""
    chunks, frames = _chunks(sample), _frames(sample)
    total = frames.n_shards(sample.settings.shard_rows) if frames else 0
    shards = {p: (len(list(sample.product(p).glob("[0-9]*.json"))), total) for p in SHARDED} if frames else {}
    running = [p for p in _running(sample) if p.seconds_left is not None]
    return Overview(
        name=sample.name,
        profile=sample.settings.profile,
        state=_state(sample, shards, chunked=chunks is not None),
        records=chunks.n_records if chunks else None,
        shards=shards,
        bytes=sum(f.stat().st_size for f in sample.folder.rglob("*") if f.is_file()),
        reason=read_refusal(sample),
        seconds_left=max((p.seconds_left or 0.0 for p in running), default=None),
    )


def _state(sample: Sample, shards: dict[str, tuple[int, int]], *, chunked: bool) -> State:
    if sample.rejected.exists():
        return "refused"
    if (sample.results / RUN).exists():
        return "called"
    if not shards:
        return "chunked" if chunked else "registered"
    whole = {product for product, (there, total) in shards.items() if there >= total}
    if PREDICTIONS in whole:
        return "scored"
    if {DNABERT, ESM} <= whole:
        return "embedded"
    return "embedding" if any(there for there, _ in shards.values()) else "translated"


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


def _running(sample: Sample) -> Iterator[Progress]:
    for file in sorted((sample.folder / "telemetry").glob("*.jsonl")):
        progress = read_progress(file)
        if progress is not None and not progress.ended:
            yield progress
