"""Which GPUs a process may use, asked of the driver's library (NVML): CUDA is not started.

Knows `CUDA_VISIBLE_DEVICES` as CUDA reads it, MIG instances and UUIDs; its text is given, never read here. Indices
count in the order of the PCI bus, which is CUDA's own where `CUDA_DEVICE_ORDER=PCI_BUS_ID`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pynvml

from virnucpro_core.errors import DeviceError

GPU, MIG = "GPU-", "MIG-"


@dataclass(frozen=True, slots=True)
class Device:
    """What one process can compute on: a GPU (`GPU-...`), or a MIG instance of one (`MIG-...`)."""

    uuid: str
    name: str


@dataclass(frozen=True, slots=True)
class Board:
    """A GPU as the driver lists it; with MIG on, `instances` are what can be computed on, not the GPU."""

    whole: Device
    instances: tuple[Device, ...] = ()

    @property
    def devices(self) -> tuple[Device, ...]:
        return self.instances or (self.whole,)


def choose(listed: str | None, boards: Sequence[Board]) -> list[Device]:
    """The devices that `CUDA_VISIBLE_DEVICES=listed` leaves, in its order; None: it is not set.

    As CUDA does: the first word that names no device ends the list, and a device named twice empties it. A word is an
    index, or the beginning of one UUID. A GPU with MIG on stands for all its instances.
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
    """All GPUs that the driver shows this process (a container sees its own). Raises DeviceError without a driver."""
    with _driver():
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [Board(_device(handle), tuple(_instances(handle))) for handle in handles]


def answers(uuid: str) -> bool:
    """Whether the driver still reaches the device."""
    try:
        with _driver():
            pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(uuid.encode()))
    except (DeviceError, pynvml.NVMLError):
        return False
    return True


@contextmanager
def _driver() -> Iterator[None]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise DeviceError(
            f"no CUDA device is usable: the NVIDIA driver does not answer ({error})",
            remedy="check `nvidia-smi`, or ask for the CPU with --device cpu",
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
            continue  # no instance at this place, or one of another container


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
