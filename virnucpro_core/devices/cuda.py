"""The devices as torch sees them: their names, whether one can compute, and whether one is broken."""

import re

import torch

from virnucpro_core.devices.visible import Device
from virnucpro_core.errors import DeviceError, UsageError

_DEVICE = re.compile(r"cpu|cuda(:[0-9]{1,3})?")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "fp8": torch.float8_e4m3fn}


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


def device_name(device: torch.device) -> str:
    """The product name of a GPU, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def cuda_name(device: Device) -> str:
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


def is_broken(error: RuntimeError) -> bool:
    """Whether CUDA is unusable in this process after the error. False for out of memory or a wrong shape."""
    if isinstance(error, torch.AcceleratorError):
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
