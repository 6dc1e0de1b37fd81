"""Carries models to machines without a network: one archive of models of the store, with a manifest and digests.

The archive is a plain tar: first `bundle.json` (the models, and size and sha256 of every file), then the files as
`MODEL/FILE`. Reading takes only regular members that the manifest lists, under names that it builds itself, and of
these only what writing puts in: the files in the model's own `manifest.json`, and COMPANIONS. All else is refused, such
as links, and outcomes of self-checks on another machine. Nothing is extracted by the archive's own rules.

With a classifier travel the files of COMPANIONS that lie beside it, such as its calibrations. They are no part of its
`manifest.json`, because they may be made later; the archive has their digests.
"""

import contextlib
import fnmatch
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from virnucpro_core.errors import UsageError, WeightsError, printable
from virnucpro_core.files.digests import sha256_file
from virnucpro_core.files.disk import make_sure_of_room
from virnucpro_core.files.foreign_json import parse_json, whole_number
from virnucpro_core.files.manifest import MANIFEST, read_manifest, verify
from virnucpro_core.files.overwriting import keep_inputs
from virnucpro_core.files.publish import no_check, publish, publish_bytes, publish_folder, temporary_folder
from virnucpro_core.models.downloads import OnBytes, silent
from virnucpro_core.models.store import MODEL_FILES, ModelStore

BUNDLE = "bundle.json"
_FORMAT = 1
Listed = dict[str, tuple[int, str]]  # file -> bytes, sha256
_BLOCK = 1 << 20
_LARGEST_MANIFEST = 4 << 20
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
COMPANIONS = ("calibration-*.json", "MODEL_CARD.md", "evaluation.html", "evaluation.json", "evaluation.tsv")
_DAMAGED = "carry the archive over again and compare its sha256"


@dataclass(frozen=True, slots=True)
class Unbundled:
    """A model of an archive. written: its files that the store did not have before; none if it had all of them."""

    name: str
    folder: Path
    written: tuple[str, ...]


