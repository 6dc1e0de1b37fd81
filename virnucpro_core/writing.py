"""From pooled rows on the device to published shards: threads write behind the computation."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore

import numpy as np
import torch
from numpy.typing import NDArray

from virnucpro_core.clock import Spans
from virnucpro_core.frames import Frames
from virnucpro_core.packing import PackedShard
from virnucpro_core.shards import Entry, ShardStore
from virnucpro_core.telemetry import Recorder

# Shards that may be on their way to disk at once. A shard of DNABERT-S takes a GPU less time than one thread needs to
# digest and sync it.
WRITERS = 2


@dataclass(slots=True)
class Computed:
    """One shard's pooled rows on their way to disk.

    packed_RD (rows, dim) float32 and finite_R (rows,) bool are on the host once `ready` has passed; their row i is row
    order_R[i] of the shard.
    """

    packed: PackedShard
    packed_RD: torch.Tensor
    finite_R: torch.Tensor
    ready: torch.cuda.Event | None
    order_R: NDArray[np.int64]
    seconds: float
    spans: Spans

    def wait(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The rows in the shard's order, and which are not finite; blocks until the copy from the device is done."""
        if self.ready is not None:
            self.ready.synchronize()
        place_R = torch.from_numpy(np.argsort(self.order_R))
        # By torch, which lets other threads run meanwhile; numpy would not.
        values_RD: NDArray[np.float32] = self.packed_RD[place_R].numpy()
        return values_RD, np.flatnonzero(~self.finite_R[place_R].numpy())


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a shard: its manifest entry, or the rows that must be computed again in float32."""

    computed: Computed
    entry: Entry | None
    bad_rows: NDArray[np.int64]


class WriteBehind:
    """Publishes shards on WRITERS threads; when all are at work `submit` blocks (back-pressure)."""

    def __init__(
        self,
        store: ShardStore,
        frames: Frames,
        n_shards: int,
        recorder: Recorder,
        verified: Callable[[], None],
    ) -> None:
        self.store, self.frames, self.n_shards, self.recorder = store, frames, n_shards, recorder
        self.verified = verified
        self.open: list[Future[Settled]] = []
        self._room = BoundedSemaphore(WRITERS)
        self._threads = ThreadPoolExecutor(WRITERS, thread_name_prefix="shard-writer")

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def submit(self, computed: Computed) -> None:
        self._room.acquire()
        future = self._threads.submit(self._settle, computed)
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
        values_RD, bad = computed.wait()
        if len(bad):
            return Settled(computed, None, bad)
        self.verified()
        shard = computed.packed.shard
        frame_R = self.frames.shard(shard, self.n_shards)
        summary = self.recorder.summary
        maker = {"rank": summary.rank, "device": summary.device, "seconds": round(computed.seconds, 3)}
        entry = self.store.write(shard, frame_R, self.frames.digests[frame_R], values_RD, maker=maker)
        return Settled(computed, entry, bad)
