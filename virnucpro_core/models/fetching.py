"""Brings a published model into the model store: downloads its files, verifies and converts them."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from virnucpro_core.errors import UsageError, WeightsError, printable
from virnucpro_core.files.disk import make_sure_of_room
from virnucpro_core.files.locks import locked
from virnucpro_core.files.manifest import MANIFEST, read_manifest, verify_once
from virnucpro_core.models.convert import Origin, import_model
from virnucpro_core.models.downloads import Files, WebFiles, bytes_here, fetch_files
from virnucpro_core.models.golden import RECORD
from virnucpro_core.models.sources import Source
from virnucpro_core.models.store import MODEL_FILES, ModelStore, fetchable


def to_fetch(store: ModelStore, name: str, *, force: bool = False) -> bool:
    """Whether the model must be fetched; False if the store has it: of the pinned revision, or of its very files.

    Raises UsageError if fetching would replace another model of that name, or files that no source has, and not
    `force`; that of `fetchable`. A damaged model is replaced.
    """
    folder = store.path(name)
    source = fetchable(name, folder)
    if not folder.is_dir() or not any(folder.iterdir()):
        return True
    what = ""
    try:
        manifest = read_manifest(folder)
        verify_once(folder)
    except WeightsError:
        own = {*MODEL_FILES, MANIFEST, RECORD}
        there = sorted(file.name for file in folder.iterdir())
        if MANIFEST not in there:
            what = "holds files that are no model of the store"
        elif beside := [printable(file) for file in there if file not in own]:
            what = f"the model is damaged, and {', '.join(beside)} would be deleted with it"
    else:
        if _is_source(manifest, source):
            return False
        origin = printable(str(manifest.get("source") or "of unknown origin"))
        what = f"another model {name} is there and intact ({origin})"
    if what and not force:
        raise UsageError(
            what,
            where=folder,
            remedy="give --force to replace the whole folder, or name only the other models",
        )
    return True


def fetch_model(store: ModelStore, name: str, files: Files | None = None, *, force: bool = False) -> Path:
    """Download a published model at its pinned revision, verify and convert it. Returns the model's folder.

    files: where its files come from; the publishers' servers if None. force: replace another model of this name. A
    model that is already complete and of this revision, or made of these very files, is not changed. After a failure,
    the next attempt resumes what was downloaded; after success it is deleted. Raises what `to_fetch` raises;
    UsageError or WeightsError if the model cannot be fetched or a file is not the pinned one; NetworkError if the
    network fails; StoreError if the disk is too full or another process fetches the model.
    """
    source = fetchable(name, store.path(name))
    folder, arrived = store.path(name), store.root / f".fetch-{name}"
    with locked(arrived / "lock", busy=f"another process is fetching {name}"):
        if not to_fetch(store, name, force=force):
            shutil.rmtree(arrived)
            return folder
        needed = int(2.1 * source.size) - bytes_here(arrived)
        make_sure_of_room(store.root, needed, f"to fetch and convert {name}")
        fetch_files(name, source, arrived, files or WebFiles())
        path = arrived / source.files[0].name if source.kind == "classifier" else arrived
        origin = Origin(source.address, source.revision, source.licence)
        import_model(source.kind, path, folder, origin=origin, chunk_size=source.chunk_size)
        shutil.rmtree(arrived)
    return folder


def _is_source(manifest: Mapping[str, Any], source: Source) -> bool:
    """Whether a model is the source at its revision, or was made by hand of the files that the source pins."""
    if manifest.get("revision"):
        return bool(manifest["revision"] == source.revision)
    pinned = {file.name: file.sha256 for file in source.files if file.sha256}
    files = {name: file["sha256"] for name, file in manifest["files"].items()}  # tokenizer.json is as it was
    made_of = files | dict(manifest.get("imported_files") or {})
    return bool(pinned) and pinned.items() <= made_of.items()
