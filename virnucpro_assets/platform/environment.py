"""Reads the settings of this installation from environment variables. Only `places` beside it reads them, too.

Beneath a variable the configuration file `VIRNUCPRO_HOME/virnucpro.toml` holds, beneath that the default. Options of a
command are above all of them. `VARIABLES` lists every variable; those of samples follow the fields of `SampleSettings`.
The platform's settings, the configuration file, the environment of steps on other machines and the table in
docs/operations.md all follow this list. Imports neither Dagster nor torch, so that short commands stay fast.
"""

import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from virnucpro_assets.platform.variable import Variable, choice, number, seconds_or_days
from virnucpro_assets.platform.zones import is_zone, own_zone
from virnucpro_core.devices.leases import FOLDER
from virnucpro_core.devices.visible import Device, boards, choose
from virnucpro_core.errors import DeviceError, UsageError
from virnucpro_core.models.sources import HUGGING_FACE
from virnucpro_core.samples.combined import check_exclusive, layered
from virnucpro_core.samples.settings import PATHS, SampleSettings
from virnucpro_core.samples.settings_file import NAME, read_settings_file
from virnucpro_core.samples.settings_text import setting_from_text

_VISIBLE = os.environ.get("CUDA_VISIBLE_DEVICES")  # its value before a lease reduces it to one GPU
# NVML numbers the GPUs in this order; CUDA's default would put the fastest first.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

MODELS = "models"
HUB = "HF_ENDPOINT"
IN_PROCESS = "in_process"
SLURM = "slurm"
EXECUTORS = (IN_PROCESS, SLURM, "ray", "kubernetes")
POSTGRES_URL = "VIRNUCPRO_POSTGRES_URL"
# A tick of the sensor `follow` takes the newest event's number and reads all events up to it. The database gives an
# event its number before the transaction is committed. If an event is committed after one with a higher number, the
# tick never sees it, and the assets that depend on it are never started. With this variable Dagster waits before it
# reads, so that open transactions can end. Dagster's default is no wait.
SETTLE, SETTLE_SECONDS = "DAGSTER_AUTOMATION_TICK_SETTLE_SECONDS", "2"
OF_SAMPLES = SampleSettings.__dataclass_fields__


def home_folder() -> Path:
    """`VIRNUCPRO_HOME`, absolute. Raises UsageError if it is not set and this user has no home directory."""
    return _folder("VIRNUCPRO_HOME", "~/.virnucpro")


def models_folder() -> Path:
    """The model store: `VIRNUCPRO_MODELS`, absolute; if it is not set, the folder `models` below VIRNUCPRO_HOME."""
    return _folder("VIRNUCPRO_MODELS", home_folder() / MODELS)


def dagster_home() -> Path:
    """`DAGSTER_HOME`; if it is not set, the folder `dagster` below VIRNUCPRO_HOME. Raises UsageError if relative."""
    asked = os.environ.get("DAGSTER_HOME", "")
    if asked and not Path(asked).expanduser().is_absolute():
        remedy = "give an absolute path, such as /srv/dagster"
        raise UsageError(f"DAGSTER_HOME is {asked!r}", remedy=remedy)
    return _folder("DAGSTER_HOME", home_folder() / "dagster")


