"""Where things lie and what computes: the only module that reads the environment.

`VARIABLES` is the one table of what is read. From it come the platform's settings, what steps on other machines
are given, and the table in docs/operations.md. Imports neither Dagster nor torch, so that quick commands stay quick.
"""

import math
import os
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virnucpro_core.devices.leases import FOLDER
from virnucpro_core.devices.visible import Device, boards, choose
from virnucpro_core.errors import DeviceError, UsageError

_VISIBLE = os.environ.get("CUDA_VISIBLE_DEVICES")  # as it was before a lease narrows it
# NVML counts the cards like this; CUDA would put the fastest first.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


MODELS = "models"
IN_PROCESS = "in_process"
EXECUTORS = (IN_PROCESS, "ray", "kubernetes")
POSTGRES_URL = "VIRNUCPRO_POSTGRES_URL"
# A tick of `follow` notes the newest event's number and looks at all up to it. Numbers are given before a transaction
# is committed: an event that is committed a moment after a higher one would never be seen, and what depends on it never
# be asked for. With this delay between the number and the look, Dagster closes the gap; it is off by default.
SETTLE, SETTLE_SECONDS = "DAGSTER_AUTOMATION_TICK_SETTLE_SECONDS", "2"
LOCAL_TIME, ZONES = Path("/etc/localtime"), "zoneinfo/"


def home_folder() -> Path:
    """`VIRNUCPRO_HOME`, absolute."""
    return _folder("VIRNUCPRO_HOME", Path.home() / ".virnucpro")


def models_folder() -> Path:
    """The model store of this installation."""
    return home_folder() / MODELS


def dagster_home() -> Path:
    """`DAGSTER_HOME`, or the folder below VIRNUCPRO_HOME that stands in where it is unset."""
    return _folder("DAGSTER_HOME", home_folder() / "dagster")


def postgres_asked() -> bool:
    """Whether the instance's records are to be kept in PostgreSQL."""
    return bool(os.environ.get(POSTGRES_URL))


def variable(name: str) -> str:
    """What a site's own `dagster.yaml` takes from the environment; "" where it is not set."""
    return os.environ.get(name, "")


