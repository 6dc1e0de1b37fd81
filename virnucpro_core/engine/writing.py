"""Publishes computed shards on a thread while the device computes the next one."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from virnucpro_core.encoders.packing import PackedShard
from virnucpro_core.engine.clock import Spans
from virnucpro_core.engine.shards import Entry, ShardStore
from virnucpro_core.engine.telemetry import Recorder
from virnucpro_core.files.verification import Verification
from virnucpro_core.sequences.frames import Frames

OnRows = Callable[[Entry, NDArray[np.float32]], None]


@dataclass(slots=True)
class Computed:
    """The pooled rows of one shard before they are written, in the order of the shard.

    rows_RD (rows, dim) float32 and finite_R (rows,) bool are on the host after the event `ready`. halved: number of
    batches that were cut in two because device memory ran out. Smaller batches use other kernels, which can change the
    last bits.
    """

    packed: PackedShard
    rows_RD: torch.Tensor
    finite_R: torch.Tensor
    ready: torch.cuda.Event | None
    seconds: float
    spans: Spans
    halved: int = 0

    def wait(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(rows, indices of rows that are not finite). Waits until the copy from the device is done."""
        if self.ready is not None:
            self.ready.synchronize()
        return self.rows_RD.numpy(), np.flatnonzero(~self.finite_R.numpy())


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of writing a shard: its manifest entry, or the rows that must be computed again in float32."""

    computed: Computed
    entry: Entry | None
    bad_rows: NDArray[np.int64]


class WriteBehind:
    """Publishes shards on a thread, one at a time. A lane that dies loses at most one computed shard.

    Nothing is published before `verification` has passed. `on_rows` is called on the thread with each published shard
    and its rows (rows, dim) float32.
    """

    def __init__(
        self,
        store: ShardStore,
        frames: Frames,
        n_shards: int,
        recorder: Recorder,
        verification: Verification,
        on_rows: OnRows,
    ) -> None:
        self.store, self.frames, self.n_shards, self.recorder = store, frames, n_shards, recorder
        self.verification, self.on_rows = verification, on_rows
        self._open: Future[Outcome] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shard-writer")

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def submit(self, computed: Computed) -> None:
        """Start to write a shard. The outcome of the previous shard must have been fetched with `outcome`."""
        assert self._open is None
        self._open = self._thread.submit(self._write, computed)

    def outcome(self, *, wait: bool) -> Outcome | None:
        """The outcome of the submitted shard; None if there is none, or if it is still being written and not `wait`.

        With `wait`, waits until it is written. Raises the error of the writing thread.
        """
        future = self._open
        if future is None or not (wait or future.done()):
            return None
        self._open = None
        return future.result()

    def _write(self, computed: Computed) -> Outcome:
        values_RD, bad = computed.wait()
        if len(bad):
            return Outcome(computed, None, bad)
        self.verification.wait()
        shard = computed.packed.shard
        frame_R = self.frames.shard(shard, self.n_shards)
        summary = self.recorder.summary
        maker: dict[str, Any] = {"rank": summary.rank, "device": summary.device}
        maker["seconds"] = round(computed.seconds, 3)
        if computed.halved:
            maker["batches_halved"] = computed.halved
        entry = self.store.write(shard, frame_R, self.frames.digests[frame_R], values_RD, maker=maker)
        self.on_rows(entry, values_RD)
        return Outcome(computed, entry, bad)
