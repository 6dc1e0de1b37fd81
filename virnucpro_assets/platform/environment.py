"""Where things lie and what computes: the only module that reads the environment.

| variable | meaning | default |
|---|---|---|
| `VIRNUCPRO_HOME` | inbox, samples, models, and the instance where DAGSTER_HOME is unset | `~/.virnucpro` |
| `VIRNUCPRO_GPUS` | lanes, hence the keys of `gpu_rank` | visible GPUs, at least 1 |
| `VIRNUCPRO_DEVICE` | `cuda` or `cpu` | the profile's |
| `VIRNUCPRO_PROFILE`, `VIRNUCPRO_CHUNK_SIZE` | settings of samples from the inbox | `esm2-3b`, 500 |
| `VIRNUCPRO_ATTENTION`, `VIRNUCPRO_TOKEN_BUDGET`, `VIRNUCPRO_WORKERS` | how a lane computes | by device |
| `VIRNUCPRO_EXECUTOR` | where steps run: `in_process`, `ray` or `kubernetes` | `in_process` |
| `VIRNUCPRO_POSTGRES_URL` | PostgreSQL that a new Dagster instance keeps its records in | none: SQLite |
| `VIRNUCPRO_LEASES` | folder of the locks on GPUs, one for all that share them | `/var/tmp/virnucpro-leases` |
| `VIRNUCPRO_INBOX_STABLE_SECONDS` | how long a dropped file must not change | 30 |
| `VIRNUCPRO_KEEP`, `VIRNUCPRO_KEEP_DAYS` | what stays of a sample that many days after its results | `all`, 0 |
| `DAGSTER_AUTOMATION_TICK_SETTLE_SECONDS` | Dagster's own: how long `follow` waits before it looks, see SETTLE | 2 |
"""

import os
from pathlib import Path

from virnucpro_core.devices.visible import Device, boards, choose
from virnucpro_core.errors import DeviceError, UsageError

_VISIBLE = os.environ.get("CUDA_VISIBLE_DEVICES")  # as it was before a lease narrows it
# NVML counts the cards like this; CUDA would put the fastest first.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


IN_PROCESS = "in_process"
POSTGRES_URL = "VIRNUCPRO_POSTGRES_URL"


def home_folder() -> Path:
    """`VIRNUCPRO_HOME`, absolute."""
    return Path(os.environ.get("VIRNUCPRO_HOME", "") or Path.home() / ".virnucpro").expanduser().resolve()


def dagster_home() -> Path:
    """`DAGSTER_HOME`, or the folder below VIRNUCPRO_HOME that stands in where it is unset."""
    return Path(os.environ.get("DAGSTER_HOME", "") or home_folder() / "dagster").expanduser().resolve()


def postgres_asked() -> bool:
    """Whether the instance's records are to be kept in PostgreSQL."""
    return bool(os.environ.get(POSTGRES_URL))


def usable_cores() -> int:
    """Cores that this process may keep busy: by affinity, and by the container's quota (cgroup v2)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except FileNotFoundError:
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def visible_gpus() -> int:
    """GPUs this process may use, at least 1; asks the driver without starting CUDA."""
    try:
        return max(1, len(visible_devices()))
    except DeviceError:
        return 1


def visible_devices() -> list[Device]:
    """GPUs and MIG instances that this process may use, in the order of the ranks. Raises DeviceError."""
    return choose(_VISIBLE, boards())


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "") or str(default)
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{name} is {text!r}", remedy="give a whole number") from None
