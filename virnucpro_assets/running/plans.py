"""What the samples of a command will need on this machine: `virnucpro plan`."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virnucpro_assets.platform.places import origins_named
from virnucpro_assets.platform.resource import Platform, largest_model
from virnucpro_assets.running.request import samples_of
from virnucpro_core.devices.fitness import CONTEXT_BYTES
from virnucpro_core.errors import UsageError
from virnucpro_core.models.profiles import ResolvedProfile
from virnucpro_core.pipeline.pace import Pace, kind_of
from virnucpro_core.pipeline.plan import Plan, plan_sample
from virnucpro_core.samples.finding import look_into
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.samples.sheet_faults import SheetFaults
from virnucpro_core.samples.standard_input import is_stream


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """The estimate of one sample. gpu_bytes: least memory of each GPU; 0 on the CPU. kind: see pace.py."""

    name: str
    files: tuple[Path, ...]
    plan: Plan
    kind: str
    lanes: int
    gpu_bytes: int
    home: Path
    free_bytes: int

    def facts(self) -> dict[str, Any]:
        """The estimate for programs."""
        return {
            "sample": self.name,
            "files": [str(file) for file in self.files],
            "kind": self.kind,
            "lanes": self.lanes,
            **dataclasses.asdict(self.plan.counts),
            "disk_bytes": self.plan.disk_bytes,
            "free_bytes": self.free_bytes,
            "gpu_bytes": self.gpu_bytes,
            "seconds": dict(self.plan.seconds),
            "total_seconds": self.plan.total_seconds,
        }


def plans(paths: Sequence[Path], platform: Platform, options: Mapping[str, Any]) -> list[SamplePlan]:
    """Estimate every sample of these files. options: those of `virnucpro plan`; None means not given.

    The GPUs need not be there, but the models must. Raises UsageError for a pipe, which can be
    read only once, and the VirnucproError of the first sample that has one.
    """
    if pipe := next(filter(is_stream, paths), None):
        raise UsageError("a pipe cannot be estimated", where=pipe, remedy="give a file")
    platform = platform.asked(gpus=options.get("gpus") or 0, device=options.get("device") or "")
    pace, home = Pace.read(platform.folder), platform.folder
    free = shutil.disk_usage(next(folder for folder in (home, *home.parents) if folder.exists())).free
    profiles: dict[SampleSettings, ResolvedProfile] = {}
    found = []
    faults = SheetFaults(options.get("sheet"))
    wanted = samples_of(paths, Path(), platform, options, faults)
    faults.tell()
    for one in wanted:
        if one.error is not None:
            raise one.error
        look_into(one.files, one.settings)
        if one.settings not in profiles:
            with origins_named(one.settings):
                profiles[one.settings] = platform.profile_of(one.settings, None)
        profile, device = profiles[one.settings], platform.device_of(one.settings.profile)
        kind = kind_of(one.settings, device)
        planned = plan_sample(one.files, one.settings, profile, pace=pace, kind=kind, lanes=platform.gpus)
        gpu_bytes = 0 if device == "cpu" else largest_model(one.settings, profile) + CONTEXT_BYTES
        found.append(SamplePlan(one.name, one.files, planned, kind, platform.gpus, gpu_bytes, home, free))
    return found
