"""Remove a sample with everything that belongs to it alone."""

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from virnucpro_core.errors import VirnucproError
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.samples.occupancy import exclusive_lock
from virnucpro_core.samples.sample import Sample, check_key, discard, list_samples, open_sample
from virnucpro_core.samples.standard_input import delete_kept, kept_files, let_go


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
    _delete_unused(home, streams)


@contextlib.contextmanager
def no_stream_left_of(sample: Sample) -> Iterator[None]:
    """At the end of the block, delete what came through a pipe for this sample and is of no sample any more."""
    streams = _streams(sample.home, [sample.name])
    yield
    _delete_unused(sample.home, streams)


def remove_unused_streams(home: Path) -> None:
    """Delete what this process has kept from pipes and what is of no sample. Raises StoreError for disk errors."""
    _delete_unused(home, set(let_go(home)))


def _delete_unused(home: Path, streams: set[Path]) -> None:
    if streams and (unused := streams - _streams(home, list_samples(home))):
        delete_kept(home, unused)


def _streams(home: Path, names: Iterable[str]) -> set[Path]:
    """Files of these samples that were kept from a pipe."""
    found: set[Path] = set()
    for name in names:
        with contextlib.suppress(VirnucproError):
            found |= {*kept_files(home, (f.path for f in open_sample(home, name).inputs))}
    return found
