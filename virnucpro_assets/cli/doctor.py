"""`virnucpro doctor`: checks whether this machine has all that a profile needs, and says how to get what is missing."""

import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from virnucpro_assets.cli.golden import golden_states
from virnucpro_assets.platform.databases import databases, half_made, refuse_network
from virnucpro_assets.platform.environment import SLURM, dagster_home, models_folder, postgres_asked
from virnucpro_assets.platform.resource import Platform, platform_from_environment
from virnucpro_core.devices.compute import default_attention
from virnucpro_core.encoders.attention import usable_kernels
from virnucpro_core.errors import DeviceError, UsageError, VirnucproError
from virnucpro_core.files.disk import RESULT_BYTES_A_FRAME, sharded_bytes
from virnucpro_core.files.filesystem import examine_storage, file_system
from virnucpro_core.models.profiles import DEMO_PROFILE, PROFILES

SHARDS_OF_A_MILLION = 100
PUBLISHED_WIDTHS = (768, 2560)


@dataclass(frozen=True, slots=True)
class Report:
    """One line of the doctor. good: None if the line is only information. bad: the mark of a line that is not good."""

    name: str
    good: bool | None
    text: str
    bad: str = "MISSING"


def examine(platform: Platform, profile: str, chunk_size: int) -> Iterator[Report]:
    """Check Python, GPUs, kernels, the profile's weights, the disk and the Dagster instance, in this order."""
    yield Report(
        "python", sys.version_info >= (3, 11), f"{sys.version.split()[0]}, torch {torch.__version__}"
    )
    device = platform.device_of(profile)
    yield from _gpus(platform, wanted=device == "cuda")
    precision = platform.sample_settings(profile=profile).precision
    yield from _kernels(platform.attention or default_attention(device, precision))
    weights, widths = _weights(platform, profile, chunk_size)
    yield weights
    yield from _golden(platform, profile, chunk_size)
    yield from _folders(platform, widths)
    installed = platform_from_environment()  # `platform` is that of a command: it computes here
    if installed.executor == SLURM:
        from virnucpro_assets.graph.engines import examine_slurm

        yield from (Report(f"slurm {kind}", good, text) for kind, good, text in examine_slurm(installed))


def clear_failed(platform: Platform) -> list[str]:
    """Allow failed devices to be used again. Returns their UUIDs. Raises DeviceError if there is no driver."""
    leases = platform.device_leases()
    return [device.uuid for device in leases.devices if leases.clear(device)]


def _leases(platform: Platform) -> Iterator[Report]:
    """Report each visible device in the order of the ranks: which process holds it, and whether it failed."""
    try:
        leases = platform.device_leases()
    except DeviceError as error:
        yield Report("driver", None, str(error))
        return
    for rank, device in enumerate(leases.devices):
        failure, holder = leases.failure(device), leases.holder(device)
        text = f"{device.uuid}, {device.name}: {holder or 'free'}"
        if failure is not None:
            since = time.strftime("%H:%M:%S", time.localtime(failure.since))
            text += f"; failed at {since} ({failure.reason}); `virnucpro doctor --clear-failed` allows its use again"
        yield Report(f"device {rank}", None if failure is None else False, text)
    yield Report("leases", None, f"{leases.folder}; all users of these devices must use this folder")


def _gpus(platform: Platform, *, wanted: bool) -> Iterator[Report]:
    yield from _leases(platform)
    count = torch.cuda.device_count()
    for index in range(count):
        found = torch.cuda.get_device_properties(index)
        text = (
            f"{found.name}, {found.total_memory / 1e9:.0f} GB, compute capability {found.major}.{found.minor}"
        )
        yield Report(f"cuda:{index}", None, text)
    if wanted:
        text = f"{platform.gpus} lanes, {count} usable GPUs"
        remedy = (
            "" if count >= platform.gpus else "; check the driver, set VIRNUCPRO_GPUS, or give --device cpu"
        )
        yield Report("lanes", count >= platform.gpus, text + remedy)
    else:
        yield Report(
            "lanes",
            good=True,
            text=f"{platform.gpus} on the CPU, in float32, as the profile or --device says",
        )


def _kernels(wanted: str) -> Iterator[Report]:
    for name, reason in usable_kernels().items():
        good = not reason if name == wanted else None
        yield Report(f"attention {name}", good, reason or "usable")


