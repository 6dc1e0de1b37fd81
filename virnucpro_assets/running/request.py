"""What one `virnucpro predict` is asked to do, and everything that can be known of it before the work begins.

The checks follow the order of what the user typed: files, options, --out, device and precision, weights, disk and GPU
memory. What is wrong with all samples ends the command. What is wrong with one sample stops only that one.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virnucpro_assets.platform.resource import Platform
from virnucpro_core.errors import VirnucproError
from virnucpro_core.results.delivery import check_out, check_writable
from virnucpro_core.samples.inputs import check_inputs, files_of
from virnucpro_core.samples.sample import check_key
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.sequences.names import group_samples, in_order

SETTINGS = tuple(field.name for field in dataclasses.fields(SampleSettings))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A sample that a command asks for. out: the folder for its results."""

    name: str
    files: tuple[Path, ...]
    settings: SampleSettings
    out: Path


@dataclass(frozen=True, slots=True)
class Request:
    """All samples of one command. failures: the samples that cannot be predicted, and why."""

    platform: Platform
    wanted: tuple[Wanted, ...]
    failures: Mapping[str, VirnucproError]

    @property
    def several(self) -> bool:
        """Whether the command asks for more than one sample."""
        return len(self.wanted) + len(self.failures) > 1


def checked(paths: Sequence[Path], out: Path, platform: Platform, options: Mapping[str, Any]) -> Request:
    """Find the samples of a command and check all that can be known before the work begins.

    options: those of `cli/predict_options.py` by name; None means not given. Raises the VirnucproError of the first
    fault that concerns all samples, or of the only sample.
    """
    check_inputs_typed(paths)
    platform = platform.asked(gpus=options.get("gpus") or 0, device=options.get("device") or "")
    wanted = samples_of(paths, out, platform, options)
    check_writable(out)
    for settings in {one.settings for one in wanted}:
        platform.profile_of(settings)
    good, failures = [], {}
    for one in wanted:
        try:
            check_out(one.out, one.name, one.files, force=options["force"], fresh=options["fresh"])
            good.append(one)
        except VirnucproError as error:
            if len(wanted) == 1:
                raise
            failures[one.name] = error
    return Request(platform, tuple(good), failures)


def check_inputs_typed(paths: Sequence[Path]) -> None:
    """Raises InputError for the first path of the command line that is neither a file nor a folder."""
    check_inputs([path for path in paths if not path.is_dir()])


def samples_of(
    paths: Sequence[Path], out: Path, platform: Platform, options: Mapping[str, Any]
) -> list[Wanted]:
    """The samples of the given files and folders, with their settings. Several samples get a subfolder each."""
    settings = platform.sample_settings(**{name: options[name] for name in SETTINGS if name in options})
    files = files_of(paths)
    name = options.get("sample")
    groups = group_samples(files) if name is None else [(check_key(name), in_order(files))]
    several = len(groups) > 1
    return [Wanted(name, tuple(own), settings, out / name if several else out) for name, own in groups]
