"""Lists the GPUs that a process may use, with the driver's library (NVML); CUDA is not started.

The value of `CUDA_VISIBLE_DEVICES` is an argument and is read as CUDA reads it, with MIG instances and UUIDs. Indices
are in the order of the PCI bus; CUDA uses this order if `CUDA_DEVICE_ORDER=PCI_BUS_ID`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pynvml

from virnucpro_core.errors import DeviceError

GPU, MIG = "GPU-", "MIG-"


@dataclass(frozen=True, slots=True)
class Device:
    """A device for one process: a GPU (UUID `GPU-...`) or a MIG instance of a GPU (UUID `MIG-...`)."""

    uuid: str
    name: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the driver says of a device: memory and free memory in bytes; compute capability, () if it is not known."""

    memory: int
    free: int
    capability: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """A GPU as the driver lists it. If MIG is on, only its `instances` can compute, not the whole GPU."""

    whole: Device
    instances: tuple[Device, ...] = ()

    @property
    def devices(self) -> tuple[Device, ...]:
        return self.instances or (self.whole,)


def choose(listed: str | None, boards: Sequence[Board]) -> list[Device]:
    """The devices that `CUDA_VISIBLE_DEVICES=listed` selects, in its order. None: the variable is not set.

    The rules are those of CUDA. A word is an index, or the beginning of exactly one UUID. The first word that matches
    no device ends the list. If a device is listed twice, the result is empty. A GPU with MIG on stands for all its
    instances.
    """
    if listed is None:
        return [device for board in boards for device in board.devices]
    chosen: list[Device] = []
    for word in listed.split(","):
        named = _named(word.strip(), boards)
        if not named:
            break
        if set(named) & set(chosen):
            return []
        chosen += named
    return chosen


def _named(word: str, boards: Sequence[Board]) -> Sequence[Device]:
    if word.isdecimal() and word.isascii():
        return boards[int(word)].devices if int(word) < len(boards) else ()
    if not word.startswith((GPU, MIG)) or word in (GPU, MIG):
        return ()
    by_uuid = {board.whole.uuid: board.devices for board in boards}
    by_uuid |= {device.uuid: (device,) for board in boards for device in board.instances}
    found = [devices for uuid, devices in by_uuid.items() if uuid.startswith(word)]
    return found[0] if len(found) == 1 else ()


def boards() -> list[Board]:
    """All GPUs that the driver shows to this process or its container. Raises DeviceError if there is no driver."""
    with _driver():
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [Board(_device(handle), tuple(_instances(handle))) for handle in handles]


def answers(uuid: str) -> bool:
    """Whether the device still answers the driver."""
    try:
        with _driver():
            pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(uuid.encode()))
    except (DeviceError, pynvml.NVMLError):
        return False
    return True


def facts_of(device: Device) -> Facts:
    """Memory and compute capability of the device now. Raises DeviceError if it does not answer."""
    with _driver():
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(device.uuid.encode())
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        except pynvml.NVMLError as error:
            raise DeviceError(
                f"{device.name} does not answer the driver ({error})",
                where=device.uuid,
                remedy="check `nvidia-smi`; choose another GPU with CUDA_VISIBLE_DEVICES",
            ) from error
        try:
            capability = tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle))
        except pynvml.NVMLError:  # a MIG instance
            capability = ()
        return Facts(int(memory.total), int(memory.free), capability)


@contextmanager
def _driver() -> Iterator[None]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise DeviceError(
            f"no CUDA device is usable: the NVIDIA driver does not answer ({error})",
            remedy="check `nvidia-smi`, or use the CPU with --device cpu",
        ) from error
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _device(handle: object) -> Device:
    return Device(_text(pynvml.nvmlDeviceGetUUID(handle)), _text(pynvml.nvmlDeviceGetName(handle)))


def _instances(handle: object) -> Iterator[Device]:
    try:
        on = pynvml.nvmlDeviceGetMigMode(handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    except pynvml.NVMLError_NotSupported:
        return
    for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle) if on else 0):
        try:
            yield _device(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place))
        except (pynvml.NVMLError_NotFound, pynvml.NVMLError_NoPermission):
            continue  # no instance with this index, or it belongs to another container


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
