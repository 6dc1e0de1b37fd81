"""The samples that one command asks for: files, folders, a sample sheet, or what comes through a pipe."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from virnucpro_assets.platform.resource import Platform
from virnucpro_core.errors import InputError, UsageError
from virnucpro_core.files.disk import shown_bytes
from virnucpro_core.files.writable import check_writable
from virnucpro_core.samples.finding import FoundSample, find_samples
from virnucpro_core.samples.inputs import check_inputs
from virnucpro_core.samples.naming import check_chosen
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.samples.sheet import read_sheet
from virnucpro_core.samples.standard_input import KEPT, STANDARD_INPUT, is_stream, keep_stream


def found_samples(
    paths: Sequence[Path], out: Path, platform: Platform, settings: SampleSettings, options: Mapping[str, Any]
) -> list[FoundSample]:
    """The samples of the typed `paths`, or of the option `sheet`. What comes through a pipe is kept first.

    settings: those that were typed. Raises UsageError for options that do not fit together, and what `find_samples` and
    `read_sheet` raise.
    """
    sheet, name = options.get("sheet"), options.get("sample")
    if sheet is not None:
        if paths or name is not None:
            remedy = "leave out FILES and --sample"
            raise UsageError("a sample sheet names files and samples itself", where=sheet, remedy=remedy)
        return read_sheet(sheet)
    if not paths:
        raise UsageError("no input", remedy="give FILES, or --sheet with a sample sheet")
    check_typed([path for path in paths if not is_stream(path)])
    if name is not None:
        check_chosen(name)
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
    return [replace(found, notes=(note, *found.notes))]


def check_typed(paths: Sequence[Path]) -> None:
    """Raises InputError if paths of the command line are neither files nor folders. It names all that are missing."""
    missing = [path for path in paths if not path.exists()]
    if len(missing) > 1:
        raise InputError("no such files", path=", ".join(map(str, missing)), remedy="check the paths")
    check_inputs([path for path in paths if not path.is_dir()])


def _kept(home: Path, path: Path) -> Path:
    if path == STANDARD_INPUT and sys.stdin.isatty():
        remedy = "use a pipe, such as: samtools fastq x.bam | virnucpro predict - --sample x"
        raise UsageError("standard input is a terminal", remedy=remedy)
    return keep_stream(home, path, sys.stdin.buffer)
