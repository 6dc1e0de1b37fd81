"""Writes safetensors files one tensor at a time, so that memory use stays low. Equal tensors give equal bytes.

The file is 8 bytes of header length, a JSON header, then the values
(https://github.com/huggingface/safetensors#format). Knows nothing of models.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from virnucpro_core.errors import WeightsError
from virnucpro_core.files.publish import publish

STORED_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}


@dataclass(frozen=True, slots=True)
class TensorSource:
    """A tensor that `read` loads when it is written."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Self:
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def write_tensors(path: Path, tensors: Mapping[str, TensorSource], dtype: torch.dtype | None = None) -> int:
    """Publish `tensors` in the order of their names and return the number of values written.

    Floats are converted to `dtype` (None: unchanged). Raises WeightsError that names a tensor whose dtype is not
    supported or whose values are not finite in `dtype`.
    """
    header, place = {}, 0
    for name in sorted(tensors):
        kept = dtype if dtype and tensors[name].dtype.is_floating_point else tensors[name].dtype
        if kept not in STORED_DTYPES:
            raise WeightsError(f"tensor {name!r} is {kept}, which is not supported")
        size = torch.Size(tensors[name].shape).numel() * kept.itemsize
        shape = list(tensors[name].shape)
        header[name] = {"dtype": STORED_DTYPES[kept], "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with publish(path) as temporary, temporary.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            stream.write(_values(name, tensors[name], dtype))
    return sum(torch.Size(source.shape).numel() for source in tensors.values())


def _values(name: str, source: TensorSource, dtype: torch.dtype | None) -> memoryview:
    tensor = source.read()
    if tensor.is_floating_point():
        tensor = tensor.to(dtype or tensor.dtype)
        if not torch.isfinite(tensor).all():
            raise WeightsError(
                f"tensor {name!r} has NaN, infinite or too large values for {str(tensor.dtype)[6:]}",
                remedy="fetch the model again, or keep its own dtype",
            )
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
