"""From the frame store to packed shards: an async DataLoader whose workers tokenize and pack, and never see CUDA.

One item is one whole shard, so batches can be filled to the brim without knowing token counts beforehand, and shards
are finished one after another.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

import torch
from torch.utils.data import DataLoader, Dataset

from virnucpro_core.devices.compute import LoaderSettings
from virnucpro_core.encoders.encoder import EncoderInput
from virnucpro_core.encoders.packing import PackedShard
from virnucpro_core.engine.sharing import Alone
from virnucpro_core.errors import DeviceError, StoreError, VirnucproError
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.sequences.frames import Frames


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
        taken: EncoderInput,
        shards: Sequence[int],
        *,
        n_shards: int,
        token_budget: int,
    ) -> None:
        self.path, self.input = frames, taken
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
        strings = frames.proteins if self.input.kind == "esm2" else frames.nucleotides
        sequences = [strings[int(u)] for u in frames.shard(shard, self.n_shards)]
        return self.input.pack(sequences, self.token_budget, shard=shard)


def token_budget_of(taken: EncoderInput, settings: LoaderSettings, device: torch.device) -> int:
    """Tokens a batch: what was asked for, else what suits the model and the device."""
    return settings.token_budget or taken.budget_on(device)


def start_worker_server() -> None:
    """Start the process that workers are forked from, if there is none; returns at once.

    It imports torch while the caller does, has no CUDA and no threads, and ends with the caller. A worker is there in
    milliseconds then, for every loader of this process.
    """
    multiprocessing.set_forkserver_preload([__name__])
    forkserver.ensure_running()


def shard_loader(
    dataset: ShardDataset, settings: LoaderSettings, device: torch.device, share: Alone
) -> DataLoader[PackedShard | Refused]:
    """What the share wants prepared, turn by turn; workers never touch CUDA, and end with their parent."""
    # By all shards, not only the lane's own: it may take others'. One alone is prepared here, with nothing to overlap.
    workers = min(settings.workers, len(dataset)) if len(dataset) > 1 else 0
    if workers:
        start_worker_server()
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=share,
        num_workers=workers,
        multiprocessing_context="forkserver" if workers else None,
        prefetch_factor=settings.prefetch if workers else None,
        worker_init_fn=begin_worker,
        persistent_workers=workers > 0,  # from turn to turn
        pin_memory=device.type == "cuda",
    )


def begin_worker(worker: int) -> None:
    """What a loader worker does first. It ends at once when its lane is gone, even if that was before this call:
    torch's own watch takes whatever parent it finds then for the lane, and would wait for work for ever.

    A worker is one core: the byte-pair library's own threads would fight with the other workers'.
    """
    assert_cpu_only(worker)
    os.putenv("TOKENIZERS_PARALLELISM", "false")
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


def end_workers(shards: Any) -> None:
    """End the workers of a DataLoader's iterator now, and its thread that pins memory; a second call does nothing.

    torch has no public way: it leaves workers that stay from turn to turn to the garbage collector, or to the end of
    the process. Both may come when the pipes are gone by which workers are told; then it waits 5 s for each of them.
    tests/core/engine/test_inference.py says what is relied on.
    """
    shards._shutdown_workers()


class Feed:
    """Packed shards as `share` wants them, each with the seconds that were waited for it.

    The workers start here and prepare shards while the caller still loads its model; they end with the `with` block.
    `share` numbers the dataset's items; without one all of them come, in order.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        settings: LoaderSettings,
        device: torch.device,
        share: Alone | None = None,
    ) -> None:
        self.dataset, self.share = dataset, share or Alone(range(len(dataset)))
        self._loader = shard_loader(dataset, settings, device, self.share)
        self._shards: Iterator[PackedShard | Refused] | None = None
        self._is_first = self.share.next_turn()
        if self._is_first:
            self._shards = iter(self._loader)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shards is not None and self._loader.num_workers:
            end_workers(self._shards)

    def turns(self) -> Iterator[Iterator[tuple[PackedShard, float]]]:
        """One iteration after another; before it asks for the next, the caller ends what it has begun."""
        if self._is_first:
            yield self._turn(self._shards)
        while self.share.next_turn():
            yield self._turn(None)

    def _turn(self, shards: Iterator[PackedShard | Refused] | None) -> Iterator[tuple[PackedShard, float]]:
        """Raises StoreError where a shard could not be made, or a worker is gone."""
        while True:
            asked = time.monotonic()
            try:
                if shards is None:  # with workers, the same iterator as before, begun anew
                    shards = self._shards = iter(self._loader)
                packed = next(shards, None)
            except torch.AcceleratorError:
                raise
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
            if self.share.begin(packed.shard):
                yield packed, time.monotonic() - asked
