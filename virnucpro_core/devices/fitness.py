"""Checks before the work begins that devices exist, can compute in a precision, and have enough memory.

Asks the driver (NVML) and does not start CUDA, so it takes milliseconds and no device memory.
"""

import functools
import importlib.metadata
import importlib.util
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path

from virnucpro_core.devices.visible import Device, Facts, facts_of
from virnucpro_core.errors import DeviceError
from virnucpro_core.files.disk import shown_bytes

# Memory in bytes that CUDA and the kernels need beside the model.
CONTEXT_BYTES = 1_000_000_000
FP8_CAPABILITY = (8, 9)


def check_cpu(precision: str) -> None:
    """Raises DeviceError if the CPU cannot compute in this precision."""
    if precision != "float32":
        raise DeviceError(
            f"the CPU computes only float32, but {precision} was requested",
            remedy="use --precision float32, or compute on a GPU",
        )


def check_gpus(
    devices: Sequence[Device],
    wanted: int,
    precision: str,
    facts: Callable[[Device], Facts] = facts_of,
) -> None:
    """Raises DeviceError unless the first `wanted` devices exist and can compute in this precision."""
    if not devices:
        raise DeviceError(
            "no CUDA device is usable: none is visible",
            remedy="check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or use the CPU with --device cpu",
        )
    if not built_with_cuda():
        raise DeviceError(
            f"no CUDA device is usable: PyTorch {importlib.metadata.version('torch')} was built without CUDA",
            remedy="install a build of PyTorch with CUDA, or use the CPU with --device cpu",
        )
    if len(devices) < wanted:
        raise DeviceError(
            f"{wanted} GPUs were requested, {len(devices)} can be used",
            remedy=f"give --gpus {len(devices)}, or check CUDA_VISIBLE_DEVICES and `virnucpro doctor`",
        )
    for device in devices[:wanted] if precision == "fp8" else ():
        capability = facts(device).capability
        if capability and capability < FP8_CAPABILITY:
            raise DeviceError(
                f"{device.name} cannot compute in fp8: its compute capability is "
                f"{'.'.join(map(str, capability))}, 8.9 is needed",
                where=device.uuid,
                remedy="use --precision float16",
            )


@functools.cache
def built_with_cuda() -> bool:
    """Whether the installed PyTorch can use CUDA at all.

    Its file `version.py` says so (`torch.version.cuda`). Only this file is run: all of torch takes seconds to import.
    """
    found = importlib.util.find_spec("torch")
    assert found is not None  # a dependency
    assert found.origin is not None
    return runpy.run_path(str(Path(found.origin).with_name("version.py")))["cuda"] is not None


def check_memory(
    devices: Sequence[Device],
    model_bytes: int,
    holder: Callable[[Device], str],
    facts: Callable[[Device], Facts] = facts_of,
) -> None:
    """Raises DeviceError unless each device has room for the largest model, of `model_bytes`.

    holder: the process that has the device's lease, "" for none. What it uses counts as free: it is given back with the
    lease.
    """
    needed = model_bytes + CONTEXT_BYTES
    for device in devices:
        found = facts(device)
        free = found.memory if holder(device) else found.free
        if free < needed:
            raise DeviceError(
                f"{device.name} has {shown_bytes(free)} of {shown_bytes(found.memory)} memory free, "
                f"{shown_bytes(needed)} needed",
                where=device.uuid,
                remedy="end what uses it (`nvidia-smi`), choose another GPU with CUDA_VISIBLE_DEVICES, or use "
                "another --profile or --precision",
            )
