"""Which device computes, in what precision, with which kernel. What was asked for is there, or it is an error."""

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
# What CUDA says of a device that is broken: devices unavailable, uncorrectable ECC, NVLink, contained memory error.
_HARDWARE = (46, 214, 220, 721)


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """token_budget: tokens a batch at most (a longer sequence goes alone); workers: processes, 0 = in this one.

    token_budget 0 leaves the choice to the model and its device (`EncoderInput.budget_on`).
    """

    token_budget: int = 0
    workers: int = 1
    prefetch: int = 2


@dataclass(frozen=True, slots=True)
class Compute:
    """Where and how a lane computes.

    device: `cpu` or `cuda:i`; with `leases` it is `cuda`, and which one is found when the rank gets its lease.
    """

    device: str
    loader: LoaderSettings = field(default_factory=LoaderSettings)
    leases: Leases | None = None
    rank: int = 0

    @contextlib.contextmanager
    def held(self) -> Iterator[str]:
        """The name of a device that is this process's alone as long as the block lasts; waits for its holder.

        Raises DeviceLostError where the device breaks inside the block; if the hardware is to blame, nobody is given
        the device for a while.
        """
        with self.held_while(lambda: True) as name:
            assert name is not None
            yield name

    @contextlib.contextmanager
    def held_while(self, needed: Callable[[], bool]) -> Iterator[str | None]:
        """`held`, but None where the device is no longer `needed()` before it is free."""
        if self.leases is None:
            yield self.device
            return
        with self.leases.held(self.rank, needed=needed) as device:
            try:
                yield None if device is None else _cuda_name(device)
            except RuntimeError as error:  # torch's own errors, and those of Triton, cuBLAS and the driver
                if device is None or not _is_broken(error):
                    raise
                raise _lost(self.leases, device, error) from error


def _cuda_name(device: Device) -> str:
    """The leased device as CUDA counts it, found by its UUID."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        if device.uuid.endswith(str(torch.cuda.get_device_properties(index).uuid)):
            return f"cuda:{index}"
    if count == 1 and device.uuid.startswith(
        "MIG-"
    ):  # CUDA may give it its GPU's UUID; it sees no second one
        return "cuda:0"
    raise DeviceError(
        f"CUDA does not see {device.uuid} ({device.name})",
        remedy="check the driver with `virnucpro doctor`; where cards differ set CUDA_DEVICE_ORDER=PCI_BUS_ID",
    )


def _is_broken(error: RuntimeError) -> bool:
    """Whether CUDA is of no more use in this process. Memory that ran out, or a wrong shape, is no such error."""
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
    """The device, made this process's own: kernels are launched and memory is pinned on the current one.

    Raises UsageError for a name of no device, DeviceError when it is not there or cannot compute in `precision`;
    nothing is substituted. `option` is the one by which the person asked for the precision.
    """
    if not _DEVICE.fullmatch(name):
        raise UsageError(f"no device {name!r}", remedy="give cpu, cuda or cuda:i")
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError(
                f"{name} was asked for and no CUDA device is usable",
                remedy="check `virnucpro doctor`, or ask for the CPU with --device cpu",
            )
        if (device.index or 0) >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            raise DeviceError(f"{name}: there are {count} GPUs", remedy=f"cuda:{count - 1} is the last")
        device = torch.device("cuda", device.index or 0)  # `cuda` alone is the first one
        torch.cuda.set_device(device)
    elif precision != "float32":
        raise DeviceError(
            f"the CPU computes float32, {precision} was asked for",
            remedy=f"ask for {option} float32, or compute on a GPU",
        )
    return device


def default_attention(device: str, precision: str) -> str:
    """The kernel where none was asked for: our own in half precision on a GPU, the reference in float32."""
    return "triton" if device.startswith("cuda") and precision != "float32" else "reference"


def device_name(device: torch.device) -> str:
    """What the device calls itself, for people and telemetry."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
