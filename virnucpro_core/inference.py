"""From the frame store to shards on disk: an async DataLoader feeds packed batches, a thread writes behind.

One item of the loader is one whole shard, tokenized and packed by a CPU-only worker process; so batches can
be filled to the brim without knowing token counts beforehand, and shards are finished one after another.
Pooled rows gather in a buffer on the device; one copy a shard brings them to pinned host memory on a stream
of its own while the next shard computes. Nothing here waits for the device within a shard.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import BoundedSemaphore

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from virnucpro_core.clock import DeviceClock, Mark, busy_and_idle
from virnucpro_core.durable import disk_errors
from virnucpro_core.encoders import Encoder
from virnucpro_core.errors import DeviceError, StoreError, VirnucproError
from virnucpro_core.frames import Frames
from virnucpro_core.packing import PackedBatch, PackedShard, pack_shard
from virnucpro_core.shards import Entry, ShardStore
from virnucpro_core.telemetry import Recorder

log = logging.getLogger(__name__)

WRITES_BEHIND = 2
CPU_BUDGET = 4_096


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """token_budget: tokens a batch at most (a longer sequence goes alone); workers: processes, 0 = in this one.

    token_budget 0 leaves the choice to the model and its device (`token_budget_of`).
    """

    token_budget: int = 0
    workers: int = 1
    prefetch: int = 2


@dataclass(frozen=True, slots=True)
class Refused:
    """An item that could not be made: the error's parts, since its type would not survive the way between processes."""

    what: str
    where: str
    remedy: str


class ShardDataset(Dataset[PackedShard | Refused]):
    """Item i is shard `shards[i]`, tokenized and packed. Opens the frame store where it runs."""

    def __init__(
        self,
        frames: Path,
        encoder: Encoder,
        shards: Sequence[int],
        *,
        n_shards: int,
        token_budget: int,
    ) -> None:
        self.path, self.kind, self.tokenizer, self.longest = (
            frames,
            encoder.kind,
            encoder.tokenizer,
            encoder.longest,
        )
        self.shards, self.n_shards, self.token_budget = list(shards), n_shards, token_budget
        self._frames: Frames | None = None

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> PackedShard | Refused:
        try:
            with disk_errors(self.path):
                return self._packed(index)
        except VirnucproError as error:
            return Refused(error.what, error.where, error.remedy)

    def _packed(self, index: int) -> PackedShard:
        if self._frames is None:
            self._frames = Frames.open(self.path)
        frames, shard = self._frames, self.shards[index]
        strings = frames.proteins if self.kind == "esm2" else frames.nucleotides
        sequences = [strings[int(u)] for u in frames.shard(shard, self.n_shards)]
        tokens_T, lengths_B = self.tokenizer.encode(sequences)
        return pack_shard(shard, tokens_T, lengths_B, self.token_budget, longest=self.longest)


def token_budget_of(encoder: Encoder, settings: LoaderSettings) -> int:
    """What was asked for; else what the model wants on a device of this size (total memory, so that it is the
    same on every device of a kind), or CPU_BUDGET.
    """
    if settings.token_budget:
        return settings.token_budget
    if encoder.device.type == "cuda":
        return encoder.token_budget(torch.cuda.get_device_properties(encoder.device).total_memory)
    return CPU_BUDGET


def shard_loader(
    dataset: ShardDataset, settings: LoaderSettings, device: torch.device
) -> DataLoader[PackedShard | Refused]:
    """Shards in the dataset's order; workers are spawned, never touch CUDA, and end with their parent."""
    workers = min(settings.workers, len(dataset))
    return DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=settings.prefetch if workers else None,
        worker_init_fn=begin_worker,
        pin_memory=device.type == "cuda",
    )


def begin_worker(worker: int) -> None:
    """What a loader worker does first. It ends at once when its lane is gone, even if that was before this call:
    torch's own watch takes whatever parent it finds then for the lane, and would wait for work for ever.
    """
    assert_cpu_only(worker)
    lane = multiprocessing.parent_process()
    if lane is not None:
        threading.Thread(target=_end_after, args=(lane,), daemon=True).start()


def _end_after(lane: BaseProcess) -> None:
    lane.join()
    os.kill(os.getpid(), signal.SIGKILL)


