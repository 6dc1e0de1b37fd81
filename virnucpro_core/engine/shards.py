"""Immutable HDF5 shards with a manifest entry each; the truth about what need not be computed again.

A shard is `00012.h5` and its entry `00012.json` in one folder per product. It counts only if the entry is
whole, has the identity that is asked for (everything the bytes depend on) and the file's sha256 is the
entry's: never because a file exists, never by a time stamp. Entries are files of their own, so any number
of lanes publish into one folder without a lock on a common manifest.
"""

import hashlib
import json
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
from virnucpro_core.files.digests import sha256_file, sha256_json
from virnucpro_core.files.publish import publish_bytes, publish_json

FORMAT = 1
State = Literal["done", "missing", "stale", "damaged", "released"]
# An entry whose shard was let go once the sample's results were whole: it still says what there was.
RELEASED = ".released"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the manifest says of one shard. `maker` is a note, not identity: rank, device, seconds, batches_halved."""

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

    `identity` names all that determines the bytes (sequences, models, precision, settings); its sha256 is in
    every entry, and an entry with another one is stale.
    """

    def __init__(self, folder: Path, *, dataset: str, identity: Mapping[str, Any]) -> None:
        self.folder, self.dataset = folder, dataset
        self.identity = dict(identity)
        self.identity_sha256 = sha256_json(self.identity)

    def path(self, shard: int) -> Path:
        return self.folder / f"{shard:05d}.h5"

    def entry(self, shard: int) -> Entry | None:
        """The shard's entry, whatever its identity; None if there is none or it cannot be read."""
        return self._read_entry(shard, ".json")

    def released(self, shard: int) -> Entry | None:
        """The entry of a shard that was let go and not made again; None if it was not."""
        return None if self.entry(shard) else self._read_entry(shard, RELEASED)

    def _read_entry(self, shard: int, suffix: str) -> Entry | None:
        file = self.path(shard).with_suffix(suffix)
        try:
            raw = json.loads(file.read_bytes())
            if raw.pop("format") != FORMAT or raw.pop("seal") != sha256_json(raw):
                return None
            entry = Entry(**raw | {"sources": tuple(raw["sources"])})
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return entry if entry.shard == shard else None

    def state(self, shard: int, ids_sha256: str) -> State:
        """Whether the shard can be used: reads the whole file against its digest."""
        entry, path = self.entry(shard), self.path(shard)
        if entry is None and self._read_entry(shard, RELEASED):
            return "released"
        if entry is None:
            return "damaged" if path.exists() else "missing"
        if entry.identity_sha256 != self.identity_sha256 or entry.ids_sha256 != ids_sha256:
            return "stale"
        if not self.looks_done(shard, ids_sha256) or sha256_file(path) != entry.sha256:
            return "damaged"
        return "done"

    def looks_done(self, shard: int, ids_sha256: str) -> bool:
        """Whether entry, identity and size are right. The bytes are not read: its owner will do that."""
        entry, path = self.entry(shard), self.path(shard)
        if entry is None or (entry.identity_sha256, entry.ids_sha256) != (self.identity_sha256, ids_sha256):
            return False
        return path.exists() and path.stat().st_size == entry.bytes

    def require(self, shard: int, ids_sha256: str) -> Entry:
        """The entry of a shard that verifies; else StoreError that names shard, state and remedy."""
        state, entry = self.state(shard, ids_sha256), self.entry(shard)
        if state != "done" or entry is None:
            raise StoreError(
                f"shard {shard} of {self.folder.name} is {state}",
                where=self.path(shard),
                remedy=f"materialize {self.folder.name} again; only what does not verify is computed",
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
        """Publish one shard, then its entry. values (rows, width) float32, finite or StoreError."""
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
        """Publish a shard that shows its sources' columns side by side and copies nothing.

        A source that goes missing later reads as NaN (the fill value), never as zeros.
        """
        parts = list(sources)
        width = sum(entry.width for _, entry in parts)

        def fill(file: h5py.File) -> None:
            _describe(file, frame_R, digest_RD, self.identity)
            layout = h5py.VirtualLayout(shape=(len(frame_R), width), dtype=np.float32)
            layout.dcpl.set_obj_track_times(False)  # a time stamp would make equal content unequal bytes
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

    def read(self, shard: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(frame (rows,), values (rows, width)) of a shard that `require` has passed. Raises StoreError.

        Only finite values are ever published: others come from a virtual shard whose source could not be opened.
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
                "holds NaN: a shard that it shows could not be read",
                where=self.path(shard),
                remedy="run the same command again; if it stays, raise the limit of open files (`ulimit -n`)",
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
        # The digest takes as long as the disk, and neither needs the interpreter.
        with ThreadPoolExecutor(1) as beside:
            digest = beside.submit(hashlib.sha256, image)
            publish_bytes(path, image)
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
            {"format": FORMAT, "seal": sha256_json(asdict(entry))} | asdict(entry),
        )
        path.with_suffix(RELEASED).unlink(missing_ok=True)
        return entry


def ids_digest(digest_RD: NDArray[np.uint8]) -> str:
    """sha256 over the rows' 16-byte frame digests, in row order: ids in = ids out, at 64 characters."""
    return hashlib.sha256(np.ascontiguousarray(digest_RD).tobytes()).hexdigest()


def lane_shards(n_shards: int, rank: int, world_size: int) -> range:
    """One rank's share, `shards[rank::world_size]`."""
    if not 0 <= rank < world_size:
        raise StoreError(f"rank {rank} of {world_size}", remedy="give a rank below the number of GPUs")
    return range(rank, n_shards, world_size)


def _image(path: Path, fill: Callable[[h5py.File], None]) -> bytes:
    """The bytes of an HDF5 file, made in memory: HDF5 may close a file on a full disk without an error."""
    with h5py.File(path, "w", driver="core", backing_store=False, libver="v110") as file:
        fill(file)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _describe(
    file: h5py.File, frame_R: NDArray[np.int64], digest_RD: NDArray[np.uint8], identity: Mapping[str, Any]
) -> None:
    file.attrs["virnucpro_format"] = FORMAT
    file.attrs["identity"] = json.dumps(identity, sort_keys=True)
    file.create_dataset("frame", data=np.ascontiguousarray(frame_R, dtype=np.int64))
    file.create_dataset("digest", data=np.ascontiguousarray(digest_RD, dtype=np.uint8))
