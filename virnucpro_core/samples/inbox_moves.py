"""Move entries out of the inbox: to `set_aside/` what was refused, to `done/` what was taken, if that is asked for.

Entries are renamed, never copied. An older entry of the same name is kept.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from virnucpro_core.errors import StoreError
from virnucpro_core.files.publish import publish_bytes
from virnucpro_core.samples.occupancy import exclusive_lock
from virnucpro_core.samples.sample import Sample, registering, write

ASIDE, DONE = "set_aside", "done"
_NAME_BYTES = 230


def set_aside(home: Path, entry: Path, reason: str) -> Path:
    """Move a refused entry to `set_aside/`, with the reason in a file beside it.

    Raises OSError if the entry cannot be renamed; nothing is changed then.
    """
    target = _free(home / ASIDE, entry.name)
    entry.rename(target)
    _forget_marker(entry)
    with contextlib.suppress(StoreError):  # the reason is also in the news
        publish_bytes(target.with_name(target.name + ".reason.txt"), (reason + "\n").encode())
    return target


def move_taken(
    samples: Sequence[Sample], entries: Sequence[Path], beside: Sequence[Path] = ()
) -> dict[Path, Path]:
    """Move the entries of these samples to `done/` and write their new place into the samples. Returns where each is.

    beside: their settings files, which move too. If it is interrupted, the next call completes it. Raises StoreError
    while a process works on one of the samples, OSError if an entry cannot be renamed.
    """
    done = samples[0].home.resolve() / DONE
    targets = {entry: _begun(samples, done, entry) or _free(done, entry.name) for entry in entries}
    # The locks of hundreds of samples cannot be held together: this only sees whether they are free.
    for sample in samples[1:]:
        with exclusive_lock(sample.folder, _busy(sample)):
            pass
    for sample in samples:
        inputs = tuple(replace(file, path=_moved(file.path, targets)) for file in sample.inputs)
        with registering(sample):
            write(replace(sample, inputs=inputs), sample, _busy(sample), is_new=False)
    for entry, target in targets.items():
        entry.rename(target)
        _forget_marker(entry)
    for file in beside:
        file.rename(_free(done, file.name))
    return targets


def _busy(sample: Sample) -> str:
    return f"the files of sample {sample.name!r} are not moved, a process works on it"


def _begun(samples: Sequence[Sample], done: Path, entry: Path) -> Path | None:
    """Where an earlier call, which was interrupted, was about to move the entry."""
    for file in (file for sample in samples for file in sample.inputs):
        if done in file.path.parents and not file.path.exists():
            target = done / file.path.relative_to(done).parts[0]
            if target.name == entry.name or target.name.endswith(f"-{entry.name}"):
                return target
    return None


def _moved(path: Path, targets: Mapping[Path, Path]) -> Path:
    """The path of a sample's file after these moves. A link's file lies elsewhere and stays."""
    for entry, target in targets.items():
        place = entry.parent.resolve() / entry.name
        if path == place or place in path.parents:
            return target / path.relative_to(place)
    return path


def _free(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    short = os.fsdecode(os.fsencode(name)[-_NAME_BYTES:])  # leaves room for the prefix and the suffix
    target, count = folder / short, 1
    while os.path.lexists(target):
        count += 1
        target = folder / f"{count}-{short}"
    return target


def _forget_marker(entry: Path) -> None:
    """Delete NAME.done: it would mark the next file of this name as complete."""
    with contextlib.suppress(OSError):
        entry.with_name(entry.name + ".done").unlink()
