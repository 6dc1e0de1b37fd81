"""Shards through an encoder: the loader feeds packed batches, threads write behind, the device never waits.

Pooled rows gather in a buffer on the device; one copy a shard brings them to pinned host memory on a stream
of its own while the next shard computes. Nothing here waits for the device within a shard.
"""

import logging
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from virnucpro_core.clock import DeviceClock
from virnucpro_core.encoders import Encoder
from virnucpro_core.errors import DeviceError, StoreError
from virnucpro_core.frames import Frames
from virnucpro_core.loading import Feed
from virnucpro_core.monitor import DeviceMonitor
from virnucpro_core.packing import PackedBatch, PackedShard
from virnucpro_core.shards import Entry, ShardStore
from virnucpro_core.telemetry import Recorder
from virnucpro_core.writing import Computed, Settled, WriteBehind

log = logging.getLogger(__name__)


def embed_shards(
    encoder: Encoder,
    feed: Feed,
    store: ShardStore,
    recorder: Recorder,
    *,
    on_shard: Callable[[Entry], None],
    verified: Callable[[], None] = lambda: None,
) -> None:
    """Compute the feed's shards and publish each; `on_shard` is called here, in order, once it is on disk.

    Nothing is published before `verified` has returned: it waits for the weights' digests, or raises WeightsError.
    Raises DeviceError when one sequence alone does not fit the device, StoreError when rows stay non-finite
    after they were recomputed in float32, or when the disk refuses.
    """
    dataset = feed.dataset
    frames = Frames.open(dataset.path)
    forward = Forward(encoder, recorder, dataset.token_budget)

    def published(entry: Entry) -> None:
        feed.share.end(entry.shard)
        on_shard(entry)

    with (
        forward.monitor,
        WriteBehind(store, frames, dataset.n_shards, recorder, verified) as writer,
    ):
        for turn in feed.turns():
            for packed, wait in turn:
                recorder.begin(packed.n_sequences, own=feed.share.owns(packed.shard))
                writer.submit(forward.shard(packed, wait))
                _warn_of_overlong(packed, encoder, recorder)
                for settled in writer.settled():
                    _finish(encoder, settled, writer, recorder, published)
            while writer.open:
                _finish(encoder, writer.next(), writer, recorder, published)
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
    """Issues shards to the device batch by batch, and halves batches where memory runs out.

    `limit`: tokens a batch may hold on this device; falls when memory runs out, never rises within a lane.
    """

    def __init__(self, encoder: Encoder, recorder: Recorder, limit: int) -> None:
        self.encoder, self.recorder, self.limit = encoder, recorder, limit
        self.clock, self.monitor = DeviceClock(encoder.device), DeviceMonitor(encoder.device)

    def shard(self, packed: PackedShard, wait: float) -> Computed:
        """The shard's rows, on their way to the host. Raises DeviceError if one sequence alone does not fit."""
        started, encoder = time.monotonic(), self.encoder
        rows_RD = torch.full(
            (packed.n_sequences, encoder.dim), torch.nan, dtype=torch.float32, device=encoder.device
        )
        order: list[NDArray[np.int64]] = []
        done = 0
        todo = list(reversed(packed.batches))
        while todo:
            batch = todo.pop()
            if batch.n_tokens > self.limit and batch.n_sequences > 1:
                todo.extend(reversed(batch.halves()))
            elif self._embed_into(batch, rows_RD[done : done + batch.n_sequences]):
                self._record(batch, packed.budget, wait)
                order.append(batch.rows_B)
                done, wait = done + batch.n_sequences, 0.0
            else:
                self._lower_limit(batch)
                todo.append(batch)
        copy = _to_host(rows_RD)
        seconds = time.monotonic() - started
        return Computed(packed, *copy, np.concatenate(order), seconds, self.clock.take())

    def _embed_into(self, batch: PackedBatch, rows_BD: torch.Tensor) -> bool:
        """Pooled rows of `batch` to their place; False if the device ran out of memory (and is tidy again)."""
        try:
            with self.clock.batch():
                rows_BD.copy_(self.encoder.forward(batch.to(self.encoder.device, non_blocking=True)))
        except torch.OutOfMemoryError:
            fits = False
        else:
            fits = True
        if not fits:
            torch.cuda.empty_cache()
        return fits

    def _record(self, batch: PackedBatch, budget: int, wait: float) -> None:
        self.recorder.batch(
            tokens=batch.n_tokens,
            sequences=batch.n_sequences,
            budget=budget,
            wait=wait,
            counters=self.monitor.latest,
        )

    def _lower_limit(self, batch: PackedBatch) -> None:
        if batch.n_sequences == 1:
            raise DeviceError(
                f"one sequence of {batch.n_tokens:,} tokens does not fit the memory of {self.encoder.device}",
                remedy="give a smaller --chunk-size, a smaller model, or a larger device",
            )
        self.limit = batch.n_tokens // 2
        self.recorder.summary.oom_backoffs += 1
        log.warning("out of device memory: batches of at most %d tokens from here", self.limit)


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


def _finish(
    encoder: Encoder,
    settled: Settled,
    writer: WriteBehind,
    recorder: Recorder,
    on_shard: Callable[[Entry], None],
) -> None:
    """Report a shard on disk, or recompute its bad rows in float32 and hand it in again."""
    if settled.entry is not None:
        entry = settled.entry
        busy = settled.computed.spans.busy()
        recorder.device(busy, settled.computed.spans.idle())
        recorder.shard(entry.shard, entry.rows, entry.sha256, _peak_memory(encoder.device), busy)
        on_shard(entry)
        return
    computed, bad = settled.computed, settled.bad_rows
    log.warning("shard %d: %d rows not finite, computed again in float32", computed.packed.shard, len(bad))
    values_RD, _ = computed.wait()
    for batch in computed.packed.batches:
        keep = np.flatnonzero(np.isin(batch.rows_B, bad))
        if len(keep):
            again = batch.take(keep).to(encoder.device)
            values_RD[batch.rows_B[keep]] = encoder.forward_float32(again).cpu().numpy()
    recorder.summary.fp32_recomputed += len(bad)
    if not np.isfinite(values_RD[bad]).all():
        raise StoreError(
            f"shard {computed.packed.shard}: {len(bad)} sequences have no finite embedding even in float32",
            where=writer.store.folder,
            remedy="check the weights with `virnucpro models verify`",
        )
    order_R = np.arange(len(values_RD))
    values = torch.from_numpy(values_RD)
    finite_R = torch.ones(len(values_RD), dtype=torch.bool)
    writer.submit(
        Computed(computed.packed, values, finite_R, None, order_R, computed.seconds, computed.spans)
    )


def _peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