def _weights(platform: Platform, profile: str, chunk_size: int) -> tuple[Report, tuple[int, int]]:
    """Check that the weights fit together. Also returns the widths of both encoders (the published ones if unknown)."""
    try:
        found = platform.profile_of(platform.sample_settings(profile=profile, chunk_size=chunk_size))
    except VirnucproError as error:
        return Report("weights", good=False, text=str(error)), PUBLISHED_WIDTHS
    dims = f"{found.dnabert_dim} + {found.esm2_dim} = {found.dnabert_dim + found.esm2_dim} columns fit the classifier"
    text = f"profile {profile}, chunks of {chunk_size}: {dims}"
    return Report("weights", good=True, text=text), (found.dnabert_dim, found.esm2_dim)


def _golden(platform: Platform, profile: str, chunk_size: int) -> Iterator[Report]:
    """Whether the installed models gave the published tool's answers when that was last checked."""
    if profile not in PROFILES or profile == DEMO_PROFILE:
        return
    models = PROFILES[profile]
    names = (models.dnabert, models.esm2, models.classifiers.get(chunk_size, ""))
    installed = [name for name in names if name and not platform.models.missing([name])]
    for name, passed, text in golden_states(platform.models.root, installed):
        yield Report("golden answers", passed, f"{name}: {text}", bad="DIFFERS")


def _folders(platform: Platform, widths: tuple[int, int]) -> Iterator[Report]:
    home = platform.folder
    existing = next(p for p in (home, *home.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    million = sum(sharded_bytes(1_000_000, SHARDS_OF_A_MILLION, width) for width in (*widths, 0, 2))
    million += 1_000_000 * RESULT_BYTES_A_FRAME
    text = f"{free / 1e9:,.0f} GB free at {home}; a million unique frames take {million / 1e9:.1f} GB"
    yield Report("disk", free > million, text)
    yield Report("VIRNUCPRO_HOME", _writable(existing), str(home))
    yield Report("VIRNUCPRO_MODELS", None, str(models_folder()))
    if existing == home and _writable(home):
        yield _storage(home / "locks")
    else:
        yield Report("storage", None, "locks are tested when VIRNUCPRO_HOME exists and is writable")
    instance = dagster_home()
    writable = _writable(next(p for p in (instance, *instance.parents) if p.exists()))
    yield Report("DAGSTER_HOME", writable, str(instance))
    yield _records(instance)
    yield _instance(instance)


def _records(home: Path) -> Report:
    """Where Dagster's records lie. SQLite on a network disk is an error."""
    try:
        if not (home / "dagster.yaml").exists() and postgres_asked():
            return Report("records", good=True, text="in PostgreSQL, as VIRNUCPRO_POSTGRES_URL says")
        found = databases(home)
        refuse_network(home)
    except UsageError as error:
        return Report("records", good=False, text=str(error))
    if not found:
        return Report("records", good=True, text=f"in a database server, as {home / 'dagster.yaml'} says")
    folder = found[0].folder
    kind = file_system(next(p for p in (folder, *folder.parents) if p.exists())).kind
    return Report("records", good=True, text=f"in SQLite below {folder}, on {kind}")


def _instance(home: Path) -> Report:
    """Check that the Dagster instance can be opened. Reads only the files of its databases."""
    try:
        unfinished = half_made(home)
    except (UsageError, OSError) as error:
        return Report("instance", good=False, text=str(error))
    except sqlite3.Error as error:
        text = f"a database below {home} cannot be read: {error}; restore it from a backup, or move it away"
        return Report("instance", good=False, text=text)
    if unfinished:
        text = f"half-made: {', '.join(unfinished)}; the next command that needs it repairs it"
        return Report("instance", good=None, text=text)
    made = (home / "dagster.yaml").exists()
    return Report("instance", good=True, text="complete" if made else "will be created at first use")


def _storage(locks: Path) -> Report:
    """Test whether locks, renames and fsync work below VIRNUCPRO_HOME, between two processes of this machine."""
    try:
        examine_storage(locks)
    except VirnucproError as error:
        return Report("storage", good=False, text=str(error))
    found = file_system(locks)
    if not found.shared:
        return Report("storage", good=True, text=f"{found.kind}, local to this machine; locks work")
    if found.local_locks:
        why = f"{found.kind} at {found.mount} is mounted with {', '.join(found.local_locks)}: locks end at this machine"
        return Report("storage", good=False, text=f"{why}; mount it as described in docs/clusters.md")
    text = f"{found.kind}, may be shared; locks work here; to test them between machines, use `virnucpro storage`"
    return Report("storage", good=True, text=text)


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK)
