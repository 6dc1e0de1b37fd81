"""From pooled rows on the device to published shards: a thread writes behind the computation."""

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


@dataclass(slots=True)
class Computed:
    """One shard's pooled rows on their way to disk, in the shard's order.

    rows_RD (rows, dim) float32 and finite_R (rows,) bool are on the host once `ready` has passed. halved: batches that
    were cut in two as the device had too little memory; other batches mean other kernels, and perhaps other last bits.
    """

    packed: PackedShard
    rows_RD: torch.Tensor
    finite_R: torch.Tensor
    ready: torch.cuda.Event | None
    seconds: float
    spans: Spans
    halved: int = 0

    def wait(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The rows, and which are not finite; blocks until the copy from the device is done."""
        if self.ready is not None:
            self.ready.synchronize()
        return self.rows_RD.numpy(), np.flatnonzero(~self.finite_R.numpy())


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a shard: its manifest entry, or the rows that must be computed again in float32."""

    computed: Computed
    entry: Entry | None
    bad_rows: NDArray[np.int64]


class WriteBehind:
    """Publishes on a thread, one shard at a time: a lane that dies has lost at most one that was computed.

    Nothing is published before `verification` has passed.
    """

    def __init__(
        self,
        store: ShardStore,
        frames: Frames,
        n_shards: int,
        recorder: Recorder,
        verification: Verification,
    ) -> None:
        self.store, self.frames, self.n_shards, self.recorder = store, frames, n_shards, recorder
        self.verification = verification
        self._open: Future[Settled] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shard-writer")

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def submit(self, computed: Computed) -> None:
        """Hand a shard over. The one before it has been taken with `settled`."""
        assert self._open is None
        self._open = self._thread.submit(self._settle, computed)

    def settled(self, *, wait: bool) -> Settled | None:
        """What became of the shard that was handed over; None if there is none or it is still being written.

        With `wait` blocks until it is not. Raises what its writing raised.
        """
        future = self._open
        if future is None or not (wait or future.done()):
            return None
        self._open = None
        return future.result()

    def _settle(self, computed: Computed) -> Settled:
        values_RD, bad = computed.wait()
        if len(bad):
            return Settled(computed, None, bad)
        self.verification.wait()
        shard = computed.packed.shard
        frame_R = self.frames.shard(shard, self.n_shards)
        summary = self.recorder.summary
        maker: dict[str, Any] = {"rank": summary.rank, "device": summary.device}
        maker["seconds"] = round(computed.seconds, 3)
        if computed.halved:
            maker["batches_halved"] = computed.halved
        entry = self.store.write(shard, frame_R, self.frames.digests[frame_R], values_RD, maker=maker)
        return Settled(computed, entry, bad)
