"""The samples that one command asks for: files, folders, a sample sheet, or what comes through a pipe."""

import dataclasses
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from virnucpro_assets.platform.resource import Platform
from virnucpro_core.errors import InputError, UsageError
from virnucpro_core.files.disk import shown_bytes
from virnucpro_core.files.writable import check_writable
from virnucpro_core.samples.finding import FoundSample, find_samples
from virnucpro_core.samples.naming import check_chosen
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.samples.sheet import read_sheet
from virnucpro_core.samples.sheet_faults import SheetFaults
from virnucpro_core.samples.standard_input import KEPT, STANDARD_INPUT, is_stream, keep_stream
from virnucpro_core.sequences.formats import GIVE

SETTINGS = tuple(field.name for field in dataclasses.fields(SampleSettings))
MISSING, NOT_REGULAR, NOT_PERMITTED = "no such file", "not a regular file", "Permission denied"
_REMEDIES = {
    MISSING: "check the path",
    NOT_REGULAR: f"{GIVE} files",
    NOT_PERMITTED: "check its permissions",
}


def found_samples(
    paths: Sequence[Path], out: Path, platform: Platform, options: Mapping[str, Any], faults: SheetFaults
) -> list[FoundSample]:
    """The samples of the typed `paths`, or of the option `sheet`. What comes through a pipe is kept first.

    faults: takes those of the sheet. Raises UsageError for options that do not fit together, and what `find_samples`
    and `read_sheet` raise.
    """
    sheet, name = options.get("sheet"), options.get("sample")
    if sheet is not None:
        if paths or name is not None:
            remedy = "leave out FILES and --sample"
            raise UsageError("a sample sheet names files and samples itself", where=sheet, remedy=remedy)
        return read_sheet(sheet, faults)
    if not paths:
        raise UsageError("no input", remedy="give FILES, or --sheet with a sample sheet")
    check_typed([path for path in paths if not is_stream(path)])
    if name is not None:
        check_chosen(name)
    settings = platform.sample_settings(**typed_settings(options))
    if not any(map(is_stream, paths)):
        return find_samples(paths, name=name, interleaved=settings.interleaved)
    if name is None:
        pipe = next(path for path in paths if is_stream(path))
        # `-`, and what a shell names /dev/fd/63 or /proc/self/fd/0, say nothing to a person; a named pipe does.
        unnamed = pipe == STANDARD_INPUT or any(map(pipe.is_relative_to, ("/dev", "/proc")))
        where = "standard input" if unnamed else pipe
        raise UsageError("what comes through a pipe has no name", where=where, remedy="give --sample NAME")
    # Checked before the stream is read: it may be long, and it can be read only once.
    check_writable(out)
    platform.check_device(settings)
    platform.profile_of(settings)
    kept = {path: _kept(platform.folder, path) for path in paths if is_stream(path)}
    (found,) = find_samples([kept.get(path, path) for path in paths], name=name)
    size = shown_bytes(sum(file.stat().st_size for file in kept.values()))
    note = f"standard input: {size} kept in {platform.folder / KEPT}, so that it can be read again"
    if options.get("check"):
        note = f"standard input: {size} read, and not kept, because of --check"
    return [dataclasses.replace(found, notes=(note, *found.notes))]


def typed_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of samples among the options of a command, as far as they were given."""
    return {name: options[name] for name in SETTINGS if options.get(name) is not None}


def check_typed(paths: Sequence[Path]) -> None:
    """Raises one InputError that names every path of the command line that cannot be read, and why."""
    wrong: dict[str, list[Path]] = {}
    for path in paths:
        if what := _unusable(path):
            wrong.setdefault(what, []).append(path)
    if not wrong:
        return
    (what, found), *others = wrong.items()
    if not others:
        what = "no such files" if what == MISSING and len(found) > 1 else what
        where = ", ".join(map(str, found))
        raise InputError(what, path=where, remedy=_REMEDIES.get(what, "check the paths"))
    named = "; ".join(f"{what}: {', '.join(map(str, found))}" for what, found in wrong.items())
    count = sum(map(len, wrong.values()))
    raise UsageError(f"{count:,} of the paths cannot be read: {named}", remedy="check the paths")


def _unusable(path: Path) -> str:
    """Why a file or folder cannot be read; "" if it can."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return MISSING
    except OSError as error:
        return error.strerror or str(error)
    is_folder = stat.S_ISDIR(status.st_mode)
    if not is_folder and not stat.S_ISREG(status.st_mode):
        return NOT_REGULAR
    if not os.access(path, os.R_OK | (os.X_OK if is_folder else 0)):
        return NOT_PERMITTED
    return ""


def _kept(home: Path, path: Path) -> Path:
    if path == STANDARD_INPUT and sys.stdin.isatty():
        remedy = "use a pipe, such as: samtools fastq x.bam | virnucpro predict - --sample x"
        raise UsageError("standard input is a terminal", remedy=remedy)
    return keep_stream(home, path, sys.stdin.buffer)
