"""Encoders that stay loaded from one lane to the next, so that many small samples share one model load.

Only inside a `kept_encoders` block, whose caller holds the device for as long as it lasts; everywhere else an
encoder is loaded for one use. Knows nothing of samples.
"""

import contextlib
import gc
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from virnucpro_core.encoders.encoder import Encoder, Kind, Overlong, load_encoder
from virnucpro_core.files.manifest import marks, verify_once
from virnucpro_core.files.verification import Verification
from virnucpro_core.interrupts import signals_held

# One block at a time a process: None outside of one.
_kept: dict[tuple[object, ...], Encoder] | None = None
_one_load = threading.Lock()  # two threads of a block that want one encoder have one copy of it


@contextlib.contextmanager
def kept_encoders() -> Iterator[None]:
    """Keep every encoder that is loaded inside the block until it ends; a block inside a block is part of it."""
    global _kept  # noqa: PLW0603 - what a process holds on its device is the process's
    if _kept is not None:
        yield
        return
    _kept = {}
    try:
        yield
    finally:
        _kept = None
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def free_encoders() -> None:
    """Free the device of encoders that are no longer used, unless they are kept.

    Whoever recorded a shard in Dagster may have left an exception that refers to itself and holds the frames of the
    lane, and so the encoder, until Python happens to collect it: the next encoder would find the memory taken. A signal
    waits for the end of that: Python ignores what its handler raises inside a callback of the collector.
    """
    if _kept is None:
        with signals_held():
            gc.collect()


def cached_encoder(
    kind: Kind,
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    attention: str,
    overlong: Overlong,
    verification: Verification,
) -> Encoder:
    """An encoder that is kept, or loaded now, while its files are verified: see `Verification` for what that asks.

    Raises as `load_encoder` does.
    """
    verification.start(partial(verify_once, folder))
    key = (kind, folder, marks(folder), device, dtype, attention, overlong)
    with _one_load if _kept is not None else contextlib.nullcontext():
        if _kept is not None and key in _kept:
            return _kept[key]
        encoder = load_encoder(
            kind, folder, device=device, dtype=dtype, attention=attention, overlong=overlong
        )
        if _kept is not None:
            _kept[key] = encoder
        return encoder


def verified_encoder(
    kind: Kind, folder: Path, *, device: torch.device, dtype: torch.dtype, attention: str, overlong: Overlong
) -> Encoder:
    """The encoder of the verified `folder`: one that is kept, or loaded now. Raises as `load_encoder` does."""
    with Verification() as verification:
        return cached_encoder(
            kind,
            folder,
            device=device,
            dtype=dtype,
            attention=attention,
            overlong=overlong,
            verification=verification,
        )
