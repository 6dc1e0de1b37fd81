"""Writes and reads a column store: a folder of flat arrays with a header that lists their dtype, shape and sha256.

`store.json` is the header. Each column is a file `NAME.bin` in the same folder: little-endian numbers in row order,
memory-mapped by readers. A list of strings is two columns: its bytes, and `NAME_offsets` (n + 1,) int64. This module
knows nothing of what the columns mean.
"""

import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Self, overload

import numpy as np
import numpy.typing as npt

from virnucpro_core.errors import StoreError
from virnucpro_core.files.digests import remember_sha256, sha256_json, sha256_once
from virnucpro_core.files.publish import publish_folder

_FORMAT = "virnucpro columns"
# Bytes of a column up to which reading it takes less time than to start a thread for it.
SMALL_COLUMN = 1 << 20
_VERSION = 1
HEADER = "store.json"
# The header of a store whose columns were deleted to free space: it still lists them.
RELEASED_HEADER = "store.released"

Array = npt.NDArray[Any]
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_REMEDY = "run the step that wrote it again"


class Strings(Sequence[bytes]):
    """A view of many byte strings in one flat array: `view[i] -> bytes`, `view[a:b] -> list[bytes]`.

    `flat` is (bytes,) uint8, `offsets` (n + 1,) int64; string i is `flat[offsets[i]:offsets[i + 1]]`.
    """

    def __init__(self, flat: Array, offsets: Array) -> None:
        self.flat, self.offsets = flat, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if not isinstance(index, slice):
            i = range(len(self))[index]
            return self.flat[self.offsets[i] : self.offsets[i + 1]].tobytes()
        rows = range(len(self))[index]
        if rows.step != 1:
            return [self[i] for i in rows]
        if not rows:
            return []
        ends = self.offsets[rows.start : rows.stop + 1]
        base = int(ends[0])
        block = self.flat[base : int(ends[-1])].tobytes()
        bounds = (ends - base).tolist()
        return [block[a:b] for a, b in itertools.pairwise(bounds)]

    def __iter__(self) -> Iterator[bytes]:
        for lo in range(0, len(self), 4096):
            yield from self[lo : lo + 4096]

    @property
    def lengths(self) -> Array:
        """Lengths in bytes, (n,) int64, computed on each call."""
        return np.diff(self.offsets)

    def take(self, rows: Array) -> list[bytes]:
        """The strings at `rows` (any order), as a list."""
        starts, ends = self.offsets[rows], self.offsets[rows + 1]
        if not len(starts):
            return []
        base, end = int(starts.min()), int(ends.max())
        if end - base > 2 * int((ends - starts).sum()):  # far apart: only what is asked for is read
            pairs = zip(starts.tolist(), ends.tolist(), strict=True)
            return [self.flat[a:b].tobytes() for a, b in pairs]
        block = self.flat[base:end].tobytes()
        pairs = zip((starts - base).tolist(), (ends - base).tolist(), strict=True)
        return [block[a:b] for a, b in pairs]


def spans(starts: Array, lengths: Array) -> Array:
    """Concatenated `arange(s, s + n)` for each pair (s, n) of `starts` and `lengths`; int64."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(int(ends[-1]) if len(ends) else 0)


class ColumnWriter:
    """Appends to columns on disk and computes their sha256 while writing.

    `attrs` must be JSON; it is part of the store's digest.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.attrs: dict[str, Any] = {}
        self._folder, self._kind = folder, kind
        self._columns: dict[str, _Column] = {}
        self._streams = contextlib.ExitStack()  # closes all of them, even if closing one fails on a full disk

    @classmethod
    @contextlib.contextmanager
    def publishing(cls, path: Path, *, kind: str) -> Iterator[Self]:
        """A writer for the block. The complete store appears at `path` when the block ends without an error."""
        with publish_folder(path) as folder:
            writer = cls(folder, kind)
            with writer._streams:
                yield writer
            header = writer._header()
            (folder / HEADER).write_text(
                json.dumps(header | {"digest": sha256_json(header)}, indent=1) + "\n"
            )
        for name, column in header["columns"].items():
            remember_sha256(path / f"{name}.bin", column["sha256"])

    def append(self, name: str, values: Array) -> None:
        """Add rows to column `name`; the first call fixes its dtype and the shape of a row."""
        if name not in self._columns:
            self._columns[name] = column = _Column(self._folder, name, values)
            self._streams.enter_context(column.stream)
        self._columns[name].append(values)

    def append_strings(self, name: str, values: Sequence[bytes]) -> None:
        """Add strings to the pair of columns `name` and `NAME_offsets`."""
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        self.append_flat(name, np.frombuffer(b"".join(values), np.uint8), lengths)

    def append_flat(self, name: str, flat: Array, lengths: Array) -> None:
        """Add strings that are already concatenated in `flat` (uint8); `lengths` are their lengths in bytes."""
        offsets = f"{name}_offsets"
        if offsets not in self._columns:
            self.append(offsets, np.zeros(1, np.int64))
        base = self._columns[name].rows if name in self._columns else 0
        self.append(name, flat)
        self.append(offsets, base + np.cumsum(lengths, dtype=np.int64))

    def _header(self) -> dict[str, Any]:
        columns = {name: column.entry() for name, column in sorted(self._columns.items())}
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "kind": self._kind,
            "attrs": self.attrs,
            "columns": columns,
        }
        # Converted to JSON and back, so that the writer and every reader compute the same digest.
        return dict(json.loads(json.dumps(header)))


