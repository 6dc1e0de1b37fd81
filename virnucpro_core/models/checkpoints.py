"""Read PyTorch checkpoint files (.pt, .pth, .bin) as data: nothing in them is imported or called.

Reads the zip layout of `torch.save` (since PyTorch 1.6) and the few names that make a tensor. Everything else
in the pickle becomes an inert record (`inert_pickle`). Every byte is compared with the CRC-32 that the archive has of
it, then tensors are memory-mapped from the file. Works for any model.
"""

import math
import os
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from virnucpro_core.errors import WeightsError, printable
from virnucpro_core.files.safetensors import TensorSource
from virnucpro_core.models.inert_pickle import External, Global, Unbuilt, read_pickle

MAX_PICKLE_BYTES = 8 << 20  # tensor values are stored outside the pickle: ESM-2 15B needs 0.1 MB
MAX_MODULES, MAX_DEPTH = 100_000, 32
_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_ORDERED = Global("collections", "OrderedDict")
_TENSORS = ("_rebuild_tensor_v2", "_rebuild_tensor")
_PARAMETERS = ("_rebuild_parameter", "_rebuild_parameter_with_state")
_NO_ARCHIVE = "not a zip archive as torch.save writes it since PyTorch 1.6"
_OLDER = (
    f"{_NO_ARCHIVE}, but an older file",
    "open it elsewhere with torch.load(..., weights_only=True) and torch.save it again",
)
_AGAIN = "copy or fetch the file again"
# What an older file of torch.save begins with: a pickle of a number that marks it.
_OLDER_BEGIN = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_CHECKED_AT_ONCE, _BLOCK = 4, 1 << 18


