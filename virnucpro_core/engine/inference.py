"""Runs shards through an encoder and publishes the rows: loading, computing and writing overlap.

Worker processes prepare packed batches, the device computes, and a thread writes. The pooled rows of a shard collect
in a buffer on the device. One copy on its own CUDA stream brings them to pinned host memory while the next shard is
computed. The last batch of a shard is issued only after the previous shard is on disk.
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
from virnucpro_core.engine.writing import Computed, OnRows, Outcome, WriteBehind
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
    on_rows: OnRows,
    verification: Verification,
) -> None:
    """Compute and publish all shards of the feed. `on_shard` is called in this thread after each shard is on disk, and
    `on_rows` on the writing thread, with the shard's rows (rows, dim) float32.

    `Encoder.embed` uses the same loop over batches (`Pass`). Nothing is published before `verification` has passed; its
    errors are raised here. Raises DeviceError if a single sequence does not fit the device. Raises StoreError if rows
    are not finite even after they were computed again in float32, or on a disk error.
    """
    dataset = feed.dataset
    frames = Frames.open(dataset.path)
    forward = Forward(encoder, recorder, dataset.token_budget)
    with (
        forward.monitor,
        WriteBehind(store, frames, dataset.n_shards, recorder, verification, on_rows) as writer,
    ):

        def report(*, wait: bool) -> None:
            """Report the submitted shard if it is on disk. Rows that are not finite are computed again first."""
            while outcome := writer.outcome(wait=wait):
                if outcome.entry is None:
                    writer.submit(_again_in_float32(forward, outcome, store))
                    continue
                busy, entry = outcome.computed.spans.busy(), outcome.entry
                recorder.device(busy, outcome.computed.spans.idle())
                recorder.shard(entry.shard, entry.rows, entry.sha256, _peak_memory(encoder.device), busy)
                feed.share.finish(entry.shard)
                on_shard(entry)

        for phase in feed.phases():
            for packed, wait in phase:
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
    """Issues shards to the device batch by batch (`encoders.batches`) and measures each batch.

    `room`: largest number of tokens in a batch. It is lowered when device memory runs out, and never raised in a lane.
    """

    def __init__(self, encoder: Encoder, recorder: Recorder, limit: int) -> None:
        self.encoder, self.recorder, self.room = encoder, recorder, Room(limit)
        self.clock, self.monitor = DeviceClock(encoder.device), DeviceMonitor(encoder.device)

    def shard(self, packed: PackedShard, wait: float, before: Callable[[bool], None]) -> Computed:
        """Issue all batches of the shard and the copy of its rows to the host; does not wait for them.

        `before(is_last)` is called before each batch. Raises DeviceError if a single sequence does not fit the device.
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
    """Copy to the host: (rows, whether each is finite, CUDA event of the end of the copy; None on the CPU)."""
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


def _again_in_float32(forward: Forward, outcome: Outcome, store: ShardStore) -> Computed:
    """The shard with its bad rows computed again in float32. Raises StoreError if they are still not finite."""
    computed, bad, shard = outcome.computed, outcome.bad_rows, outcome.computed.packed.shard
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
