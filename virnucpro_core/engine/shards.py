"""Writes and verifies shards: HDF5 files with a manifest entry each, which decide what must still be computed.

Shard 12 of a product is the file `00012.h5` and its entry `00012.json` in the product's folder. The shard is done only
if the entry is intact, its identity (everything that determines the bytes) is the requested one, and the sha256 of the
file is that of the entry. That a file exists, or its time, never counts. Each entry is its own file, so lanes can
publish into one folder without a common lock. A published shard never changes.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from virnucpro_core.errors import StoreError
from virnucpro_core.files.digests import remember_sha256, sha256_json, sha256_once
from virnucpro_core.files.publish import publish_bytes, publish_json, publish_link

_FORMAT = 1
log = logging.getLogger(__name__)
ShardState = Literal["done", "missing", "stale", "damaged", "released"]
# Suffix of the entry of a shard that was deleted (released) after the sample's results were complete.
RELEASED_ENTRY = ".released"


@dataclass(frozen=True, slots=True)
class Entry:
    """The manifest entry of one shard. `maker` is only a note: rank, device, seconds, batches_halved."""

    shard: int
    rows: int
    width: int
    bytes: int
    sha256: str
    ids_sha256: str
    identity_sha256: str
    sources: tuple[str, ...]
    maker: dict[str, Any]


class ShardStore:
    """The shards of one product: `dataset` (rows, width) float32, `frame` (rows,) int64, `digest` (rows, 16).

    `identity` holds everything that determines the bytes (sequences, models, precision, settings). Every entry has its
    sha256; an entry with another one is stale.
    """

    def __init__(self, folder: Path, *, dataset: str, identity: Mapping[str, Any]) -> None:
        self.folder, self.dataset = folder, dataset
        self.identity = dict(identity)
        self.identity_sha256 = sha256_json(self.identity)

    def path(self, shard: int) -> Path:
        return self.folder / f"{shard:05d}.h5"

    def entry(self, shard: int) -> Entry | None:
        """The entry of the shard, with any identity; None if it is missing or cannot be read."""
        return self._read_entry(shard, ".json")

    def released(self, shard: int) -> Entry | None:
        """The entry of a shard that was released and not computed again; None otherwise."""
        return None if self.entry(shard) else self._read_entry(shard, RELEASED_ENTRY)

    def _read_entry(self, shard: int, suffix: str) -> Entry | None:
        file = self.path(shard).with_suffix(suffix)
        try:
            raw = json.loads(file.read_bytes())
            if raw.pop("format") != _FORMAT or raw.pop("seal") != sha256_json(raw):
                return None
            entry = Entry(**raw | {"sources": tuple(raw["sources"])})
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return entry if entry.shard == shard else None

    def state(self, shard: int, ids_sha256: str) -> ShardState:
        """Whether the shard can be used. Compares the sha256 of the file, which this process reads at most once."""
        entry, path = self.entry(shard), self.path(shard)
        if entry is None and self._read_entry(shard, RELEASED_ENTRY):
            return "released"
        if entry is None:
            return "damaged" if path.exists() else "missing"
        if entry.identity_sha256 != self.identity_sha256 or entry.ids_sha256 != ids_sha256:
            return "stale"
        if not self.looks_done(shard) or sha256_once(path) != entry.sha256:
            return "damaged"
        return "done"

    def looks_done(self, shard: int) -> bool:
        """Whether entry, identity and size are correct. Hashes no bytes and no ids: the owning lane verifies them."""
        entry, path = self.entry(shard), self.path(shard)
        if entry is None or entry.identity_sha256 != self.identity_sha256:
            return False
        return path.exists() and path.stat().st_size == entry.bytes

    def require(self, shard: int, ids_sha256: str) -> Entry:
        """The entry of a shard after verifying its bytes. Raises StoreError with shard, state and remedy."""
        state, entry = self.state(shard, ids_sha256), self.entry(shard)
        if state != "done" or entry is None:
            raise StoreError(
                f"shard {shard} of {self.folder.name} is {state}",
                where=self.path(shard),
                remedy=f"materialize {self.folder.name} again; only shards that fail verification are computed",
            )
        return entry

    def write(
        self,
        shard: int,
        frame_R: NDArray[np.int64],
        digest_RD: NDArray[np.uint8],
        values_RW: NDArray[np.float32],
        *,
        maker: Mapping[str, Any],
    ) -> Entry:
        """Publish a shard, then its entry. frame (rows,), digest (rows, 16), values (rows, width) float32.

        Raises StoreError if values are not finite, numbers of rows differ, or on a disk error.
        """
        if not (len(frame_R) == len(digest_RD) == len(values_RW)):
            raise StoreError(
                f"shard {shard}: {len(frame_R)} ids, {len(values_RW)} rows", where=self.path(shard)
            )
        if not np.isfinite(values_RW).all():
            raise StoreError(f"shard {shard} holds NaN or infinite values", where=self.path(shard))

        def fill(file: h5py.File) -> None:
            _describe(file, frame_R, digest_RD, self.identity)
            file.create_dataset(self.dataset, data=np.ascontiguousarray(values_RW, dtype=np.float32))

        return self._publish(shard, fill, (len(values_RW), values_RW.shape[1]), digest_RD, (), maker)

    def write_virtual(
        self,
        shard: int,
        frame_R: NDArray[np.int64],
        digest_RD: NDArray[np.uint8],
        sources: Iterable[tuple["ShardStore", Entry]],
    ) -> Entry:
        """Publish a shard that links to the columns of its sources side by side, without copying them.

        If a source is missing later, its columns read as NaN (the fill value), never as zeros.
        """
        parts = list(sources)
        width = sum(entry.width for _, entry in parts)

        def fill(file: h5py.File) -> None:
            _describe(file, frame_R, digest_RD, self.identity)
            layout = h5py.VirtualLayout(shape=(len(frame_R), width), dtype=np.float32)
            layout.dcpl.set_obj_track_times(False)  # without time stamps equal content gives equal bytes
            column = 0
            for store, entry in parts:
                relative = Path("..") / store.folder.name / store.path(shard).name
                source = h5py.VirtualSource(str(relative), store.dataset, shape=(entry.rows, entry.width))
                layout[:, column : column + entry.width] = source
                column += entry.width
            file.create_virtual_dataset(self.dataset, layout, fillvalue=np.nan)

        return self._publish(
            shard, fill, (len(frame_R), width), digest_RD, tuple(entry.sha256 for _, entry in parts), {}
        )

    def adopt(self, shard: int, ids_sha256: str, other: "ShardStore") -> bool:
        """Take over the finished shard of another store of the same identity, as a hard link. False if that fails."""
        if not other.looks_done(shard):
            return False
        try:
            for suffix in (".h5", ".json"):
                publish_link(self.path(shard).with_suffix(suffix), other.path(shard).with_suffix(suffix))
        except OSError as error:  # the other sample was cleaned just now, or there are no links here
            log.debug("%s: %s", other.path(shard), error)
            return False
        self.path(shard).with_suffix(RELEASED_ENTRY).unlink(missing_ok=True)
        return self.state(shard, ids_sha256) == "done"

    def read(self, shard: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(frame (rows,), values (rows, width)) of a shard that `require` has verified. Raises StoreError.

        All published values are finite. NaN comes from a virtual shard whose source could not be opened.
        """
        try:
            with h5py.File(self.path(shard), "r") as file:
                frame_R, values_RW = file["frame"][:], file[self.dataset][:]
        except (OSError, KeyError, RuntimeError) as error:
            number = getattr(error, "errno", None)
            what = os.strerror(number) if number else str(error).splitlines()[0]
            raise StoreError(
                f"cannot be read ({what})", where=self.path(shard), remedy="run the same command again"
            ) from error
        if not np.isfinite(values_RW).all():
            raise StoreError(
                "holds NaN: a shard that it links to could not be read",
                where=self.path(shard),
                remedy="run the same command again; if it fails again, raise the limit of open files (`ulimit -n`)",
            )
        return frame_R, values_RW

    def _publish(
        self,
        shard: int,
        fill: Callable[[h5py.File], None],
        shape: tuple[int, int],
        digest_RD: NDArray[np.uint8],
        sources: tuple[str, ...],
        maker: Mapping[str, Any],
    ) -> Entry:
        path = self.path(shard)
        image = _image(path, fill)
        # Hashing takes as long as writing, so both run at the same time; neither holds the interpreter's lock.
        with ThreadPoolExecutor(1) as background:
            digest = background.submit(hashlib.sha256, image)
            publish_bytes(path, image)
            remember_sha256(path, digest.result().hexdigest())
        entry = Entry(
            shard=shard,
            rows=shape[0],
            width=shape[1],
            ids_sha256=ids_digest(digest_RD),
            identity_sha256=self.identity_sha256,
            sources=sources,
            maker=dict(maker),
            bytes=len(image),
            sha256=digest.result().hexdigest(),
        )
        publish_json(
            path.with_suffix(".json"),
            {"format": _FORMAT, "seal": sha256_json(asdict(entry))} | asdict(entry),
        )
        path.with_suffix(RELEASED_ENTRY).unlink(missing_ok=True)
        return entry


