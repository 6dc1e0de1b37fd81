"""Which dropped files are whole, and which sample each belongs to. Remembers through a plain dictionary.

A file is whole when its size and modification time have not changed for `stable_seconds` as seen from here,
or at once when an empty `NAME.done` lies beside it. A folder is one sample of all its files. Two mates
(R1, R2) are one sample; a lone mate waits MATE_PATIENCE times as long for the other.
"""

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virnucpro_core.errors import VirnucproError
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.files.publish import publish_bytes
from virnucpro_core.samples.sample import check_key
from virnucpro_core.sequences.fasta import read_records
from virnucpro_core.sequences.names import join_mates, named_as_mate, sample_name

MATE_PATIENCE = 20
_NAME_BYTES = 230
PARTIAL = (".part", ".partial", ".tmp", ".crdownload", ".filepart", ".done")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A whole sample: its name and files. `entries` are the things in the inbox that it is made of."""

    name: str
    paths: tuple[Path, ...]
    entries: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something in the inbox that cannot be a sample, and where it was set aside."""

    entry: Path
    reason: str
    moved_to: Path


@dataclass(slots=True)
class Scan:
    """One look at the inbox. `memory` goes into the next look."""

    arrivals: list[Arrival] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)


def scan(inbox: Path, memory: Mapping[str, Any], *, now: float, stable_seconds: float) -> Scan:
    """Look at the inbox once; `now` in seconds. Refused entries are moved beside the inbox, with their reason."""
    found = Scan()
    whole: dict[Path, float] = {}
    inbox.mkdir(parents=True, exist_ok=True)
    for entry in sorted(inbox.iterdir()):
        if entry.name.startswith(".") or entry.suffix in PARTIAL:
            continue
        signature = _signature(entry)
        known = memory.get(entry.name)
        since = float(known["since"]) if known and known["signature"] == signature else now
        handled = bool(known and known["signature"] == signature and known["handled"])
        found.memory[entry.name] = {"signature": signature, "since": since, "handled": handled}
        if handled:
            continue
        marked = _is_marked(entry)
        if marked or (now - since >= stable_seconds and signature):
            whole[entry] = now - since
        else:
            found.waiting.append(entry.name)
    for arrival in _arrivals(whole, found, patience=MATE_PATIENCE * stable_seconds):
        try:
            check_key(arrival.name)
            for path in arrival.paths:
                next(read_records([path]), None)  # refuses at the first record what is no sequence file
        except VirnucproError as error:
            for entry in arrival.entries:
                found.refusals.append(_set_aside(inbox, entry, str(error)))
                found.memory.pop(entry.name, None)
            continue
        found.arrivals.append(arrival)
        for entry in arrival.entries:
            found.memory[entry.name]["handled"] = True
    return found


def _arrivals(whole: Mapping[Path, float], found: Scan, *, patience: float) -> list[Arrival]:
    arrivals = [
        Arrival(sample_name(folder), tuple(_files(folder)), (folder,)) for folder in whole if folder.is_dir()
    ]
    for name, paths in join_mates([p for p in whole if not p.is_dir()]):
        marked = any(map(_is_marked, paths))
        if len(paths) == 1 and named_as_mate(paths[0]) and whole[paths[0]] < patience and not marked:
            found.waiting.append(paths[0].name)
        else:
            arrivals.append(Arrival(name, tuple(paths), tuple(paths)))
    return arrivals


def _files(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".") and p.suffix not in PARTIAL
    )


def _is_marked(entry: Path) -> bool:
    """Whether an empty `NAME.done` lies beside it; beside a name of almost 255 bytes none can."""
    with contextlib.suppress(OSError):
        return entry.with_name(entry.name + ".done").exists()
    return False


def _signature(entry: Path) -> list[list[Any]]:
    """Name, size and modification time of every file of the entry; empty for an empty folder."""
    files = _files(entry) if entry.is_dir() else [entry]
    return [
        [str(f.relative_to(entry.parent)), f.stat().st_size, f.stat().st_mtime_ns]
        for f in files
        if f.exists()
    ]


def _set_aside(inbox: Path, entry: Path, reason: str) -> Refusal:
    """Move the entry to `set_aside` beside the inbox and write why; an older one of the same name stays."""
    folder = inbox.parent / "set_aside"
    folder.mkdir(parents=True, exist_ok=True)
    name = os.fsdecode(os.fsencode(entry.name)[-_NAME_BYTES:])  # room for what is added before and behind
    target, count = folder / name, 1
    while os.path.lexists(target):
        count += 1
        target = folder / f"{count}-{name}"
    with disk_errors(target):
        shutil.move(entry, target)
    publish_bytes(target.with_name(target.name + ".reason.txt"), (reason + "\n").encode())
    return Refusal(entry, reason, target)
