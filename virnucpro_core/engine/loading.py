"""Prepares packed shards from the frame store with a DataLoader; its worker processes tokenize and pack.

One item is one complete shard, so batches can be filled well although token counts are not known before, and shards
are finished one after another. Workers never use CUDA.
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
from virnucpro_core.engine.sharing import OwnShards
from virnucpro_core.errors import DeviceError, StoreError, VirnucproError
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.sequences.frames import Frames


@dataclass(frozen=True, slots=True)
class Refused:
    """The error of a shard that could not be prepared, as text: exceptions do not travel well between processes."""

    what: str
    where: str
    remedy: str


class ShardDataset(Dataset[PackedShard | Refused]):
    """Item i is shard `shards[i]`, tokenized and packed. Each worker process opens the frame store itself."""

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
    """Largest number of tokens in a batch: the setting, or a number chosen for the model and the device."""
    return settings.token_budget or taken.budget_on(device)


def start_worker_server() -> None:
    """Start the server process from which workers are forked, if it is not running. Returns at once.

    The server imports torch while the caller does, so a worker starts in milliseconds. It has no CUDA and no threads,
    and it ends with the caller.
    """
    multiprocessing.set_forkserver_preload([__name__])
    forkserver.ensure_running()


def shard_loader(
    dataset: ShardDataset, settings: LoaderSettings, device: torch.device, share: OwnShards
) -> DataLoader[PackedShard | Refused]:
    """A DataLoader of the shards of `share`, phase by phase. Its workers never use CUDA and end with the lane."""
    # Counts all shards, since the lane may steal. A single shard is prepared in this process: nothing would overlap.
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
        persistent_workers=workers > 0,  # kept from phase to phase
        pin_memory=device.type == "cuda",
    )


def begin_worker(worker: int) -> None:
    """First call in a loader worker: make it end when its lane ends, and use one core.

    torch also watches the parent, but if the lane ends before that watch starts, it watches the wrong process and the
    worker waits forever. The threads of the tokenizer library are turned off: they would compete with other workers.
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
    """Raises DeviceError in a loader worker that has a CUDA context: it would use device memory unnoticed."""
    if torch.cuda.is_initialized():
        raise DeviceError(f"loader worker {worker} has initialised CUDA", remedy="report this as a bug")


def end_workers(shards: Any) -> None:
    """End the workers of a DataLoader's iterator and its memory-pinning thread now. A second call does nothing.

    torch has no public function for this: persistent workers end when the garbage collector or the end of the process
    gets to them. By then the pipes to the workers may be closed, and torch waits 5 s for each worker.
    tests/core/engine/test_inference.py tests the private function used here.
    """
    shards._shutdown_workers()


class Feed:
    """Packed shards in the order of `share`, each with the seconds that the caller waited for it.

    Workers start in the constructor and prepare shards while the caller loads its model. They end with the `with`
    block. `share` lists indices of the dataset's items; without it all items come in order.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        settings: LoaderSettings,
        device: torch.device,
        share: OwnShards | None = None,
    ) -> None:
        self.dataset, self.share = dataset, share or OwnShards(range(len(dataset)))
        self._loader = shard_loader(dataset, settings, device, self.share)
        self._shards: Iterator[PackedShard | Refused] | None = None
        self._is_first = self.share.next_phase()
        if self._is_first:
            self._shards = iter(self._loader)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shards is not None and self._loader.num_workers:
            end_workers(self._shards)

    def phases(self) -> Iterator[Iterator[tuple[PackedShard, float]]]:
        """One iterator for each phase. The caller must finish all claimed shards before it asks for the next phase."""
        if self._is_first:
            yield self._phase(self._shards)
        while self.share.next_phase():
            yield self._phase(None)

    def _phase(self, shards: Iterator[PackedShard | Refused] | None) -> Iterator[tuple[PackedShard, float]]:
        """The shards of one phase. Raises StoreError if a shard could not be prepared or a worker died."""
        while True:
            asked = time.monotonic()
            try:
                if shards is None:  # with workers, torch resets and returns the same iterator
                    shards = self._shards = iter(self._loader)
                packed = next(shards, None)
            except torch.AcceleratorError:
                raise
            except RuntimeError as error:  # raised by torch when a worker process died
                raise StoreError(
                    f"a loader worker failed ({str(error).strip().splitlines()[-1]})",
                    where="data loader",
                    remedy="if memory ran out lower VIRNUCPRO_WORKERS (0: no workers), then run the same command again",
                ) from error
            if packed is None:
                return
            if isinstance(packed, Refused):
                raise StoreError(packed.what, where=packed.where, remedy=packed.remedy)
            if self.share.claim(packed.shard):
                yield packed, time.monotonic() - asked
