"""Goes through a folder with its subfolders. What cannot be read is told, never skipped in silence."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from virnucpro_core.errors import InputError, printable

_SHOWN = 5


def folders_below(
    folder: Path, *, hidden: bool = True, enter: Callable[[Path], bool] = lambda _: True
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As `os.walk`, sorted by name: each folder with the names of its subfolders and files. Follows no link.

    hidden: also look into hidden subfolders. enter: whether to look into one that can be read. Raises InputError at
    the end that names all folders that cannot be read.
    """
    wrong: list[tuple[str, str]] = []

    def note(error: OSError) -> None:
        wrong.append((str(error.filename), error.strerror or str(error)))

    for name, folders, files in os.walk(folder, onerror=note):
        here = Path(name)
        inside = [here / sub for sub in sorted(folders) if hidden or not sub.startswith(".")]
        folders.clear()
        for place in inside:
            if place.is_symlink():
                continue
            if not os.access(place, os.R_OK | os.X_OK):
                wrong.append((str(place), "Permission denied"))
            elif enter(place):
                folders.append(place.name)
        yield here, folders, sorted(files)
    if wrong:
        shown = ", ".join(printable(place) for place, _ in sorted(wrong)[:_SHOWN])
        more = f" and {len(wrong) - _SHOWN:,} more" if len(wrong) > _SHOWN else ""
        what = f"cannot be read: {wrong[0][1]}"
        raise InputError(
            what, path=f"{shown}{more}", remedy="check the permissions, or give the files themselves"
        )