def read_checkpoint(path: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return (structure, state): the file's inert content, and its state dict as name -> mapped tensor.

    The state dict is the top-level object, its entry `model` or `state_dict`, or that of a complete pickled module.
    Raises WeightsError (path and remedy) for a file that is not such an archive, is damaged, or holds fewer bytes
    than its tensors claim.
    """
    return _read(path)[:2]


def _read(path: Path) -> tuple[Any, dict[str, torch.Tensor], "_Archive"]:
    archive = _Archive(path)
    try:
        structure = read_pickle(archive.pickle())
        return structure, _state(structure, archive), archive
    except WeightsError as error:
        raise WeightsError(error.what, where=path, remedy=error.remedy or "fetch the file again") from error


def read_sources(path: Path) -> tuple[Any, dict[str, torch.Tensor], dict[str, TensorSource]]:
    """`read_checkpoint`, and its state as sources, each of which maps its own bytes of the file when it is read.

    The one map behind the tensors keeps every page that was ever read; the pages of a source's own map are given back
    with its tensor. So converting a file needs the memory of its largest tensor. Raises what `read_checkpoint` raises.
    """
    structure, state, archive = _read(path)
    return structure, state, {name: _source(archive, tensor) for name, tensor in state.items()}


class OpenCheckpoint:
    """A checkpoint of any content: `structure` is its inert object, `tensor(part)` maps the tensors in it.

    largest_pickle: bytes. Raises WeightsError for a file that is not such an archive, or whose pickle is larger.
    """

    def __init__(self, path: Path, *, largest_pickle: int) -> None:
        self._archive = _Archive(path)
        self.structure = read_pickle(self._archive.pickle(largest_pickle))

    def tensor(self, part: Any) -> Any:
        """The tensor that `part` describes; any other value unchanged. Raises WeightsError."""
        return self._archive.tensor(part)


def _source(archive: "_Archive", tensor: torch.Tensor) -> TensorSource:
    place = tensor.data_ptr() - archive.mapping.data_ptr()
    if not 0 <= place < archive.bytes or not tensor.numel():
        return TensorSource.of(tensor)  # a copy in memory: its place in the file does not suit its dtype
    shape, strides, dtype = tuple(tensor.shape), tensor.stride(), tensor.dtype
    reach = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))

    def read() -> torch.Tensor:
        mapped = np.memmap(archive.path, np.uint8, "c", place, (reach * dtype.itemsize,))
        return torch.from_numpy(mapped).view(dtype).as_strided(shape, strides)

    return TensorSource(shape, dtype, read)


def attributes(value: Any) -> dict[str, Any]:
    """Entries of a dict, attributes of an inert object (an argparse.Namespace, a module), {} for other values."""
    found = _entries(value)
    if found is None and isinstance(value, Unbuilt):
        found = _entries(value.state)
    return found or {}


def _entries(value: Any) -> dict[str, Any] | None:
    """Entries of a dict or OrderedDict, without its attributes (torch's `_metadata`); None for other values."""
    if isinstance(value, Unbuilt) and value.source == _ORDERED and value.arguments == ():
        return value.entries
    return value if isinstance(value, dict) else None


def _state(structure: Any, archive: "_Archive") -> dict[str, torch.Tensor]:
    """The state dict inside an inert structure; WeightsError when there is none."""
    entries = _entries(structure) or {}
    inner = [entries[key] for key in ("model", "state_dict") if key in entries]
    if inner and isinstance(inner[0], dict | Unbuilt):
        structure = inner[0]
    if isinstance(structure, Unbuilt) and _entries(structure) is None:
        return _module_state(structure, archive)
    state = {name: archive.tensor(value) for name, value in attributes(structure).items()}
    if not state or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()):
        raise WeightsError(
            "no state dict in it", remedy="give a file of weights, as torch.save(model) writes it"
        )
    return state


def _module_state(root: Unbuilt, archive: "_Archive") -> dict[str, torch.Tensor]:
    """Parameters and buffers of a pickled torch module, names and order as `state_dict()` gives them."""
    found: dict[str, torch.Tensor] = {}
    waiting: list[tuple[str, Any]] = [("", root)]
    for _ in range(MAX_MODULES):
        if not waiting:
            return found
        prefix, record = waiting.pop()
        state = attributes(record)
        if prefix.count(".") > MAX_DEPTH:
            raise WeightsError(f"modules nested more than {MAX_DEPTH} deep in it")
        if "_parameters" not in state or "_modules" not in state:
            raise WeightsError(f"{_shown(record)} is in it where a torch module was expected")
        for name, described in (attributes(state["_parameters"]) | attributes(state.get("_buffers"))).items():
            value = archive.tensor(described)
            if isinstance(value, torch.Tensor):
                found[f"{prefix}{name}"] = value
            elif value is not None:
                raise WeightsError(f"{_shown(value)} is in it where the tensor {name!r} was expected")
        children = [(f"{prefix}{name}.", child) for name, child in attributes(state["_modules"]).items()]
        waiting += [(name, child) for name, child in reversed(children) if child is not None]
    raise WeightsError(f"more than {MAX_MODULES:,} modules in it")


def _shown(value: Any) -> str:
    """A short description of a value from the file, whose own text may be very long."""
    source = value.source if isinstance(value, Unbuilt) else value
    return f"{str(source)[:80]!r}" if isinstance(source, Global | str) else f"a {type(source).__name__}"


class _Archive:
    """The zip file: the offsets of its entries, and one private memory map of all its bytes."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise WeightsError("no such file", where=path)
        self.path, self.bytes = path, path.stat().st_size
        try:
            with zipfile.ZipFile(path) as archive:
                self.entries = {entry.filename: entry for entry in archive.infolist()}
                self.starts = {name: self._start(archive, entry) for name, entry in self.entries.items()}
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
            what, remedy = _no_archive(path, error)
            raise WeightsError(what, where=path, remedy=remedy) from error
        self._check_sums()
        pickles = [name for name in self.entries if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise WeightsError(f"{len(pickles)} entries data.pkl in the archive, expected one", where=path)
        self.prefix = pickles[0].removesuffix("data.pkl")
        self.mapping = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=self.bytes)
        if self._read(f"{self.prefix}byteorder", limit=16, default=b"little") != b"little":
            raise WeightsError(
                "big-endian checkpoint", where=path, remedy="save it on a little-endian machine"
            )

    def _start(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int:
        """Offset of the entry's data. Raises BadZipFile unless all of it is inside the file and uncompressed."""
        assert archive.fp is not None
        if entry.header_offset < 0:
            raise zipfile.BadZipFile(f"entry {entry.filename!r} begins before the file")
        archive.fp.seek(entry.header_offset)
        header = archive.fp.read(30)
        start = entry.header_offset + 30 + int.from_bytes(header[26:28], "little")
        start += int.from_bytes(header[28:30], "little")
        stored = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
        if header[:4] != b"PK\x03\x04" or not stored or start + entry.file_size > self.bytes:
            raise zipfile.BadZipFile(f"entry {entry.filename!r} is compressed or reaches beyond the file")
        return start

    def _check_sums(self) -> None:
        """Raise WeightsError unless every entry has the CRC-32 that the archive has of it.

        Reads the whole file once, in blocks and with several threads.
        """
        filled = {name: entry for name, entry in self.entries.items() if entry.file_size}
        if filled and not any(entry.CRC for entry in filled.values()):
            raise WeightsError(
                "the archive has no checksums of its entries",
                where=self.path,
                remedy="torch.save it again, with torch.serialization.set_crc32_options(True)",
            )
        with self.path.open("rb") as stream, ThreadPoolExecutor(_CHECKED_AT_ONCE) as threads:
            sums = threads.map(lambda name: self._sum(stream.fileno(), name), filled)
            damaged = [name for name, found in zip(filled, sums, strict=True) if found != filled[name].CRC]
        if damaged:
            more = f", and {len(damaged) - 1:,} more are" if len(damaged) > 1 else ""
            raise WeightsError(
                f"its entry {damaged[0][:80]!r} is damaged (CRC-32 differs){more}",
                where=self.path,
                remedy=_AGAIN,
            )

    def _sum(self, handle: int, name: str) -> int:
        """The CRC-32 of an entry's bytes in the file."""
        found, at, end = 0, self.starts[name], self.starts[name] + self.entries[name].file_size
        while at < end and (block := os.pread(handle, min(_BLOCK, end - at), at)):
            found, at = zlib.crc32(block, found), at + len(block)
        return found

    def _read(self, name: str, *, limit: int, default: bytes | None = None) -> bytes:
        if name not in self.entries and default is not None:
            return default
        size = self.entries[name].file_size
        if size > limit:
            raise WeightsError(f"the entry {name!r} has {size:,} bytes, more than any checkpoint needs")
        with self.path.open("rb") as stream:
            stream.seek(self.starts[name])
            return stream.read(size)

    def pickle(self, limit: int = MAX_PICKLE_BYTES) -> bytes:
        return self._read(f"{self.prefix}data.pkl", limit=limit)

    def tensor(self, value: Any) -> Any:
        """The tensor that a record describes, mapped from the file. Returns any other value unchanged."""
        while True:
            match value:
                case Unbuilt(Global("torch._utils", name), tuple() as parts) if parts and name in _PARAMETERS:
                    value = parts[0]
                case Unbuilt(Global("torch._utils", name), tuple() as parts) if (
                    parts[3:] and name in _TENSORS
                ):
                    return _strided(self._storage(parts[0]), *parts[1:4])
                case _:
                    return value

    def _storage(self, part: Any) -> torch.Tensor:
        """An external part ('storage', type, key, device, elements) -> flat tensor over the mapped entry."""
        if not isinstance(part, External):
            raise WeightsError("a tensor without a storage")
        identity = part.identity
        if not (isinstance(identity, tuple) and len(identity) == 5 and identity[0] == "storage"):
            raise WeightsError("an external object that is not a tensor's storage")
        _, kind, key, _, elements = identity
        dtype = _DTYPES.get(kind.name) if isinstance(kind, Global) and kind.module == "torch" else None
        if dtype is None:
            raise WeightsError(f"a tensor of storage type {_shown(kind)}, which is not supported")
        name = f"{self.prefix}data/{key}" if isinstance(key, str) else ""
        if name not in self.entries or not _is_size(elements):
            raise WeightsError(f"the storage {_shown(key)} is not in the archive")
        held, needed = self.entries[name].file_size, elements * dtype.itemsize
        if needed > held:
            raise WeightsError(f"storage {key!r} claims {needed:,} bytes, the archive holds {held:,}")
        if needed == 0:
            return torch.empty(0, dtype=dtype)
        start = self.starts[name]
        part = self.mapping[start : start + needed]
        if start % dtype.itemsize:
            part = part.clone()
        return torch.empty(0, dtype=dtype).set_(part)


def _no_archive(path: Path, error: Exception) -> tuple[str, str]:
    """What is wrong with a file that cannot be opened as an archive, and what to do. Only its first bytes are read."""
    with path.open("rb") as stream:
        begin = stream.read(len(_OLDER_BEGIN))
    if not begin:
        return "is empty", _AGAIN
    if begin == _OLDER_BEGIN:
        return _OLDER
    if begin.startswith(b"PK"):
        said = (
            printable(str(error)[:100])
            if str(error).startswith("entry")
            else "its list of entries is missing"
        )
        return f"damaged, or not complete: {said}", _AGAIN
    return _NO_ARCHIVE, f"{_AGAIN}, or give the file that torch.save wrote"


def _strided(flat: torch.Tensor, offset: Any, sizes: Any, strides: Any) -> torch.Tensor:
    """A view of a storage; WeightsError when it leaves the storage or its elements overlap."""
    shaped = isinstance(sizes, tuple) and isinstance(strides, tuple) and len(sizes) == len(strides) <= 16
    if not shaped or not all(_is_size(n) for n in (offset, *sizes, *strides)):
        raise WeightsError("a tensor with impossible shape and strides")
    count = math.prod(sizes)
    if count == 0:
        return flat.new_empty(sizes)
    reach, dense = 0, 1
    for stride, size in sorted(
        (stride, size) for stride, size in zip(strides, sizes, strict=True) if size > 1
    ):
        if stride < dense:
            raise WeightsError(f"a tensor of shape {sizes} whose strides {strides} overlap")
        dense, reach = stride * size, reach + stride * (size - 1)
    if offset + reach >= len(flat):
        raise WeightsError(
            f"a tensor of shape {sizes} at offset {offset:,} leaves its storage of {len(flat):,} elements"
        )
    return flat.as_strided(sizes, strides, offset)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62
