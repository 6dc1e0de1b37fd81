"""Chooses device, precision and attention kernel. If the requested one is not available, that is an error."""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from virnucpro_core.devices.leases import Leases
from virnucpro_core.devices.visible import Device, answers
from virnucpro_core.errors import DeviceError, DeviceLostError, UsageError

_DEVICE = re.compile(r"cpu|cuda(:[0-9]{1,3})?")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "fp8": torch.float8_e4m3fn}
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
        with self.leases.held(self.rank, needed=needed) as device:
            try:
                yield None if device is None else _cuda_name(device)
            except RuntimeError as error:  # from torch, Triton, cuBLAS or the driver
                if device is None or not _is_broken(error):
                    raise
                raise _lost(self.leases, device, error) from error


def _cuda_name(device: Device) -> str:
    """The name `cuda:i` of the leased device, found by its UUID."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        if device.uuid.endswith(str(torch.cuda.get_device_properties(index).uuid)):
            return f"cuda:{index}"
    if count == 1 and device.uuid.startswith(
        "MIG-"
    ):  # CUDA may report the UUID of the GPU for its MIG instance; no second device is visible
        return "cuda:0"
    raise DeviceError(
        f"CUDA does not see {device.uuid} ({device.name})",
        remedy="check the driver with `virnucpro doctor`; where cards differ set CUDA_DEVICE_ORDER=PCI_BUS_ID",
    )


def _is_broken(error: RuntimeError) -> bool:
    """Whether CUDA is unusable in this process after the error. False for out of memory or a wrong shape."""
    if isinstance(error, torch.AcceleratorError):
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _lost(leases: Leases, device: Device, error: RuntimeError) -> DeviceLostError:
    reason = str(error).strip().splitlines()[0]
    broken = getattr(error, "error_code", None) in _HARDWARE or not answers(device.uuid)
    leases.process.lost = f"{device.uuid} ({device.name}) was lost: {reason}"
    if broken:
        leases.mark_failed(device, reason)
    return DeviceLostError(leases.process.lost, remedy="run the same command again: what is finished is kept")


def usable_device(name: str, precision: str, *, option: str = "--precision") -> torch.device:
    """The device of that name, set as the current CUDA device of this process.

    Raises UsageError if `name` is not the name of a device. Raises DeviceError if the device is missing or cannot
    compute in `precision`. `option` is the command line option of the precision, for the message.
    """
    if not _DEVICE.fullmatch(name):
        raise UsageError(f"no device {name!r}", remedy="give cpu, cuda or cuda:i")
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError(
                f"{name} was requested, but no CUDA device is usable",
                remedy="check `virnucpro doctor`, or use the CPU with --device cpu",
            )
        if (device.index or 0) >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            raise DeviceError(f"{name}: there are {count} GPUs", remedy=f"cuda:{count - 1} is the last")
        device = torch.device("cuda", device.index or 0)  # `cuda` means `cuda:0`
        torch.cuda.set_device(device)
    elif precision != "float32":
        raise DeviceError(
            f"the CPU computes only float32, but {precision} was requested",
            remedy=f"use {option} float32, or compute on a GPU",
        )
    return device


def default_attention(device: str, precision: str) -> str:
    """The attention kernel if none is requested: `triton` in half precision on a GPU, else `reference`."""
    return "triton" if device.startswith("cuda") and precision != "float32" else "reference"


def device_name(device: torch.device) -> str:
    """The product name of a GPU, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
