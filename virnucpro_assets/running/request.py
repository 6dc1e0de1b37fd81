"""What one `virnucpro predict` is asked to do, and everything that can be known of it before the work begins.

The checks follow the order of what the user typed: files, options, --out, --scratch, device and precision, weights,
disk and GPU memory. What is wrong with all samples ends the command. What is wrong with one sample stops only that one.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virnucpro_assets.platform.databases import refuse_network
from virnucpro_assets.platform.environment import dagster_home
from virnucpro_assets.platform.places import origins_named
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.running.found import found_samples, typed_settings
from virnucpro_core.errors import DeviceError, UsageError, VirnucproError, WeightsError
from virnucpro_core.files.disk import (
    copied_bytes,
    embedded_bytes,
    make_sure_of_room,
    reading_bytes,
    result_bytes,
)
from virnucpro_core.files.overwriting import keep_inputs
from virnucpro_core.files.writable import check_writable
from virnucpro_core.models.profiles import ResolvedProfile
from virnucpro_core.pipeline.imported import imported_features
from virnucpro_core.results.batch import pages_across
from virnucpro_core.results.calibration import NO_CALIBRATION
from virnucpro_core.results.delivery import Owner, Target, check_out, check_shared_out, delivered_files
from virnucpro_core.results.folder import RUN
from virnucpro_core.samples.combined import check_exclusive, check_of_use, check_open_frames, layered
from virnucpro_core.samples.finding import look_into, stray_files
from virnucpro_core.samples.home import check_home, check_outside, check_sample_folder
from virnucpro_core.samples.products import CHUNKS
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.samples.sheet_faults import SheetFaults
from virnucpro_core.sequences.names import is_packed

# Dagster's databases of a new home, while its first run is recorded. Measured with all else of a small sample: 6.2 MB.
NEW_RECORDS_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """A sample that a command asks for. out: the folder for its results. rows: its lines in the sample sheet.

    notes: lines for a person. error: why it cannot be predicted; None if nothing is known that is wrong.
    has_own_settings: its rows of the sample sheet give some. earlier: whose results are in `out` and will be replaced.
    """

    name: str
    files: tuple[Path, ...]
    settings: SampleSettings
    out: Path
    rows: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    error: VirnucproError | None = None
    has_own_settings: bool = False
    earlier: Owner | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """All samples of one command. failures: the samples that cannot be predicted, and why.

    named: a person has chosen the samples' names, by --sample or in a sheet. notes: lines for a person that are not
    about one of the samples. sheet: the sample sheet, None for none. force: what is at --out is replaced. outs: the
    folders of all samples by their names, also of those that cannot be predicted. batch: each sample has a subfolder of
    --out, and there are pages across them (`is_batch`).
    """

    platform: Platform
    wanted: tuple[Wanted, ...]
    failures: Mapping[str, VirnucproError]
    named: bool = False
    notes: tuple[str, ...] = ()
    sheet: Path | None = None
    force: bool = False
    outs: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    batch: bool = False

    @property
    def several(self) -> bool:
        """Whether the command asks for more than one sample."""
        return len(self.wanted) + len(self.failures) > 1

    def target(self, one: Wanted) -> Target:
        """Where the results of one of the samples go, and what may be replaced there."""
        return Target(one.out, one.name, shared=self.batch, earlier=one.earlier, force=self.force)


def checked(paths: Sequence[Path], out: Path, platform: Platform, options: Mapping[str, Any]) -> Request:
    """Find the samples of a command and check all that can be known before the work begins.

    options: those of `cli/predict_options.py` by name; None means not given. Raises the VirnucproError of the first
    fault that concerns all samples; SheetError with all faults of a sample sheet. What is wrong with single samples
    is in `failures`.
    """
    options = {**options, "preset": _preset(options)}
    platform = platform.asked(gpus=options.get("gpus") or 0, device=options.get("device") or "")
    check_outside(out, platform.folder, also=(dagster_home(), platform.models.root))
    faults = SheetFaults(options.get("sheet"))
    wanted = samples_of(paths, out, platform, options, faults)
    check_writable(out)
    check_home(platform.folder, dagster_home())
    _keep_inputs(wanted, out, options)
    refuse_network(dagster_home())
    batch = is_batch(paths, options, len(wanted))
    if batch:
        check_shared_out(out, [one.name for one in wanted], force=options["force"])
    good, failures = [], {}
    for one in wanted:
        try:
            if one.error is not None:
                raise one.error
            check_sample_folder(platform.folder / "samples" / one.name)
            if faults.concern(one.rows):
                continue
            hints: tuple[str, ...] = ()
            with faults.of(one.name, one.rows):
                hints = look_into(one.files, one.settings)
            known = {"home": platform.folder, "force": options["force"], "fresh": options["fresh"]}
            earlier = check_out(one.out, one.name, one.files, settings=one.settings, **known)
            good.append(dataclasses.replace(one, notes=one.notes + hints, earlier=earlier))
        except VirnucproError as error:
            failures[one.name] = error
    outs = {one.name: one.out for one in wanted}
    if len(wanted) == 1 and failures:
        faults.tell()
        return Request(platform, (), failures, outs=outs)
    looked_at = [one for one in wanted if one.name not in failures]
    profiles = _profiles(looked_at, platform, faults, fresh=options["fresh"])
    faults.tell()
    named = options.get("sample") is not None or options.get("sheet") is not None
    notes = tuple(stray_files(paths))
    request = Request(
        platform, tuple(good), failures, named, notes, options.get("sheet"), options["force"], outs, batch
    )
    _check_disk(request, out, profiles)
    for settings, profile in profiles.items():
        own = [one for one in wanted if one.settings == settings]
        rows = [row for one in own for row in one.rows]
        with faults.of(own[0].name, rows, is_own=len(profiles) > 1):
            platform.check_memory(settings, profile)
    faults.tell()
    return request


def _profiles(
    wanted: Sequence[Wanted], platform: Platform, faults: SheetFaults, *, fresh: bool
) -> dict[SampleSettings, ResolvedProfile]:
    """The models of all settings. Those that are not there are added to `faults`."""
    profiles: dict[SampleSettings, ResolvedProfile] = {}
    for one in wanted:  # only for samples without imported features the encoders must be there
        home = platform.folder / "samples" / one.name
        imported = None if fresh else imported_features(home, one.settings)
        if one.settings not in profiles or imported is None:
            with faults.of(one.name, one.rows, is_own=one.has_own_settings), origins_named(one.settings):
                profiles[one.settings] = _ready(platform, one.settings, imported)
    return profiles


def _keep_inputs(wanted: Sequence[Wanted], out: Path, options: Mapping[str, Any]) -> None:
    """Raises UsageError if results of the command would replace a file that it reads."""
    given = {str(options.get("sheet") or ""), *(one.settings.calibration for one in wanted)}
    read = {file for one in wanted for file in one.files} | {Path(p) for p in given - {"", NO_CALIBRATION}}
    pages = pages_across(out) if any(one.out != out for one in wanted) else []
    keep_inputs([*pages, *(file for one in wanted for file in delivered_files(one.out))], read)


def _preset(options: Mapping[str, Any]) -> str | None:
    """The preset that was asked for; None for none. Raises UsageError for options that exclude each other."""
    presets = [name for name in ("conservative", "relaxed") if options.get(name)]
    if len(presets) > 1:
        what = "--conservative and --relaxed cannot be used together"
        raise UsageError(what, remedy="give one of them")
    return presets[0] if presets else None


def _ready(platform: Platform, settings: SampleSettings, imported: Any) -> ResolvedProfile:
    """The models of these settings. Raises one DeviceError or WeightsError that names all that is missing of both."""
    missing: DeviceError | None = None
    try:
        platform.check_device(settings)
    except DeviceError as error:
        missing = error
    try:
        found = platform.profile_of(settings, imported)
    except WeightsError as error:
        if missing is None:
            raise
        remedy = f"{missing.remedy}; {error.remedy}"
        raise DeviceError(f"{missing.what}; and {error.what}", where=missing.where, remedy=remedy) from error
    if missing is not None:
        raise missing
    return found


def _check_disk(request: Request, out: Path, profiles: Mapping[SampleSettings, ResolvedProfile]) -> None:
    """Raises StoreError if the disks cannot hold what the samples need: that of the home folder, and that of --out.

    The home needs room for the products of new samples and, if it is new, for Dagster's records. A lane looks again
    when its frames are counted. --out needs room for the results, before those that they replace are deleted.
    """
    home, needed, results = request.platform.folder, 0, 0
    for one in request.wanted:
        folder, chunk_size, (letters, packed) = (
            home / "samples" / one.name,
            one.settings.chunk_size,
            _sizes(one.files),
        )
        if (folder / "results" / RUN).exists():
            results += copied_bytes(folder / "results")
        else:
            results += result_bytes(letters, packed=packed, chunk_size=chunk_size)
        if (folder / CHUNKS).exists():
            continue
        width = profiles[one.settings].dnabert_dim + profiles[one.settings].esm2_dim
        needed += reading_bytes(letters, packed=packed)
        needed += embedded_bytes(letters, packed=packed, chunk_size=chunk_size, width=width)
    if needed and not dagster_home().exists():
        make_sure_of_room(dagster_home(), NEW_RECORDS_BYTES, "for Dagster's records")
        needed += NEW_RECORDS_BYTES
    if needed:
        make_sure_of_room(home, needed, "for what this command computes")
    if results:
        make_sure_of_room(out, results, "for the results")


def _sizes(files: Sequence[Path]) -> tuple[int, int]:
    """Bytes of the plain files, and of the compressed ones."""
    plain, packed = 0, 0
    for file in files:
        if not file.is_file():  # the registration of its sample says so
            continue
        size = file.stat().st_size
        if is_packed(file):
            packed += size
        else:
            plain += size
    return plain, packed


def is_batch(paths: Sequence[Path], options: Mapping[str, Any], samples: int) -> bool:
    """Whether the results get subfolders and pages across them: for a sample sheet, a folder, and several samples.

    A sheet or a folder with one sample may have more of them the next time.
    """
    has_folder = options.get("sample") is None and any(path.is_dir() for path in paths)
    return samples > 1 or options.get("sheet") is not None or has_folder


def samples_of(
    paths: Sequence[Path], out: Path, platform: Platform, options: Mapping[str, Any], faults: SheetFaults
) -> list[Wanted]:
    """The samples that were asked for, with their settings. Those of a batch get a subfolder each.

    A setting in a row of a sample sheet is before the same option of the command. Settings of rows that do not fit
    together are added to `faults`. Raises UsageError if those that were typed do not.
    """
    typed = typed_settings(options)
    check_exclusive(typed)
    platform.sample_settings(**typed)  # what is wrong with these is no row's fault
    found = found_samples(paths, out, platform, options, faults)
    batch = is_batch(paths, options, len(found))
    wanted = []
    for one in found:
        with faults.of(one.name, one.rows):
            check_exclusive(one.settings)
            settings = platform.sample_settings(**layered(typed, one.settings))
            place = out / one.name if batch else out
            wanted.append(
                Wanted(
                    one.name, one.files, settings, place, one.rows, one.notes, one.error, bool(one.settings)
                )
            )
            check_of_use(one.settings, [(settings, one.files)])
        if wanted and wanted[-1].name == one.name:
            settings = wanted[-1].settings
            with faults.of(one.name, one.rows, is_own=bool(one.settings)), origins_named(settings):
                check_open_frames(settings)
    check_of_use(typed, [(one.settings, one.files) for one in wanted])
    return wanted