def ids_digest(digest_RD: NDArray[np.uint8]) -> str:
    """sha256 (64 hex digits) of the 16-byte frame digests in row order: identifies the rows of a shard."""
    return hashlib.sha256(np.ascontiguousarray(digest_RD).tobytes()).hexdigest()


def lane_shards(n_shards: int, rank: int, world_size: int) -> range:
    """The shards of one rank, `shards[rank::world_size]`. Raises StoreError for a rank out of range."""
    if not 0 <= rank < world_size:
        raise StoreError(f"rank {rank} of {world_size}", remedy="give a rank below the number of GPUs")
    return range(rank, n_shards, world_size)


def _image(path: Path, fill: Callable[[h5py.File], None]) -> bytes:
    """The bytes of an HDF5 file, built in memory, since HDF5 may not report an error when the disk is full."""
    with h5py.File(path, "w", driver="core", backing_store=False, libver="v110") as file:
        fill(file)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _describe(
    file: h5py.File, frame_R: NDArray[np.int64], digest_RD: NDArray[np.uint8], identity: Mapping[str, Any]
) -> None:
    file.attrs["virnucpro_format"] = _FORMAT
    file.attrs["identity"] = json.dumps(identity, sort_keys=True)
    file.create_dataset("frame", data=np.ascontiguousarray(frame_R, dtype=np.int64))
    file.create_dataset("digest", data=np.ascontiguousarray(digest_RD, dtype=np.uint8))
