"""Remove a sample with everything that belongs to it alone."""

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from virnucpro_core.errors import VirnucproError
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.samples.occupancy import exclusive_lock
from virnucpro_core.samples.sample import check_key, discard, list_samples, open_sample
from virnucpro_core.samples.standard_input import kept_files


def remove_sample(home: Path, name: str) -> None:
    """Delete the sample's folder, also a partly deleted one. Raises StoreError if a process works on the sample.

    What came through a pipe for this sample alone is deleted, too.
    """
    folder = home / "samples" / check_key(name)
    streams = _streams(home, [name])
    with disk_errors(folder):
        if folder.is_dir():
            discard(folder)
            # A process that waits for a deleted lock file notices that and opens the new one.
            with exclusive_lock(folder, f"sample {name!r} cannot be removed, a process works on it"):
                shutil.rmtree(folder)
        for file in streams - (_streams(home, list_samples(home)) if streams else set()):
            file.unlink(missing_ok=True)


def _streams(home: Path, names: Iterable[str]) -> set[Path]:
    """Files of these samples that were kept from a pipe."""
    found: set[Path] = set()
    for name in names:
        with contextlib.suppress(VirnucproError):
            found |= {*kept_files(home, (f.path for f in open_sample(home, name).inputs))}
    return found
