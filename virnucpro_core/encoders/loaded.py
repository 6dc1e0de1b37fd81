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

# Free memory that must be there to load a model beside others, as a multiple of the size of its files.
ROOM = 1.25
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

    Kept encoders make room on the device if the new one may not fit beside them. Raises as `load_encoder` does.
    """
    verification.start(partial(verify_once, folder))
    key = (kind, folder, marks(folder), device, dtype, attention, overlong)
    with _one_load if _kept is not None else contextlib.nullcontext():
        if _kept is not None and key in _kept:
            return _kept[key]
        if _kept:
            _make_room(folder, device)
        encoder = load_encoder(
            kind, folder, device=device, dtype=dtype, attention=attention, overlong=overlong
        )
        if _kept is not None:
            _kept[key] = encoder
        return encoder


def _make_room(folder: Path, device: torch.device) -> None:
    """Give up the kept encoders if the device's free memory is less than the size of the new one's files."""
    if _kept is None or device.type != "cuda":
        return
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    if free < ROOM * sum(file.stat().st_size for file in folder.glob("*.safetensors")):
        _kept.clear()
        with signals_held():
            gc.collect()
        torch.cuda.empty_cache()


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
