"""Which device computes, in what precision, with which kernel. What was asked for is there, or it is an error."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch

from virnucpro_core.durable import locked
from virnucpro_core.errors import DeviceError
from virnucpro_core.loading import LoaderSettings

DTYPES = {"float32": torch.float32, "float16": torch.float16, "fp8": torch.float8_e4m3fn}


@dataclass(frozen=True, slots=True)
class Compute:
    """Where and how a lane computes. device: `cpu` or `cuda:i`; attention "" leaves the kernel to device and precision.

    device_lock: the file that one process at a time may lock to use the device; None for the CPU.
    """

    device: str
    attention: str = ""
    loader: LoaderSettings = field(default_factory=LoaderSettings)
    device_lock: Path | None = None

    def kernel(self, precision: str) -> str:
        """Name of the attention kernel."""
        return self.attention or default_attention(self.device, precision)

    def held(self) -> AbstractContextManager[None]:
        """The device for this process alone, as long as the block lasts; waits for its present holder."""
        if self.device_lock is None:
            return nullcontext()
        return locked(self.device_lock, busy=f"another process computes on {self.device}", wait=True)


def usable_device(name: str, precision: str) -> torch.device:
    """The device, made this process's own: kernels are launched and memory is pinned on the current one.

    Raises DeviceError when it is not there or cannot compute in `precision`; nothing is substituted.
    """
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError(
                f"{name} was asked for and no CUDA device is usable",
                remedy="check `virnucpro doctor`, or ask for the CPU with --device cpu",
            )
        if (device.index or 0) >= torch.cuda.device_count():
            raise DeviceError(f"{name}: there are {torch.cuda.device_count()} GPUs", remedy="lower --gpus")
        torch.cuda.set_device(device)
    elif precision != "float32":
        raise DeviceError(
            f"the CPU computes float32, {precision} was asked for",
            remedy="ask for --precision float32, or compute on a GPU",
        )
    return device


def default_attention(device: str, precision: str) -> str:
    """The kernel where none was asked for: our own in half precision on a GPU, the reference in float32."""
    return "triton" if device.startswith("cuda") and precision != "float32" else "reference"


def device_name(device: torch.device) -> str:
    """What the device calls itself, for people and telemetry."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