def time_zone() -> str:
    """IANA name of the zone of nightly schedules: `VIRNUCPRO_TIMEZONE`, else this machine's. Raises UsageError."""
    asked = os.environ.get("VIRNUCPRO_TIMEZONE", "")
    if asked and not _is_zone(asked):
        raise UsageError(
            f"VIRNUCPRO_TIMEZONE is {asked!r}",
            remedy="give a name such as Europe/Berlin, America/New_York or UTC",
        )
    linked = str(LOCAL_TIME.resolve()).partition(ZONES)[2]
    own = os.environ.get("TZ", "").removeprefix(":")
    return next((zone for zone in (asked, own, linked) if zone and _is_zone(zone)), "UTC")


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


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: its name, the platform's setting that it gives, and the words of its row in the docs.

    read: the setting's value, from the environment or by default; raises UsageError. A variable without a `setting`
    is not passed on to steps on other machines.
    """

    name: str
    setting: str
    meaning: str
    default: str
    read: Callable[[], Any]


def settings() -> dict[str, Any]:
    """Every setting of the platform as the environment describes it.

    Raises UsageError naming a variable that makes no sense.
    """
    found = {variable.setting: variable.read() for variable in VARIABLES if variable.setting}
    if found["executor"] != IN_PROCESS and not _number("VIRNUCPRO_GPUS", 0):
        raise UsageError(
            f"VIRNUCPRO_EXECUTOR is {found['executor']!r} and VIRNUCPRO_GPUS is not set",
            remedy="set it to the number of GPUs of the cluster, the same for every process",
        )
    return found


def environment_of(platform: Any) -> dict[str, str]:
    """The variables by which another process of this installation, here or on another machine, has these settings.

    platform: whatever has an attribute for each setting.
    """
    return {v.name: str(getattr(platform, v.setting)) for v in VARIABLES if v.setting}


def export(platform: Any) -> None:
    """Write the platform and DAGSTER_HOME into this process's environment, for Dagster and for child processes.

    Call it before `virnucpro_assets.definitions` is imported: the partition keys follow the number of GPUs.
    """
    os.environ.update(environment_of(platform), DAGSTER_HOME=str(dagster_home()))
    os.environ.setdefault(SETTLE, SETTLE_SECONDS)


def _folder(name: str, default: Path) -> Path:
    return Path(os.environ.get(name, "") or default).expanduser().resolve()


def _is_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # not known, a path, a folder of zones
        return False
    return True


def _text(name: str, default: str = "") -> Callable[[], str]:
    return lambda: os.environ.get(name, "") or default


def _choice(name: str, *known: str) -> Callable[[], str]:
    """One of the known words; the first by default."""

    def read() -> str:
        text = os.environ.get(name, "") or known[0]
        if text not in known:
            raise UsageError(f"{name} is {text!r}", remedy=f"give one of {', '.join(filter(None, known))}")
        return text

    return read


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "") or str(default)
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{name} is {text!r}", remedy="give a whole number") from None


def _whole(name: str, default: int) -> Callable[[], int]:
    return lambda: _number(name, default)


def _time(name: str, default: float) -> Callable[[], float]:
    """Seconds or days, 0 or more."""

    def read() -> float:
        text = os.environ.get(name, "") or str(default)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise UsageError(f"{name} is {text!r}", remedy="give a number, 0 or more")
        return value

    return read


VARIABLES = (
    Variable(
        "VIRNUCPRO_HOME", "home", "inbox, samples, models", "`~/.virnucpro`", lambda: str(home_folder())
    ),
    Variable(
        "DAGSTER_HOME",
        "",
        "the Dagster instance; an absolute path",
        "`$VIRNUCPRO_HOME/dagster`",
        lambda: str(dagster_home()),
    ),
    Variable(
        "VIRNUCPRO_GPUS",
        "gpus",
        "lanes, hence the keys of `gpu_rank`",
        "visible GPUs, at least 1",
        lambda: _number("VIRNUCPRO_GPUS", 0) or visible_gpus(),
    ),
    Variable(
        "VIRNUCPRO_DEVICE",
        "device",
        "`cuda` or `cpu`",
        "the profile's",
        _choice("VIRNUCPRO_DEVICE", "", "cuda", "cpu"),
    ),
    Variable(
        "VIRNUCPRO_PROFILE",
        "profile",
        "profile of samples from the inbox",
        "`esm2-3b`",
        _text("VIRNUCPRO_PROFILE", "esm2-3b"),
    ),
    Variable(
        "VIRNUCPRO_CHUNK_SIZE",
        "chunk_size",
        "chunk size of samples from the inbox, bases",
        "500",
        _whole("VIRNUCPRO_CHUNK_SIZE", 500),
    ),
    Variable(
        "VIRNUCPRO_ATTENTION",
        "attention",
        "attention kernel; `virnucpro doctor` lists them",
        "by device",
        _text("VIRNUCPRO_ATTENTION"),
    ),
    Variable(
        "VIRNUCPRO_TOKEN_BUDGET",
        "token_budget",
        "tokens a batch",
        "by device",
        _whole("VIRNUCPRO_TOKEN_BUDGET", 0),
    ),
    Variable(
        "VIRNUCPRO_WORKERS",
        "workers",
        "loader processes a lane",
        "by device",
        _whole("VIRNUCPRO_WORKERS", -1),
    ),
    Variable(
        "VIRNUCPRO_EXECUTOR",
        "executor",
        "where steps run: `in_process`, `ray` or `kubernetes` ([clusters](clusters.md))",
        "`in_process`",
        _choice("VIRNUCPRO_EXECUTOR", *EXECUTORS),
    ),
    Variable(
        POSTGRES_URL,
        "",
        "PostgreSQL for the records of a new instance (below); a secret, so each machine has it in its own environment",
        "none: SQLite",
        _text(POSTGRES_URL),
    ),
    Variable(
        "VIRNUCPRO_LEASES",
        "leases",
        "folder of the locks on GPUs, one for all that share them",
        f"`{FOLDER}`",
        lambda: str(_folder("VIRNUCPRO_LEASES", FOLDER)),
    ),
    Variable(
        "VIRNUCPRO_INBOX_STABLE_SECONDS",
        "inbox_stable_seconds",
        "how long a dropped file must not change",
        "30",
        _time("VIRNUCPRO_INBOX_STABLE_SECONDS", 30),
    ),
    Variable(
        "VIRNUCPRO_KEEP",
        "keep",
        "what stays of a finished sample: `all`, `scores` or `results`",
        "`all`",
        _choice("VIRNUCPRO_KEEP", "all", "scores", "results"),
    ),
    Variable(
        "VIRNUCPRO_KEEP_DAYS",
        "keep_days",
        "days after its results before the rest goes",
        "0",
        _time("VIRNUCPRO_KEEP_DAYS", 0),
    ),
    Variable(
        "VIRNUCPRO_TIMEZONE",
        "time_zone",
        "time zone of the nightly schedules (02:00 and 03:00), such as `Europe/Berlin`",
        "this machine's",
        time_zone,
    ),
    Variable(
        SETTLE,
        "",
        "how long the daemon's sensor `follow` lets transactions settle before it looks for news; Dagster's default "
        "of 0 can overlook a sample, see below",
        f"{SETTLE_SECONDS} under `virnucpro ui`",
        _text(SETTLE, SETTLE_SECONDS),
    ),
)
