"""The Dagster resource `platform`: gives assets this machine's folders, settings, samples, lanes and devices."""

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg

from virnucpro_assets.platform.environment import (
    IN_PROCESS,
    MODELS,
    given_settings,
    home_folder,
    settings,
    usable_cores,
    visible_devices,
)
from virnucpro_assets.platform.presence import hold_presence
from virnucpro_core.devices.compute import WEIGHT_BYTES, Compute, LoaderSettings
from virnucpro_core.devices.fitness import check_cpu, check_gpus, check_memory
from virnucpro_core.devices.leases import FOLDER, Leases, ProcessDevice
from virnucpro_core.encoders.model_folder import values_in
from virnucpro_core.errors import UsageError
from virnucpro_core.interrupts import interruptible, keep_interrupts
from virnucpro_core.models.profiles import PROFILES, ImportedFeatures, ResolvedProfile, resolve_profile
from virnucpro_core.models.store import ModelStore
from virnucpro_core.pipeline.imported import imported_features
from virnucpro_core.pipeline.lane import Lane, sample_calibration
from virnucpro_core.pipeline.retention import Keep, check_keep
from virnucpro_core.samples.combined import layered
from virnucpro_core.samples.products import DNABERT, ESM, PRODUCTS
from virnucpro_core.samples.sample import Sample, open_sample
from virnucpro_core.samples.settings import SampleSettings

RESULTS = "/results"  # the path of the samples' results beside the web UI


def _show_only(uuid: str) -> None:
    """Show CUDA this device alone. Compiled kernels go below VIRNUCPRO_HOME: a container may have no other place."""
    os.environ["CUDA_VISIBLE_DEVICES"] = uuid
    os.environ.setdefault("TRITON_CACHE_DIR", str(home_folder() / "cache" / "triton"))


_PROCESS = ProcessDevice(_show_only)


def largest_model(settings: SampleSettings, found: ResolvedProfile) -> int:
    """Bytes of the larger of the two encoders in the precision that it computes in."""
    return max(
        WEIGHT_BYTES[product.precision(settings.precision)]
        * sum(map(values_in, folder.glob("*.safetensors")))
        for folder, product in ((found.esm2, PRODUCTS[ESM]), (found.dnabert, PRODUCTS[DNABERT]))
    )


def kept_device() -> AbstractContextManager[None]:
    """Keep the first GPU that is leased inside the block until the block ends, instead of releasing it earlier."""
    return _PROCESS.keeping()


class Platform(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The settings of this machine. Every field can be overridden in the launchpad."""

    home: str
    weights: str = ""
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
    url_prefix: str = ""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Dagster calls this before each run, and before each tick of a sensor (then without a run)."""
        keep_interrupts()
        # On a cluster the steps run on many machines and no process holds a lock; the run launcher watches the run.
        if context.run is not None and self.executor == IN_PROCESS:
            with interruptible():
                hold_presence(self.folder, context.run.run_id)

    @property
    def folder(self) -> Path:
        return Path(self.home)

    def results_url(self, sample: str, file: str = "") -> str:
        """The address of a sample's results, or of one file of them, on the host of the web UI."""
        return f"{self.url_prefix}{RESULTS}/{quote(sample)}/{quote(file)}"

    @property
    def inbox(self) -> Path:
        return self.folder / "inbox"

    @property
    def models(self) -> ModelStore:
        return ModelStore(Path(self.weights) if self.weights else self.folder / MODELS)

    def device_of(self, profile: str) -> str:
        """`cuda` or `cpu`: the platform's setting if there is one, else the profile's default. Raises UsageError."""
        if profile not in PROFILES:
            raise UsageError(
                f"there is no profile {profile!r}", remedy=f"choose one of {', '.join(PROFILES)}"
            )
        return self.device or PROFILES[profile].default_device

    def asked(self, *, gpus: int = 0, device: str = "") -> "Platform":
        """A copy for a command on this machine, with the options that the user gave; 0 and "" mean not given."""
        asked = {"gpus": gpus or self.gpus, "device": device or self.device, "executor": IN_PROCESS}
        return self.model_copy(update=asked)

    def sample_settings(self, **given: Any) -> SampleSettings:
        """Settings of a new sample: the given ones, else this platform's. None means not given.

        The platform's are those of the environment and the configuration file, and its own profile and chunk size.
        """
        own = {"profile": self.profile, "chunk_size": self.chunk_size}
        settings = layered(given_settings(self.folder), own, given)
        precision = "float16" if self.device_of(settings["profile"]) == "cuda" else "float32"
        return SampleSettings(**{"precision": precision} | settings)

    def profile_of(
        self, settings: SampleSettings, imported: ImportedFeatures | None = None
    ) -> ResolvedProfile:
        """Find the profile's weights and check that they fit together. Raises WeightsError or UsageError.

        imported: features that take the place of the encoders, which then need not be there. Checks also that the
        calibration, if there is one, is this classifier's.
        """
        classifier = Path(settings.classifier) if settings.classifier else None
        found = resolve_profile(
            settings.profile, settings.chunk_size, self.models, classifier=classifier, imported=imported
        )
        sample_calibration(found, settings)
        return found

    def check_device(self, settings: SampleSettings) -> None:
        """Raises DeviceError if this machine lacks the devices, the kernel or the precision. Does not start CUDA."""
        kind = self.device_of(settings.profile)
        if kind == "cpu":
            check_cpu(settings.precision)
        else:
            check_gpus(visible_devices(), self.gpus, settings.precision)
        if self.attention:
            import torch

            from virnucpro_core.encoders.attention import require_kernel

            require_kernel(self.attention, torch.device(kind), alibi=True)

    def check_memory(self, settings: SampleSettings, found: ResolvedProfile) -> None:
        """Raises DeviceError if a GPU lacks memory for one of the encoders."""
        if self.device_of(settings.profile) == "cpu":
            return
        leases = self.device_leases()
        check_memory(leases.devices[: self.gpus], largest_model(settings, found), leases.holder)

    @property
    def retention(self) -> Keep:
        """What is kept of a sample with complete results. Raises UsageError for an unknown policy."""
        return check_keep(self.keep)

    def sample(self, name: str) -> Sample:
        """Open a registered sample. Checks its name, because anyone who can launch a run chooses the key."""
        return open_sample(self.folder, name)

    def lane(self, name: str, rank: int) -> Lane:
        """The lane of (sample, rank), with the weights of the sample's profile."""
        sample = self.sample(name)
        imported = imported_features(sample.folder, sample.settings)
        return Lane(sample, self.profile_of(sample.settings, imported), rank, self.gpus, self.attention)

    def compute(self, lane: Lane) -> Compute:
        """How the lane computes: one device per rank, one process per device."""
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
        """How a command computes on `cpu`, `cuda` or `cuda:1` (second visible GPU). Raises DeviceError, UsageError."""
        kind, _, index = device.partition(":")
        if kind not in ("cpu", "cuda") or not (index or "0").isdecimal():
            raise UsageError(f"unknown device {device!r}", remedy="give cpu, cuda, or a GPU such as cuda:1")
        return Compute(kind, leases=self.device_leases() if kind == "cuda" else None, rank=int(index or 0))

    def device_leases(self) -> Leases:
        """The leases (locks) of the GPUs that this process may use. Raises DeviceError if there is no driver."""
        return Leases(Path(self.leases), visible_devices(), _PROCESS)


def platform_from_environment() -> Platform:
    """The platform with the settings of the environment. Raises UsageError that names a variable that is not valid."""
    return Platform(**settings())
