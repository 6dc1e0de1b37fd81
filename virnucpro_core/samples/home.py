"""What lies in the home folder (VIRNUCPRO_HOME): which of it nobody else may write, and whether it can be written.

home/results        a folder of the user: results may go there
home/samples/x      belongs to the program: no command takes it as --out
"""

import os
from collections.abc import Collection
from pathlib import Path

from virnucpro_core.errors import UsageError, printable
from virnucpro_core.files.writable import check_writable

MODELS = "models"
# Folders in which every command that predicts writes.
_WRITTEN = ("samples", "contents", "variants", "locks", "logs")
_LOCKS = ("names.lock", "contents.lock")
# All that the program keeps in the home folder. Add every new folder or file to this list.
OWN = (
    *_WRITTEN,
    *_LOCKS,
    MODELS,
    "cache",
    "dagster",
    "done",
    "inbox",
    "inbox.lock",
    "inbox.sqlite",
    "set_aside",
    "slurm.toml",
    "standard_input",
    "superseded",
    "virnucpro.toml",
)


def check_outside(
    path: Path, home: Path, *, also: Collection[Path] = (), whole: bool = False, models: bool = False
) -> None:
    """Raises UsageError if `path` is the home folder or lies in what the program keeps there. Links are followed.

    also: more places of the program, such as DAGSTER_HOME. whole: the folder `path` is replaced as a whole, so the home
    must not lie in it either. models: the model store is allowed.
    """
    real, remedy = path.resolve(), "give another --out, outside of it"
    if real == home.resolve():
        raise UsageError("is the home folder itself", where=path, remedy="give a folder in it, or elsewhere")
    if whole and home.resolve().is_relative_to(real):
        what = f"would be replaced as a whole, and the home folder {printable(str(home))} is in it"
        raise UsageError(what, where=path, remedy="give another --out")
    own = [home / name for name in OWN if not (models and name == MODELS)]
    for place in (*own, *also):
        if real.is_relative_to(place.resolve()):
            what = f"lies in {printable(str(place))}, which the program keeps for itself"
            raise UsageError(what, where=path, remedy=remedy)
        if whole and place.resolve().is_relative_to(real):
            what = f"would be replaced as a whole, and {printable(str(place))} of the program is in it"
            raise UsageError(what, where=path, remedy=remedy)


def check_sample_folder(folder: Path) -> None:
    """Raises UsageError if the folder of a known sample, or of one of its products, cannot be read and written."""
    if not folder.exists():
        return
    _check_permitted(folder)
    with os.scandir(folder) as entries:
        below = [Path(entry.path) for entry in entries if entry.is_dir()]
    for place in sorted(below):
        _check_permitted(place)


def _check_permitted(folder: Path) -> None:
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        what = "cannot be read and written: no permission, or the disk is read-only"
        raise UsageError(what, where=folder, remedy="give your user the permission, or another --home")


def check_home(home: Path, dagster_home: Path) -> None:
    """Raises UsageError if the home folder, or what a prediction writes in it, cannot be written. Makes nothing."""
    for folder in (home, dagster_home, *(home / name for name in _WRITTEN)):
        if folder in (home, dagster_home) or folder.exists():
            check_writable(folder, "--home (VIRNUCPRO_HOME)")
    for file in (home / name for name in _LOCKS):
        if file.exists() and not os.access(file, os.W_OK):
            remedy = "give another --home (VIRNUCPRO_HOME), or check its permissions"
            raise UsageError("cannot be written: Permission denied", where=file, remedy=remedy)
