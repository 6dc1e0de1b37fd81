"""Samples the utilisation, memory and power of a GPU once a second, with the driver's counters (NVML).

Samples are coarse. clock.py measures exactly how long the device computed.
"""

import logging
import threading
from dataclasses import dataclass
from typing import Any, Self

import pynvml
import torch

log = logging.getLogger(__name__)

PERIOD_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """One sample. None for a value that the device does not measure (a MIG instance has no utilisation).

    utilisation: percent of the last period in which a kernel ran. memory: bytes in use on the device by all processes.
    power: watts.
    """

    utilisation: int | None
    memory: int | None
    power: float | None


class DeviceMonitor:
    """Samples a device on a thread during the block. `latest` is None on the CPU and before the first sample."""

    def __init__(self, device: torch.device) -> None:
        self.latest: Reading | None = None
        self.samples: list[Reading] = []
        self._device = device
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="device-monitor", daemon=True)

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        try:
            pynvml.nvmlInit()
            handle = _handle(self._device)
        except pynvml.NVMLError as error:  # only telemetry: the lane goes on without it
            log.warning("the driver's counters of %s cannot be read: %s", self._device, error)
            return
        while not self._stop.wait(PERIOD_SECONDS):
            self.latest = Reading(
                utilisation=_asked(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
                memory=_asked(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).used),
                power=_asked(lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3),
            )
            self.samples.append(self.latest)
        pynvml.nvmlShutdown()


def _handle(device: torch.device) -> Any:
    """NVML handle of a CUDA device, found by UUID: NVML ignores CUDA_VISIBLE_DEVICES, so its indices differ."""
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")


def _asked(question: Any) -> Any:
    try:
        return question()
    except pynvml.NVMLError:
        return None
