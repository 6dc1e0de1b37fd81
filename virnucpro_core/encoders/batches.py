"""The one loop that runs packed batches through an encoder, and halves them where the device's memory runs out.

`Encoder.embed` runs it to its end, and so do training, the audit of precision and `virnucpro embed`. The engine
(engine/inference.py) steps through it, because between two batches it looks after what is on its way to disk; it adds
the loader in front, the clock around and the writer behind each batch, and no arithmetic.

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
    """Tokens that a batch may hold on a device: fewer once memory has run out, never more. `backoffs` counts that."""

    tokens: int
    backoffs: int = 0

    def shrink(self, batch: PackedBatch, device: torch.device) -> None:
        """After `batch` did not fit. Raises DeviceError where it is one sequence, which cannot be halved."""
        if batch.n_sequences == 1:
            raise DeviceError(
                f"one sequence of {batch.n_tokens:,} tokens does not fit the memory of {device}",
                remedy="give shorter sequences (a smaller --chunk-size), a smaller model, or a larger device",
            )
        self.tokens = batch.n_tokens // 2
        self.backoffs += 1
        log.warning("out of device memory: batches of at most %d tokens from here", self.tokens)


class Pass:
    """Batches through `forward`, one after the other: `for batch in a_pass: a_pass.run(batch)`.

    Their pooled rows gather in `rows_RD` (float32, on the device) in the order of the batches; halved batches keep it.
    No call waits for the device. halved: how many batches were cut in two.
    """

    def __init__(
        self, batches: Iterable[PackedBatch], rows_RD: torch.Tensor, forward: Forward, room: Room
    ) -> None:
        self._todo = list(batches)[::-1]
        self._rows_RD, self._forward, self._room = rows_RD, forward, room
        self._done = 0
        self.halved = 0

    def __iter__(self) -> Iterator[PackedBatch]:
        """The next batch, not larger than the room unless it is one sequence. It comes again if it did not fit."""
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
        """Issue the batch, inside `around`. False where the device's memory ran out: its halves come next.

        Raises DeviceError where one sequence alone does not fit.
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
    """Compute the rows `bad_N` of `values_RD` (host, in the sequences' order) again, in float32, in place.

    Raises StoreError if one of them is not finite even so.
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