def write_bundle(
    store: ModelStore,
    names: Iterable[str],
    out: Path,
    *,
    on_bytes: OnBytes = silent,
    check: Callable[[], None] = no_check,
) -> str:
    """Write the models to the archive `out`, each after its files were verified. Returns the archive's sha256.

    check: called just before it appears. Equal models give equal bytes. Raises WeightsError if a model is missing
    or damaged, StoreError for disk errors.
    """
    models = {name: _listed(store.require(name)) for name in sorted(set(names))}
    for name, files in models.items():
        _check_names(store.path(name), name, files, MODEL_FILES)
    total = sum(size for files in models.values() for size, _ in files.values())
    make_sure_of_room(out.parent, total + (1 << 20), "for the archive")
    for name in models:
        store.verify(name)
    shown = {
        name: {file: {"bytes": size, "sha256": sha256} for file, (size, sha256) in files.items()}
        for name, files in models.items()
    }
    text = json.dumps({"format": _FORMAT, "models": shown}, indent=1).encode() + b"\n"
    with publish(out, check) as temporary, temporary.open("wb") as stream:
        written = _Hashed(stream, lambda done: on_bytes(out.name, done, max(total, done)))
        with tarfile.open(fileobj=written, mode="w|", format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
            archive.addfile(_member(BUNDLE, len(text)), io.BytesIO(text))
            for name, files in models.items():
                for file, (size, _) in files.items():
                    with (store.path(name) / file).open("rb") as source:
                        archive.addfile(_member(f"{name}/{file}", size), source)
    return written.sha256.hexdigest()


def read_bundle(
    path: Path, store: ModelStore, *, force: bool = False, on_bytes: OnBytes = silent
) -> list[Unbundled]:
    """Put the archive's models into the store, each complete and verified or not at all.

    What the store already has is kept: a model with these digests, and files beside it of which the archive has none.
    Raises UsageError if the store has another model of a name or another file beside it (unless `force`), WeightsError
    for an archive that is no bundle, is damaged or holds what it must not.
    """
    with _refused(path), tarfile.open(path, "r:") as archive:
        members = iter(archive)
        models = _read_manifest(path, archive, next(members, None))
        keep_inputs(map(store.path, models), [path], remedy="move the archive to another folder")
        wanted = {name: _wanted(store, name, files, force=force) for name, files in models.items()}
        total = sum(size for files in models.values() for size, _ in files.values())
        make_sure_of_room(store.root, total, "to unpack the archive")
        done, found = 0, []

        def arrived(count: int) -> None:
            nonlocal done
            done += count
            on_bytes(path.name, done, total)

        for name, files in models.items():
            with _place(store.path(name), is_new=MANIFEST in wanted[name]) as into:
                for file, (size, sha256) in files.items():
                    entry = _required(path, next(members, None), f"{name}/{file}", size)
                    if file in wanted[name]:
                        _copy(path, archive, entry, into / file, sha256, arrived)
                known = verify(into if MANIFEST in wanted[name] else store.path(name), up_to=0)["files"]
                _check_names(path, name, files, known)
                if MANIFEST in wanted[name]:
                    verify(into)
            found.append(Unbundled(name, store.path(name), wanted[name]))
        if (extra := next(members, None)) is not None:
            raise WeightsError(f"{extra.name[:80]!r} is not in its manifest", where=path, remedy=_DAMAGED)
    return found


def _listed(folder: Path) -> Listed:
    """Size and sha256 of the model's files, of its manifest, and of what travels with it."""
    files = {
        str(name): (int(f["bytes"]), str(f["sha256"])) for name, f in read_manifest(folder)["files"].items()
    }
    beside = {file.name for file in folder.iterdir() if file.is_file() and _is_companion(file.name)}
    more = [MANIFEST, *sorted(beside - files.keys())]
    return dict(sorted(files.items())) | {
        name: ((folder / name).stat().st_size, sha256_file(folder / name)) for name in more
    }


def _wanted(store: ModelStore, name: str, files: Listed, *, force: bool) -> tuple[str, ...]:
    """The model's files that must be written: all if the store does not have this model.

    If it has, those beside it that are missing or, with `force`, differ. Raises UsageError for what differs without
    `force`.
    """
    folder = store.path(name)
    try:
        here = _listed(store.verify(name))
        is_same = here[MANIFEST] == files[MANIFEST]
    except WeightsError:
        here, is_same = {}, False
    if folder.exists() and not is_same and not force:
        raise UsageError(
            f"the store has another model {name}",
            where=folder,
            remedy="--force replaces it by that of the archive",
        )
    if not is_same:
        return tuple(files)
    differing = [file for file in files if file in here and here[file] != files[file]]
    if differing and not force:
        raise UsageError(
            f"the model {name} is the same, but not {' and '.join(differing)}",
            where=folder,
            remedy="--force replaces that by the archive's",
        )
    return tuple(file for file in files if here.get(file) != files[file])


@contextlib.contextmanager
def _place(folder: Path, *, is_new: bool) -> Iterator[Path]:
    """A folder whose files appear in `folder` when the block ends: in place of it if `is_new`, else beside its own."""
    if is_new:
        with publish_folder(folder) as into:
            yield into
        return
    with temporary_folder(folder.parent) as into:
        yield into
        for file in sorted(into.iterdir()):
            publish_bytes(folder / file.name, file.read_bytes())


def _read_manifest(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo | None) -> dict[str, Listed]:
    """model -> file -> bytes, sha256. Raises WeightsError for anything that is not what `write_bundle` writes."""
    no_bundle = WeightsError("not an archive of `virnucpro models bundle`", where=path, remedy=_DAMAGED)
    if member is None or member.name != BUNDLE or not member.isreg() or member.size > _LARGEST_MANIFEST:
        raise no_bundle
    stream = archive.extractfile(member)
    try:
        facts = parse_json(stream.read()) if stream else {}
        if facts["format"] != _FORMAT:
            raise WeightsError(
                f"its format is {facts['format']!r}, this version reads {_FORMAT}",
                where=path,
                remedy="update virnucpro",
            )
        models = {
            str(name): {str(f): (whole_number(v["bytes"]), str(v["sha256"])) for f, v in files.items()}
            for name, files in facts["models"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise no_bundle from error
    for name, files in models.items():
        ModelStore(path).path(name)  # raises UsageError for what is no name of a model
        if MANIFEST not in files:
            raise WeightsError(f"the model {name} has no {MANIFEST}", where=path, remedy=_DAMAGED)
        _check_names(path, name, files, MODEL_FILES)
    return models


def _check_names(path: Path, name: str, files: Iterable[str], of_model: Iterable[str]) -> None:
    """Raise WeightsError for a file that is none of the model's own, no manifest and no companion."""
    own = {*of_model, MANIFEST}
    if (odd := next((f for f in files if f not in own and not _is_companion(f)), None)) is not None:
        raise WeightsError(
            f"the model {name} has a file that it must not have: {printable(odd[:80])}",
            where=path,
            remedy=_DAMAGED,
        )


def _is_companion(file: str) -> bool:
    return bool(_FILE.fullmatch(file)) and any(fnmatch.fnmatchcase(file, pattern) for pattern in COMPANIONS)


def _required(path: Path, member: tarfile.TarInfo | None, name: str, size: int) -> tarfile.TarInfo:
    """The member, if it is the regular file that the manifest announces. Raises WeightsError."""
    if member is None or member.name != name:
        found = "nothing" if member is None else repr(member.name[:80])
        raise WeightsError(f"{found} is in it where {name} is expected", where=path, remedy=_DAMAGED)
    if not member.isreg() or member.size != size:
        raise WeightsError(f"{name} is no regular file of {size:,} bytes", where=path, remedy=_DAMAGED)
    return member


def _copy(
    path: Path,
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    out: Path,
    sha256: str,
    arrived: Callable[[int], None],
) -> None:
    """Write the member's bytes to the new file `out`. Raises WeightsError if their sha256 is another one."""
    digest, source = hashlib.sha256(), archive.extractfile(member)
    with out.open("xb") as stream:
        while source is not None and (block := source.read(_BLOCK)):
            digest.update(block)
            stream.write(block)
            arrived(len(block))
    if digest.hexdigest() != sha256:
        raise WeightsError(
            f"{member.name} does not have the sha256 of the manifest", where=path, remedy=_DAMAGED
        )


@contextlib.contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Turn tarfile's errors into a WeightsError."""
    try:
        yield
    except (tarfile.TarError, EOFError) as error:
        raise WeightsError(f"not a readable archive ({error})", where=path, remedy=_DAMAGED) from error


def _member(name: str, size: int) -> tarfile.TarInfo:
    """A regular file without owner and time, so that equal content gives equal bytes."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


class _Hashed:
    """A stream that also computes the sha256 of what is written, and tells how many bytes that are."""

    def __init__(self, stream: IO[bytes], on_done: Callable[[int], None]) -> None:
        self._stream, self._on_done = stream, on_done
        self._done, self.sha256 = 0, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self._done += len(data)
        self._on_done(self._done)
        return self._stream.write(data)
