"""Chooses device, precision and attention kernel. If the requested one is not available, that is an error.

Imports no torch before a device is held: commands that compute nothing use this module too, and stay quick.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from virnucpro_core.devices.leases import Leases
from virnucpro_core.devices.visible import Device, answers
from virnucpro_core.errors import DeviceLostError

# Bytes of one value of a model's weights.
WEIGHT_BYTES = {"float32": 4, "float16": 2, "fp8": 1}
# CUDA errors of broken hardware: devices unavailable, uncorrectable ECC error, NVLink error, contained memory error.
_HARDWARE = (46, 214, 220, 721)


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """Settings of the data loader.

    token_budget: largest number of tokens in a batch (a longer sequence is a batch of its own); 0: chosen for the model
    and the device (`EncoderInput.budget_on`). workers: number of worker processes; 0: this process prepares batches.
    prefetch: shards that each worker prepares ahead.
    """

    token_budget: int = 0
    workers: int = 1
    prefetch: int = 2


@dataclass(frozen=True, slots=True)
class Compute:
    """The device and the loader settings of a lane.

    device: `cpu` or `cuda:i`. With `leases` it is `cuda`, and the lease of the rank decides which GPU.
    """

    device: str
    loader: LoaderSettings = field(default_factory=LoaderSettings)
    leases: Leases | None = None
    rank: int = 0

    @contextlib.contextmanager
    def held(self) -> Iterator[str]:
        """Reserve a device for this process during the block and yield its name. Waits while another process holds it.

        Raises DeviceLostError if the device fails inside the block. If the hardware is broken, no process gets the
        device for MARK_SECONDS.
        """
        with self.held_while(lambda: True) as name:
            assert name is not None
            yield name

    @contextlib.contextmanager
    def held_while(self, needed: Callable[[], bool]) -> Iterator[str | None]:
        """As `held`, but yields None if `needed()` becomes false before the device is free."""
        if self.leases is None:
            yield self.device
            return
        from virnucpro_core.devices.cuda import cuda_name, is_broken  # noqa: PLC0415 (torch)

        with self.leases.held(self.rank, needed=needed) as device:
            try:
                yield None if device is None else cuda_name(device)
            except RuntimeError as error:  # from torch, Triton, cuBLAS or the driver
                if device is None or not is_broken(error):
                    raise
                raise _lost(self.leases, device, error) from error


def _lost(leases: Leases, device: Device, error: RuntimeError) -> DeviceLostError:
    reason = str(error).strip().splitlines()[0]
    broken = getattr(error, "error_code", None) in _HARDWARE or not answers(device.uuid)
    leases.process.lost = f"{device.uuid} ({device.name}) was lost: {reason}"
    if broken:
        leases.mark_failed(device, reason)
    return DeviceLostError(leases.process.lost, remedy="run the same command again: what is finished is kept")


def default_attention(device: str, precision: str) -> str:
    """The attention kernel if none is requested: `triton` in half precision on a GPU, else `reference`."""
    return "triton" if device.startswith("cuda") and precision != "float32" else "reference"
