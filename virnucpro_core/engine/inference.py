"""Shards through an encoder: the loader feeds packed batches, a thread writes behind, the device never waits.

Pooled rows gather in a buffer on the device; one copy a shard brings them to pinned host memory on a stream
of its own while the next shard computes. That one's last batch is issued once the shard before is on disk.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from virnucpro_core.encoders.batches import Pass, Room, again_in_float32
from virnucpro_core.encoders.encoder import Encoder
from virnucpro_core.encoders.packing import PackedBatch, PackedShard
from virnucpro_core.engine.clock import DeviceClock
from virnucpro_core.engine.loading import Feed
from virnucpro_core.engine.monitor import DeviceMonitor
from virnucpro_core.engine.shards import Entry, ShardStore
from virnucpro_core.engine.telemetry import Recorder
from virnucpro_core.engine.writing import Computed, Settled, WriteBehind
from virnucpro_core.files.verification import Verification
from virnucpro_core.sequences.frames import Frames

log = logging.getLogger(__name__)


def embed_shards(
    encoder: Encoder,
    feed: Feed,
    store: ShardStore,
    recorder: Recorder,
    *,
    on_shard: Callable[[Entry], None],
    verification: Verification,
) -> None:
    """Compute the feed's shards and publish each; `on_shard` is called here, in order, once it is on disk.

    Batches run as in `Encoder.embed`, by the same loop. Nothing is published before `verification` has passed; what it
    raises is raised here. Raises DeviceError when one sequence alone does not fit the device, StoreError when rows stay
    non-finite after they were recomputed in float32, or when the disk refuses.
    """
    dataset = feed.dataset
    frames = Frames.open(dataset.path)
    forward = Forward(encoder, recorder, dataset.token_budget)
    with forward.monitor, WriteBehind(store, frames, dataset.n_shards, recorder, verification) as writer:

        def report(*, wait: bool) -> None:
            """What was handed over last, once it is on disk; rows that are not finite go another round."""
            while settled := writer.settled(wait=wait):
                if settled.entry is None:
                    writer.submit(_again_in_float32(forward, settled, store))
                    continue
                busy, entry = settled.computed.spans.busy(), settled.entry
                recorder.device(busy, settled.computed.spans.idle())
                recorder.shard(entry.shard, entry.rows, entry.sha256, _peak_memory(encoder.device), busy)
                feed.share.end(entry.shard)
                on_shard(entry)

        for turn in feed.turns():
            for packed, wait in turn:
                recorder.begin(packed.n_sequences, own=feed.share.owns(packed.shard))
                writer.submit(forward.shard(packed, wait, before=lambda last: report(wait=last)))
                _warn_of_overlong(packed, encoder, recorder)
            report(wait=True)
    recorder.counters(forward.monitor.samples)


def _warn_of_overlong(packed: PackedShard, encoder: Encoder, recorder: Recorder) -> None:
    if packed.overlong:
        recorder.summary.overlong += packed.overlong
        log.warning(
            "shard %d: %d sequences above %d tokens, the longest that the model was trained on",
            packed.shard,
            packed.overlong,
            encoder.input.longest,
        )


class Forward:
    """Issues shards to the device batch by batch (`encoders.batches`), with a clock around each batch.

    `room`: tokens a batch may hold on this device; falls when memory runs out, never rises within a lane.
    """

    def __init__(self, encoder: Encoder, recorder: Recorder, limit: int) -> None:
        self.encoder, self.recorder, self.room = encoder, recorder, Room(limit)
        self.clock, self.monitor = DeviceClock(encoder.device), DeviceMonitor(encoder.device)

    def shard(self, packed: PackedShard, wait: float, before: Callable[[bool], None]) -> Computed:
        """The shard's rows, on their way to the host. Raises DeviceError if one sequence alone does not fit.

        `before` is called before each batch, with whether it is the shard's last.
        """
        started, encoder = time.monotonic(), self.encoder
        rows_RD = torch.full(
            (packed.n_sequences, encoder.dim), torch.nan, dtype=torch.float32, device=encoder.device
        )
        batches = Pass(packed.batches, rows_RD, encoder.forward, self.room)
        for batch in batches:
            before(batches.is_last)
            if batches.run(batch, self.clock.batch()):
                self._record(batch, packed.budget, wait)
                wait = 0.0
            else:
                self.recorder.summary.oom_backoffs = self.room.backoffs
        place_R = packed.place_R.to(encoder.device, non_blocking=True)
        copy = _to_host(rows_RD[place_R])
        return Computed(packed, *copy, time.monotonic() - started, self.clock.take(), batches.halved)

    def _record(self, batch: PackedBatch, budget: int, wait: float) -> None:
        self.recorder.batch(
            tokens=batch.n_tokens,
            sequences=batch.n_sequences,
            budget=budget,
            wait=wait,
            counters=self.monitor.latest,
        )


def _to_host(rows_RD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.cuda.Event | None]:
    """The rows, and whether each is finite, on the host; and the event after which they are there, if any."""
    finite_R = torch.isfinite(rows_RD).all(dim=1)
    if rows_RD.device.type != "cuda":
        return rows_RD, finite_R, None
    stream = _copy_stream(rows_RD.device)
    stream.wait_stream(torch.cuda.current_stream(rows_RD.device))
    with torch.cuda.stream(stream):
        host_RD, host_R = (_copied(x, stream) for x in (rows_RD, finite_R))
        ready = torch.cuda.Event()
        ready.record(stream)
    return host_RD, host_R, ready


def _copied(x: torch.Tensor, stream: torch.cuda.Stream) -> torch.Tensor:
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    host.copy_(x, non_blocking=True)
    x.record_stream(stream)
    return host


_STREAMS: dict[torch.device, torch.cuda.Stream] = {}


def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream(device)
    return _STREAMS[device]


def _again_in_float32(forward: Forward, settled: Settled, store: ShardStore) -> Computed:
    """The shard with its bad rows recomputed. Raises StoreError if they are not finite even so."""
    computed, bad, shard = settled.computed, settled.bad_rows, settled.computed.packed.shard
    log.warning("shard %d: %d rows not finite, computed again in float32", shard, len(bad))
    values_RD, _ = computed.wait()
    again_in_float32(
        forward.encoder, computed.packed.batches, values_RD, bad, forward.room, where=store.path(shard)
    )
    summary = forward.recorder.summary
    summary.fp32_recomputed, summary.oom_backoffs = summary.fp32_recomputed + len(bad), forward.room.backoffs
    return replace(computed, finite_R=torch.ones(len(values_RD), dtype=torch.bool), ready=None)


def _peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
