"""Brings a published model into the model store: downloads its files, verifies and converts them."""

import shutil
from pathlib import Path

from virnucpro_core.errors import WeightsError
from virnucpro_core.files.disk import make_sure_of_room
from virnucpro_core.files.locks import locked
from virnucpro_core.files.manifest import verify
from virnucpro_core.models.convert import Origin, import_model
from virnucpro_core.models.downloads import Files, WebFiles, bytes_here, fetch_files
from virnucpro_core.models.sources import Source
from virnucpro_core.models.store import ModelStore, fetchable


def fetch_model(store: ModelStore, name: str, files: Files | None = None) -> Path:
    """Download a published model at its pinned revision, verify and convert it. Returns the model's folder.

    files: where its files come from; the publishers' servers if None. A model that is already complete and of this
    revision is not changed. After a failure, the next attempt resumes what was downloaded; after success it is deleted.
    Raises UsageError or WeightsError if the model cannot be fetched or a file is not the pinned one; NetworkError if
    the network fails; StoreError if the disk is too full or another process fetches the model.
    """
    source = fetchable(name, store.path(name))
    folder, arrived = store.path(name), store.root / f".fetch-{name}"
    with locked(arrived / "lock", busy=f"another process is fetching {name}"):
        if _is_current(folder, source):
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


def _is_current(folder: Path, source: Source) -> bool:
    """Whether `folder` holds `source` at its revision and every file matches its manifest."""
    try:
        return bool(verify(folder).get("revision") == source.revision)
    except WeightsError:
        return False
