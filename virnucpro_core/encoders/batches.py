"""Runs packed batches through an encoder and halves a batch if device memory runs out. All embedding uses this loop.

`Encoder.embed`, training, the precision audit and `virnucpro embed` run it to the end in one call. The engine
(engine/inference.py) runs it step by step, so that it can publish finished shards between batches.

Shapes: R rows of all batches, B sequences of one batch, D width.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from virnucpro_core.encoders.packing import PackedBatch
from virnucpro_core.errors import DeviceError, StoreError

log = logging.getLogger(__name__)

_NOTHING = contextlib.nullcontext()
Forward = Callable[[PackedBatch], torch.Tensor]


class Forwards(Protocol):
    """What the loop needs of an encoder."""

    dim: int
    device: torch.device

    def forward(self, batch: PackedBatch) -> torch.Tensor: ...
    def forward_float32(self, batch: PackedBatch) -> torch.Tensor: ...


@dataclass(slots=True)
class Room:
    """Largest number of tokens in a batch. It is lowered each time device memory runs out; `backoffs` counts this."""

    tokens: int
    backoffs: int = 0

    def shrink(self, batch: PackedBatch, device: torch.device) -> None:
        """Lower the limit after `batch` did not fit. Raises DeviceError if it is a single sequence."""
        if batch.n_sequences == 1:
            raise DeviceError(
                f"one sequence of {batch.n_tokens:,} tokens does not fit the memory of {device}",
                remedy="give shorter sequences (a smaller --chunk-size), a smaller model, or a larger device",
            )
        self.tokens = batch.n_tokens // 2
        self.backoffs += 1
        log.warning("out of device memory: batches of at most %d tokens from here", self.tokens)


class Pass:
    """Runs batches through `forward`, one after the other: `for batch in a_pass: a_pass.run(batch)`.

    The pooled rows collect in `rows_RD` (float32, on the device) in the order of the batches, also if batches are
    halved. No call waits for the device. halved: number of batches that were cut in two.
    """

    def __init__(
        self, batches: Iterable[PackedBatch], rows_RD: torch.Tensor, forward: Forward, room: Room
    ) -> None:
        self._todo = list(batches)[::-1]
        self._rows_RD, self._forward, self._room = rows_RD, forward, room
        self._done = 0
        self.halved = 0

    def __iter__(self) -> Iterator[PackedBatch]:
        """The next batch, within the limit of `room` unless it is a single sequence. If it did not fit, its halves."""
        while self._todo:
            batch = self._todo.pop()
            if batch.n_tokens > self._room.tokens and batch.n_sequences > 1:
                self._todo.extend(reversed(batch.halves()))
                self.halved += 1
            else:
                yield batch

    @property
    def is_last(self) -> bool:
        """Whether no batch follows the present one (if it fits)."""
        return not self._todo

    def run(self, batch: PackedBatch, around: AbstractContextManager[None] = _NOTHING) -> bool:
        """Issue the batch inside the context `around`. False if device memory ran out: its halves come next.

        Raises DeviceError if a single sequence does not fit.
        """
        device, end = self._rows_RD.device, self._done + batch.n_sequences
        try:
            with around:
                rows_BD = self._forward(batch.to(device, non_blocking=True))
                self._rows_RD[self._done : end].copy_(rows_BD)
        except torch.OutOfMemoryError:
            fits = False
        else:
            fits = True
        if not fits:  # here, where the exception no longer holds the forward's tensors
            torch.cuda.empty_cache()
            self._room.shrink(batch, device)
            self._todo.append(batch)
            return False
        self._done = end
        return True

    def finish(self) -> torch.Tensor:
        """Run all that is left; the rows (R, D)."""
        for batch in self:
            self.run(batch)
        return self._rows_RD


def again_in_float32(
    encoder: Forwards,
    batches: Iterable[PackedBatch],
    values_RD: NDArray[np.float32],
    bad_N: NDArray[np.int64],
    room: Room,
    *,
    where: str | Path = "",
) -> None:
    """Compute the rows `bad_N` of `values_RD` (host, in the order of the sequences) again in float32, in place.

    Raises StoreError if a row is still not finite.
    """
    parts = []
    for batch in batches:
        keep = np.flatnonzero(np.isin(batch.rows_B, bad_N))
        if len(keep):
            parts.append(batch.take(keep))
    rows_ND = torch.empty((len(bad_N), encoder.dim), dtype=torch.float32, device=encoder.device)
    again_ND = Pass(parts, rows_ND, encoder.forward_float32, room).finish().cpu().numpy()
    values_RD[np.concatenate([part.rows_B for part in parts])] = again_ND
    if not np.isfinite(again_ND).all():
        raise StoreError(
            f"{len(bad_N)} sequences have no finite embedding even in float32",
            where=where,
            remedy="check the weights with `virnucpro models verify`",
        )