def configured(home: Path) -> Mapping[str, Any]:
    """What the configuration file of this home folder sets, by name; empty if there is no file.

    Keys are the settings of samples (options of `predict`) and those of `VARIABLES` that have a `kind`. Raises
    InputError for a wrong file.
    """
    file = home / NAME
    try:
        status = file.stat()
    except OSError:
        return {}
    return _read_file(file, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _read_file(file: Path, _mtime_ns: int, _size: int) -> Mapping[str, Any]:
    return read_settings_file(file, {v.setting: v.kind for v in VARIABLES if v.kind and not v.of_samples})


def variable_of(setting: str) -> str:
    """The variable of a setting of samples: VIRNUCPRO_CHUNK_SIZE for `chunk_size`."""
    return f"VIRNUCPRO_{setting.upper()}"


def sample_variables() -> dict[str, Any]:
    """What the environment says of the settings of samples, by their names. Raises UsageError that names a variable."""
    texts = {name: text for name in OF_SAMPLES if (text := os.environ.get(variable_of(name), ""))}
    found = {name: setting_from_text(name, text, Path(), variable_of(name)) for name, text in texts.items()}
    check_exclusive(found, lambda name, _: f"{variable_of(name)}={texts[name]}")
    return found


def given_settings(home: Path) -> dict[str, Any]:
    """The settings of samples that somebody has set for this installation: by variables, and in the file beneath them.

    Raises UsageError or InputError for one that is not valid.
    """
    in_file = {name: value for name, value in configured(home).items() if name in OF_SAMPLES}
    found = layered(in_file, sample_variables())
    if "profile" in found:
        from virnucpro_core.models.profiles import PROFILES

        if found["profile"] not in PROFILES:
            raise _wrong("VIRNUCPRO_PROFILE", found["profile"], f"give one of {', '.join(PROFILES)}")
    return found


def _given(name: str) -> str:
    """The value of a variable, else that of the configuration file; "" for neither."""
    return os.environ.get(name, "") or str(configured(home_folder()).get(_setting(name), ""))


def _setting(name: str) -> str:
    """The setting in the configuration file that this variable stands above."""
    return "time_zone" if name == "VIRNUCPRO_TIMEZONE" else name.removeprefix("VIRNUCPRO_").lower()


def _wrong(name: str, value: str, remedy: str) -> UsageError:
    """The error for a value that is not valid. It names the variable, or the file and its key if that holds it."""
    if os.environ.get(name) or _setting(name) not in configured(home_folder()):
        return UsageError(f"{name} is {value!r}", remedy=remedy)
    return UsageError(
        f"{_setting(name).replace('_', '-')} is {value!r}", where=home_folder() / NAME, remedy=remedy
    )


def hub_endpoint() -> str:
    """Address that stands for huggingface.co: `HF_ENDPOINT`, as Hugging Face's own programs read it."""
    return os.environ.get(HUB, "") or HUGGING_FACE


def postgres_asked() -> bool:
    """Whether a new instance shall keep its records in PostgreSQL."""
    return bool(os.environ.get(POSTGRES_URL))


def variable(name: str) -> str:
    """The value of a variable that a site's `dagster.yaml` refers to; "" if it is not set."""
    return os.environ.get(name, "")


def time_zone() -> str:
    """IANA time zone of the nightly schedules: `VIRNUCPRO_TIMEZONE`, else this machine's. Raises UsageError."""
    asked = _given("VIRNUCPRO_TIMEZONE")
    if asked and not is_zone(asked):
        remedy = "give a name such as Europe/Berlin, America/New_York or UTC"
        raise _wrong("VIRNUCPRO_TIMEZONE", asked, remedy)
    return asked or own_zone(os.environ.get("TZ", ""))


def url_prefix() -> str:
    """`VIRNUCPRO_URL_PREFIX`: "" or a path that begins with a slash and ends without one. Raises UsageError."""
    prefix = _given("VIRNUCPRO_URL_PREFIX").rstrip("/")
    if prefix and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", prefix):
        raise _wrong("VIRNUCPRO_URL_PREFIX", prefix, "give a path such as /virnucpro")
    return prefix


def usable_cores() -> int:
    """Number of cores that this process may use, by CPU affinity and the container's quota (cgroup v2)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except FileNotFoundError:
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def visible_gpus() -> int:
    """Number of GPUs that this process may use, at least 1. Asks the driver and does not start CUDA."""
    try:
        return max(1, len(visible_devices()))
    except DeviceError:
        return 1


def visible_devices() -> list[Device]:
    """GPUs and MIG instances that this process may use, in the order of the ranks. Raises DeviceError."""
    return choose(_VISIBLE, boards())


def settings() -> dict[str, Any]:
    """Every setting of the platform, read from the environment.

    Raises UsageError that names the variable, if a value is not valid.
    """
    given_settings(home_folder())  # what is wrong with one of them is said now
    found = {variable.setting: variable.read() for variable in PASSED_ON}
    if found["executor"] != IN_PROCESS and not _GPUS():
        what = f"VIRNUCPRO_EXECUTOR is {found['executor']!r} and VIRNUCPRO_GPUS is not set"
        raise UsageError(
            what, remedy="set it to the number of GPUs of the cluster, the same for every process"
        )
    return found


def environment_of(platform: Any) -> dict[str, str]:
    """The environment variables that give another process of this installation the same settings.

    platform: an object with one attribute for each setting.
    """
    return {v.name: str(getattr(platform, v.setting)) for v in PASSED_ON}


def export(platform: Any) -> None:
    """Write the platform's settings and DAGSTER_HOME to this process's environment, for Dagster and child processes.

    Call this before `virnucpro_assets.definitions` is imported: the partition keys depend on the number of GPUs. Paths
    of the settings of samples become absolute.
    """
    paths = {variable_of(name): value for name, value in sample_variables().items() if name in PATHS}
    os.environ.update(paths | environment_of(platform), DAGSTER_HOME=str(dagster_home()))
    os.environ.setdefault(SETTLE, SETTLE_SECONDS)


def _folder(name: str, default: Path | str) -> Path:
    asked = Path(os.environ.get(name, "") or default)
    try:
        return asked.expanduser().resolve()
    except RuntimeError:  # `~` of a user in no list of users, as in containers
        raise UsageError(f"{asked}: HOME is not set", remedy=f"set {name}, or give --home") from None


def _read(name: str, parse: Callable[[str], Any]) -> Callable[[], Any]:
    """Read the variable, else the configuration file. parse: gives the value of a text, and the default for ""."""

    def read() -> Any:
        text = _given(name)
        try:
            return parse(text)
        except ValueError as error:
            raise _wrong(name, text, str(error)) from None

    return read


def _sample_setting(name: str) -> Any:
    return given_settings(home_folder()).get(name, OF_SAMPLES[name].default)


_GPUS = _read("VIRNUCPRO_GPUS", number(0))
VARIABLES = (
    Variable(
        "VIRNUCPRO_HOME", "home", "inbox, samples, models", "`~/.virnucpro`", lambda: str(home_folder())
    ),
    Variable(
        "VIRNUCPRO_MODELS",
        "weights",
        "the model store; several homes can share one",
        "`$VIRNUCPRO_HOME/models`",
        lambda: str(models_folder()),
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
        "number of lanes, and so of the keys of `gpu_rank`",
        "visible GPUs, at least 1",
        lambda: _GPUS() or visible_gpus(),
        int,
    ),
    Variable(
        "VIRNUCPRO_DEVICE",
        "device",
        "`cuda` or `cpu`",
        "the profile's",
        _read("VIRNUCPRO_DEVICE", choice("", "cuda", "cpu")),
        Literal["cuda", "cpu"],
    ),
    Variable(
        "VIRNUCPRO_ATTENTION",
        "attention",
        "attention kernel; `virnucpro doctor` lists them",
        "by device",
        _read("VIRNUCPRO_ATTENTION", str),
        str,
    ),
    Variable(
        "VIRNUCPRO_TOKEN_BUDGET",
        "token_budget",
        "tokens in a batch",
        "by device",
        _read("VIRNUCPRO_TOKEN_BUDGET", number(0)),
        int,
    ),
    Variable(
        "VIRNUCPRO_WORKERS",
        "workers",
        "loader processes of each lane",
        "by device",
        _read("VIRNUCPRO_WORKERS", number(-1, -1)),
        int,
    ),
    Variable(
        "VIRNUCPRO_EXECUTOR",
        "executor",
        "where steps run: `in_process`, `slurm`, `ray` or `kubernetes` ([clusters](clusters.md))",
        "`in_process`",
        _read("VIRNUCPRO_EXECUTOR", choice(*EXECUTORS)),
        Literal["in_process", "slurm", "ray", "kubernetes"],
    ),
    Variable(
        "VIRNUCPRO_SLURM",
        "",
        "file with what Slurm jobs ask for ([clusters](clusters.md#slurm))",
        "`$VIRNUCPRO_HOME/slurm.toml`",
        lambda: str(_folder("VIRNUCPRO_SLURM", home_folder() / "slurm.toml")),
    ),
    Variable(
        POSTGRES_URL,
        "",
        "address of the PostgreSQL database for Dagster's records ([below](#postgresql)); a secret, so each "
        "machine has it in its own environment",
        "none: SQLite",
        _read(POSTGRES_URL, str),
    ),
    Variable(
        "VIRNUCPRO_LEASES",
        "leases",
        "folder of the locks on GPUs; the same one for everybody who shares the GPUs",
        f"`{FOLDER}`",
        lambda: str(Path(_given("VIRNUCPRO_LEASES") or FOLDER).expanduser().resolve()),
        str,
    ),
    Variable(
        "VIRNUCPRO_INBOX_STABLE_SECONDS",
        "inbox_stable_seconds",
        "how long a dropped file must not change",
        "30",
        _read("VIRNUCPRO_INBOX_STABLE_SECONDS", seconds_or_days(30)),
        float,
    ),
    Variable(
        "VIRNUCPRO_KEEP",
        "keep",
        "what stays of a finished sample: `all`, `scores` or `results`",
        "`all`",
        _read("VIRNUCPRO_KEEP", choice("all", "scores", "results")),
        Literal["all", "scores", "results"],
    ),
    Variable(
        "VIRNUCPRO_KEEP_DAYS",
        "keep_days",
        "how many days after its results the rest is deleted",
        "0",
        _read("VIRNUCPRO_KEEP_DAYS", seconds_or_days(0)),
        float,
    ),
    Variable(
        "VIRNUCPRO_TIMEZONE",
        "time_zone",
        "time zone of the nightly schedules (02:00 and 03:00), such as `Europe/Berlin`",
        "this machine's",
        time_zone,
        str,
    ),
    Variable(
        "VIRNUCPRO_URL_PREFIX",
        "url_prefix",
        "path below which a proxy shows the web UI ([below](#sharing-the-web-ui)), such as `/virnucpro`",
        "none",
        url_prefix,
        str,
    ),
    Variable(
        HUB,
        "",
        "server in place of huggingface.co for `virnucpro models fetch`; proxies are those of HTTPS_PROXY and NO_PROXY",
        f"`{HUGGING_FACE}`",
        hub_endpoint,
    ),
    Variable(
        SETTLE,
        "",
        "seconds that the daemon's sensor `follow` waits before it looks at new events; Dagster's default of 0 can "
        "overlook a sample, [see below](#as-a-service)",
        f"{SETTLE_SECONDS} under `virnucpro ui`",
        _read(SETTLE, lambda text: text or SETTLE_SECONDS),
    ),
    *(
        Variable(variable_of(name), name, "", "", partial(_sample_setting, name), field.type, of_samples=True)
        for name, field in OF_SAMPLES.items()
    ),
)
# Those that are fields of `Platform`: steps on other machines get them. A sample's settings are in its folder.
PASSED_ON = tuple(
    v for v in VARIABLES if v.setting and (not v.of_samples or v.setting in ("profile", "chunk_size"))
)
