"""Inputs are never overwritten: refuses outputs that are, hold or lie in what a command reads."""

import functools
import os
from collections.abc import Iterable
from pathlib import Path

from virnucpro_core.errors import UsageError


def keep_inputs(
    outputs: Iterable[Path], inputs: Iterable[Path], *, remedy: str = "give another --out"
) -> None:
    """Raises UsageError if writing one of `outputs` would replace or delete one of `inputs`.

    outputs: files that will be written, or folders that will be replaced as a whole. inputs: files, or folders whose
    files are read. A link and another name of the same file count as the file. No --force allows this.
    """
    place = functools.cache(_place)
    read = {place(path): path for path in inputs if place(path) is not None}
    folders = [path for path in read.values() if path.is_dir()]
    holding = {place(parent): path for path in read.values() for parent in _parents(path)}
    for out in outputs:
        if place(out) is None:
            continue
        if place(out) in read:
            what = "is read by this command, and would be replaced"
        elif place(out) in holding:
            what = f"would be replaced, and {holding[place(out)]} in it is read by this command"
        elif folders and (around := next((p for p in _parents(out) if place(p) in read), None)) is not None:
            what = f"would be replaced, and this command reads the folder {around}"
        else:
            continue
        raise UsageError(what, where=out, remedy=remedy)


def _place(path: Path) -> tuple[int, int] | None:
    """What tells a file from all others; None for what is not there or cannot be reached."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _parents(path: Path) -> set[Path]:
    """The folders around it, by its name and after all links are followed."""
    return {*Path(os.path.normpath(path.absolute())).parents, *path.resolve().parents}
