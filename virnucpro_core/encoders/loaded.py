"""Keeps encoders loaded between lanes, so that many small samples share one model load.

This happens only inside a `kept_encoders` block, whose caller holds the device during the block. Elsewhere an encoder
is loaded for one use.
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

    An exception that refers to itself can keep the frames of a lane, and so its encoder, alive until Python's garbage
    collector runs; the next encoder would find too little memory. So the collector is run here. Signals are delayed
    meanwhile: Python ignores an exception that a signal handler raises inside a callback of the collector.
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
    """An encoder that is kept, or loaded now, while its files are verified: see `Verification`.

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
