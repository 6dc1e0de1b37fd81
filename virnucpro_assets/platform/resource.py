"""The platform as a Dagster resource: this machine's folders, device and lanes."""

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dagster as dg

from virnucpro_assets.platform.environment import (
    IN_PROCESS,
    MODELS,
    settings,
    usable_cores,
    visible_devices,
)
from virnucpro_assets.platform.presence import hold_presence
from virnucpro_core.devices.compute import Compute, LoaderSettings
from virnucpro_core.devices.leases import FOLDER, Leases, ProcessDevice
from virnucpro_core.errors import UsageError
from virnucpro_core.interrupts import interruptible, keep_interrupts
from virnucpro_core.models.profiles import PROFILES, ResolvedProfile, resolve_profile
from virnucpro_core.models.store import ModelStore
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.retention import Keep, check_keep
from virnucpro_core.samples.sample import Sample, open_sample
from virnucpro_core.samples.settings import SampleSettings

_PROCESS = ProcessDevice(lambda uuid: os.environ.update(CUDA_VISIBLE_DEVICES=uuid))


def kept_device() -> AbstractContextManager[None]:
    """The first GPU that is held inside the block stays this process's alone until the block ends."""
    return _PROCESS.keeping()


class Platform(dg.ConfigurableResource):  # type: ignore[type-arg]
    """This machine: folders, device, lanes. Every field can be overridden in the launchpad."""

    home: str
    gpus: int = 1
    device: str = ""
    profile: str = "esm2-3b"
    chunk_size: int = 500
    attention: str = ""
    token_budget: int = 0
    workers: int = -1
    inbox_stable_seconds: float = 30.0
    keep: str = "all"
    keep_days: float = 0.0
    executor: str = IN_PROCESS
    leases: str = str(FOLDER)
    time_zone: str = "UTC"

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """What Dagster calls before a run, and before a tick of a sensor, which has no run."""
        keep_interrupts()
        # Of a run whose steps are processes on many machines none holds the lock: its launcher watches over it.
        if context.run is not None and self.executor == IN_PROCESS:
            with interruptible():
                hold_presence(self.folder, context.run.run_id)

    @property
    def folder(self) -> Path:
        return Path(self.home)

    @property
    def inbox(self) -> Path:
        return self.folder / "inbox"

    @property
    def models(self) -> ModelStore:
        return ModelStore(self.folder / MODELS)

    def device_of(self, profile: str) -> str:
        """`cuda` or `cpu`: what was asked for, else what the profile is made for."""
        if profile not in PROFILES:
            raise UsageError(f"no profile {profile!r}", remedy=f"choose one of {', '.join(PROFILES)}")
        return self.device or PROFILES[profile].default_device

    def asked(self, *, gpus: int = 0, device: str = "") -> "Platform":
        """This platform as a command uses it, on the machine where it is typed; zero and "" ask for nothing."""
        asked = {"gpus": gpus or self.gpus, "device": device or self.device, "executor": IN_PROCESS}
        return self.model_copy(update=asked)

    def sample_settings(self, **given: Any) -> SampleSettings:
        """Settings of a new sample: what is given, else this platform's; None and absent mean not given."""
        settings: dict[str, Any] = {"profile": self.profile, "chunk_size": self.chunk_size}
        settings |= {name: value for name, value in given.items() if value is not None}
        precision = "float16" if self.device_of(settings["profile"]) == "cuda" else "float32"
        return SampleSettings(**{"precision": precision} | settings)

    def profile_of(self, settings: SampleSettings) -> ResolvedProfile:
        """The profile's weights, found and checked against each other. Raises WeightsError or UsageError."""
        classifier = Path(settings.classifier) if settings.classifier else None
        return resolve_profile(settings.profile, settings.chunk_size, self.models, classifier=classifier)

    @property
    def retention(self) -> Keep:
        """What stays of a sample with results. Raises UsageError for a policy that there is not."""
        return check_keep(self.keep)

    def sample(self, name: str) -> Sample:
        """A registered sample; its name is checked here again, whoever launched the run."""
        return open_sample(self.folder, name)

    def lane(self, name: str, rank: int) -> Lane:
        """The (sample, rank) share with its profile's weights found and checked against each other."""
        sample = self.sample(name)
        return Lane(sample, self.profile_of(sample.settings), rank, self.gpus, self.attention)

    def compute(self, lane: Lane) -> Compute:
        """How the lane computes: one device a rank, one process a device."""
        kind = self.device_of(lane.sample.settings.profile)
        cuda = kind == "cuda"
        cores = usable_cores()
        loader = LoaderSettings(
            token_budget=self.token_budget,
            workers=self.workers
            if self.workers >= 0
            else (max(1, min(8, cores // self.gpus - 1)) if cuda else 1),
        )
        return Compute(
            device=kind,
            loader=loader,
            leases=self.device_leases() if cuda else None,
            rank=lane.rank,
        )

    def compute_on(self, device: str) -> Compute:
        """How a command computes on `cpu` or `cuda[:i]`, the i-th visible GPU. Raises DeviceError, UsageError."""
        kind, _, index = device.partition(":")
        if kind not in ("cpu", "cuda") or not (index or "0").isdecimal():
            raise UsageError(f"no device {device!r}", remedy="give cpu, cuda or cuda:i")
        return Compute(kind, leases=self.device_leases() if kind == "cuda" else None, rank=int(index or 0))

    def device_leases(self) -> Leases:
        """The locks on the GPUs that this process may use. Raises DeviceError without a driver."""
        return Leases(Path(self.leases), visible_devices(), _PROCESS)


def platform_from_environment() -> Platform:
    """The platform as the environment describes it. Raises UsageError naming a variable that makes no sense."""
    return Platform(**settings())