def assert_cpu_only(worker: int) -> None:
    """Raises DeviceError in a loader worker that has a CUDA context: it would hold device memory unseen."""
    if torch.cuda.is_initialized():
        raise DeviceError(f"loader worker {worker} has initialised CUDA", remedy="report this as a defect")


def embed_shards(
    encoder: Encoder,
    dataset: ShardDataset,
    store: ShardStore,
    recorder: Recorder,
    settings: LoaderSettings,
    *,
    on_shard: Callable[[Entry], None],
) -> None:
    """Compute the dataset's shards and publish each; `on_shard` is called here, in order, once it is on disk.

    Raises DeviceError when one sequence alone does not fit the device, StoreError when rows stay non-finite
    after they were recomputed in float32, or when the disk refuses.
    """
    frames = Frames.open(dataset.path)
    limit, clock = TokenLimit(dataset.token_budget), DeviceClock(encoder.device)
    with WriteBehind(store, frames, dataset.n_shards, recorder) as writer:
        for packed, wait in _timed(shard_loader(dataset, settings, encoder.device)):
            writer.submit(_forward(encoder, packed, limit, clock, recorder, wait))
            _warn_of_overlong(packed, encoder, recorder)
            for settled in writer.settled():
                _finish(encoder, settled, writer, recorder, on_shard)
        while writer.open:
            _finish(encoder, writer.next(), writer, recorder, on_shard)


def _warn_of_overlong(packed: PackedShard, encoder: Encoder, recorder: Recorder) -> None:
    if packed.overlong:
        recorder.summary.overlong += packed.overlong
        log.warning(
            "shard %d: %d sequences above %d tokens, the longest that the model was trained on",
            packed.shard,
            packed.overlong,
            encoder.longest,
        )


@dataclass(slots=True)
class TokenLimit:
    """Tokens a batch may hold on this device; falls when memory runs out, never rises within a lane."""

    tokens: int