class _Column:
    """One open column: stream, running digest, number of rows."""

    def __init__(self, folder: Path, name: str, values: Array) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"column name {name!r}")
        self.dtype, self.row = values.dtype.newbyteorder("<"), values.shape[1:]
        self.stream: BinaryIO = (folder / f"{name}.bin").open("wb")
        self.sha256, self.rows = hashlib.sha256(), 0

    def append(self, values: Array) -> None:
        if values.shape[1:] != self.row or values.dtype.newbyteorder("<") != self.dtype:
            raise ValueError(
                f"rows of {values.dtype} {values.shape[1:]} in a column of {self.dtype} {self.row}"
            )
        block = np.ascontiguousarray(values, self.dtype).reshape(-1).view(np.uint8).data
        self.stream.write(block)
        self.sha256.update(block)
        self.rows += len(values)

    def entry(self) -> dict[str, Any]:
        shape = [self.rows, *self.row]
        size = int(np.prod(shape)) * self.dtype.itemsize
        return {"dtype": self.dtype.str, "shape": shape, "bytes": size, "sha256": self.sha256.hexdigest()}


class ColumnStore:
    """A published store, opened for reading; columns are read-only memory maps.

    `attrs` is what the writer set. `digest` is the sha256 of the header; since the header lists the sha256 of every
    column, it identifies the content.
    """

    def __init__(self, path: Path, header: dict[str, Any], digest: str) -> None:
        self.path, self.digest = path, digest
        self.attrs: dict[str, Any] = header["attrs"]
        self._columns: dict[str, dict[str, Any]] = header["columns"]

    @classmethod
    def open(cls, path: Path, *, kind: str) -> Self:
        """Check header, kind, version and sizes. Raises StoreError."""
        try:
            header = json.loads((path / HEADER).read_bytes())
            digest = header.pop("digest")
            is_intact = sha256_json(header) == digest and header["format"] == _FORMAT
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if (path / RELEASED_HEADER).exists() and not (path / HEADER).exists():
                raise StoreError(
                    "was released after the sample's results were complete", where=path, remedy=_REMEDY
                ) from error
            raise StoreError(f"no readable {HEADER} ({error})", where=path, remedy=_REMEDY) from error
        if not is_intact:
            raise StoreError(f"{HEADER} is damaged", where=path, remedy=_REMEDY)
        if (header["kind"], header["version"]) != (kind, _VERSION):
            found = f"{header['kind']} of version {header['version']}"
            raise StoreError(f"holds {found}, not {kind} of version {_VERSION}", where=path, remedy=_REMEDY)
        store = cls(path, header, digest)
        for name in store._columns:
            store._check(name, "bytes", lambda file: file.stat().st_size)
        return store

    def verify(self) -> None:
        """Compare the sha256 of every column with the header. Raises StoreError that names a damaged column.

        A process reads a column at most once, unless the file changes. Large columns are read side by side.
        """
        large = [name for name, entry in self._columns.items() if entry["bytes"] > SMALL_COLUMN]
        for name in self._columns.keys() - large:
            self._check(name, "sha256", sha256_once)
        if large:
            with ThreadPoolExecutor(len(large), thread_name_prefix="digest-columns") as threads:
                list(threads.map(lambda name: self._check(name, "sha256", sha256_once), large))

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> Array:
        entry = self._columns[name]
        shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
        if not entry["bytes"]:  # an empty file cannot be memory-mapped
            return np.empty(shape, dtype)
        return np.memmap(self._file(name), dtype, mode="r", shape=shape).view(np.ndarray)

    def stream(self, name: str) -> BinaryIO:
        """A column as a byte stream, to read it once from start to end. A memory map would keep its pages in memory."""
        return self._file(name).open("rb")

    def strings(self, name: str) -> Strings:
        """The strings in the columns `name` and `NAME_offsets`."""
        return Strings(self[name], self[f"{name}_offsets"])

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.bin"

    def _check(self, name: str, field: str, measure: Callable[[Path], object]) -> None:
        """Raises StoreError unless `measure(file)` equals the header's `field` of the column."""
        try:
            is_intact = measure(self._file(name)) == self._columns[name][field]
        except OSError as error:
            raise StoreError(f"column {name}: {error.strerror}", where=self.path, remedy=_REMEDY) from error
        if not is_intact:
            raise StoreError(f"column {name} is damaged", where=self.path, remedy=_REMEDY)