@dataclass(slots=True)
class Computed:
    """One shard's pooled rows on their way to disk.

    packed_RD (rows, dim) float32 is on the host once `ready` has passed; its row i is row order_R[i] of the
    shard.
    """

    packed: PackedShard
    packed_RD: torch.Tensor
    ready: torch.cuda.Event | None
    order_R: NDArray[np.int64]
    seconds: float
    spans: list[tuple[Mark, Mark]]

    def wait(self) -> NDArray[np.float32]:
        """The rows in the shard's order; blocks until the copy from the device is done."""
        if self.ready is not None:
            self.ready.synchronize()
        values_RD = np.empty(tuple(self.packed_RD.shape), dtype=np.float32)
        values_RD[self.order_R] = self.packed_RD.numpy()
        return values_RD


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a shard: its manifest entry, or the rows that must be computed again in float32."""

    computed: Computed
    entry: Entry | None
    bad_rows: NDArray[np.int64]


class WriteBehind:
    """Checks and publishes shards on a thread; at most WRITES_BEHIND wait, then `submit` blocks (back-pressure)."""

    def __init__(self, store: ShardStore, frames: Frames, n_shards: int, recorder: Recorder) -> None:
        self.store, self.frames, self.n_shards, self.recorder = store, frames, n_shards, recorder
        self.open: list[Future[Settled]] = []
        self._room = BoundedSemaphore(WRITES_BEHIND)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shard-writer")

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def submit(self, computed: Computed) -> None:
        self._room.acquire()
        future = self._thread.submit(self._settle, computed)
        future.add_done_callback(lambda _: self._room.release())
        self.open.append(future)

    def settled(self) -> Iterator[Settled]:
        """Those that are done already, in order."""
        while self.open and self.open[0].done():
            yield self.next()

    def next(self) -> Settled:
        """The oldest one; waits for it and raises what its writing raised."""
        return self.open.pop(0).result()

    def _settle(self, computed: Computed) -> Settled:
        values_RD = computed.wait()
        bad = np.flatnonzero(~np.isfinite(values_RD).all(axis=1))
        if len(bad):
            return Settled(computed, None, bad)
        shard = computed.packed.shard
        frame_R = self.frames.shard(shard, self.n_shards)
        summary = self.recorder.summary
        maker = {"rank": summary.rank, "device": summary.device, "seconds": round(computed.seconds, 3)}
        entry = self.store.write(shard, frame_R, self.frames.digests[frame_R], values_RD, maker=maker)
        return Settled(computed, entry, bad)


def _forward(
    encoder: Encoder,
    packed: PackedShard,
    limit: TokenLimit,
    clock: DeviceClock,
    recorder: Recorder,
    wait: float,
) -> Computed:
    started = time.monotonic()
    rows_RD = torch.full(
        (packed.n_sequences, encoder.dim), torch.nan, dtype=torch.float32, device=encoder.device
    )
    order: list[NDArray[np.int64]] = []
    done = 0
    todo = list(reversed(packed.batches))
    while todo:
        batch = todo.pop()
        if batch.n_tokens > limit.tokens and batch.n_sequences > 1:
            todo.extend(reversed(batch.halves()))
            continue
        with clock.batch():
            fits = _embed_into(encoder, batch, rows_RD[done : done + batch.n_sequences])
        if fits:
            recorder.batch(
                tokens=batch.n_tokens, sequences=batch.n_sequences, budget=packed.budget, wait=wait
            )
            order.append(batch.rows_B)
            done, wait = done + batch.n_sequences, 0.0
            continue
        if batch.n_sequences == 1:
            raise DeviceError(
                f"one sequence of {batch.n_tokens:,} tokens does not fit the memory of {encoder.device}",
                remedy="give a smaller --chunk-size, a smaller model, or a larger device",
            )
        limit.tokens = batch.n_tokens // 2
        recorder.summary.oom_backoffs += 1
        log.warning("out of device memory: batches of at most %d tokens from here", limit.tokens)
        todo.append(batch)
    copy = _to_host(rows_RD)
    return Computed(packed, *copy, np.concatenate(order), time.monotonic() - started, clock.take())


def _embed_into(encoder: Encoder, batch: PackedBatch, rows_BD: torch.Tensor) -> bool:
    """Pooled rows of `batch` to their place; False if the device ran out of memory (and is tidy again)."""
    try:
        rows_BD.copy_(encoder.forward(batch.to(encoder.device, non_blocking=True)))
    except torch.OutOfMemoryError:
        fits = False
    else:
        fits = True
    if not fits:
        torch.cuda.empty_cache()
    return fits


def _to_host(rows_RD: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
    """The rows on the host, and the event after which they are there; no event where they are there already."""
    if rows_RD.device.type != "cuda":
        return rows_RD, None
    host_RD = torch.empty(rows_RD.shape, dtype=torch.float32, pin_memory=True)
    stream = _copy_stream(rows_RD.device)
    stream.wait_stream(torch.cuda.current_stream(rows_RD.device))
    with torch.cuda.stream(stream):
        host_RD.copy_(rows_RD, non_blocking=True)
        rows_RD.record_stream(stream)
        ready = torch.cuda.Event()
        ready.record(stream)
    return host_RD, ready


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
        recorder.device(*busy_and_idle(settled.computed.spans))
        recorder.shard(entry.shard, entry.rows, entry.sha256, _peak_memory(encoder.device))
        on_shard(entry)
        return
    computed, bad = settled.computed, settled.bad_rows
    log.warning("shard %d: %d rows not finite, computed again in float32", computed.packed.shard, len(bad))
    values_RD = computed.wait()
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
    writer.submit(Computed(computed.packed, values, None, order_R, computed.seconds, computed.spans))


def _peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def _timed(loader: DataLoader[PackedShard | Refused]) -> Iterator[tuple[PackedShard, float]]:
    """Each shard with the seconds that the device's feeder waited for it."""
    shards = iter(loader)
    while True:
        asked = time.monotonic()
        try:
            packed = next(shards, None)
        except RuntimeError as error:  # what torch raises when a worker process is gone
            raise StoreError(
                f"a loader worker failed ({str(error).strip().splitlines()[-1]})",
                where="data loader",
                remedy="if memory ran out lower VIRNUCPRO_WORKERS (0: no workers), then run the same command again",
            ) from error
        if packed is None:
            return
        if isinstance(packed, Refused):
            raise StoreError(packed.what, where=packed.where, remedy=packed.remedy)
        yield packed, time.monotonic() - asked
