"""Matrix products by cuBLASLt (installed with torch), with fused bias and GELU that torch does not offer.

Half precision or e4m3 in, float32 sums. GELU is the library's tanh form, at most 5e-4 from the erf form; this is small
compared with the rounding of half precision (docs/encoders.md). The library chooses a kernel by the shapes alone, so
equal shapes give equal bits.

Shapes: T tokens of a batch, I inputs, O outputs, 1 a single value.
"""

import ctypes
import functools
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import torch

from virnucpro_core.errors import DeviceError

WORKSPACE = 32 * 2**20
TYPES = {torch.float32: 0, torch.float16: 2, torch.bfloat16: 14, torch.float8_e4m3fn: 28}  # cudaDataType
SUMS_IN_FLOAT32 = 68  # cublasComputeType
# cublasLtMatmulDescAttributes
TRANSPOSE_A, EPILOGUE, BIAS, A_SCALE, D_SCALE, FAST_SUMS, BIAS_TYPE = 3, 7, 8, 17, 20, 25, 26
PLAIN, WITH_BIAS, WITH_GELU = 1, 4, 32  # cublasLtEpilogue
WORKSPACE_LIMIT = 1  # cublasLtMatmulPreferenceAttributes

_LOCK = threading.Lock()  # a plan's pointers are set and used by one thread at a time


class _Found(ctypes.Structure):
    """cublasLtMatmulHeuristicResult."""

    _fields_ = [
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    ]


@dataclass(frozen=True, slots=True)
class Shape:
    """What the library has to know of a product before it has seen a pointer."""

    tokens: int
    outputs: int
    inputs: int
    taken: torch.dtype
    given: torch.dtype
    bias: torch.dtype | None
    gelu: bool
    add: bool


def product(
    x_TI: torch.Tensor,
    weight_OI: torch.Tensor,
    o_TO: torch.Tensor,
    *,
    bias_O: torch.Tensor | None = None,
    gelu: bool = False,
    add: bool = False,
    scales: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None),
) -> torch.Tensor:
    """o = act(s x W^T + b) * t, or o += s x W^T where `add`; returns o.

    x, weight and o are whole tensors as torch allocates them, x and weight of one type: half precision, or e4m3
    with I and O multiples of 16. bias: half precision. scales: s, for e4m3 operands, and t, for an o in e4m3 (which
    saturates): one float32 each, on the device. Raises DeviceError where the library has no such product.
    """
    shape = Shape(
        len(x_TI), len(weight_OI), x_TI.shape[1], x_TI.dtype, o_TO.dtype,
        None if bias_O is None else bias_O.dtype, gelu, add,
    )  # fmt: skip
    stream = torch.cuda.current_stream(x_TI.device)
    with _LOCK:
        plan = _plan(x_TI.device, shape)
        for attribute, pointed in zip((BIAS, A_SCALE, D_SCALE), (bias_O, *scales), strict=True):
            if pointed is not None:
                plan.set(attribute, ctypes.c_void_p(pointed.data_ptr()))
        plan.run(x_TI, weight_OI, o_TO, stream)
    return o_TO


class _Plan:
    """One product of one shape; W^T x^T = o^T column by column is what the library calls A, B and D."""

    def __init__(self, device: torch.device, shape: Shape) -> None:
        self._library, self._handle = _library(), _handle(device)
        self._sum = ctypes.c_float(1.0)
        self._kept = ctypes.c_float(1.0 if shape.add else 0.0)
        t, o, i = shape.tokens, shape.outputs, shape.inputs
        self._operation = self._made("MatmulDesc", SUMS_IN_FLOAT32, TYPES[torch.float32])
        self.set(TRANSPOSE_A, ctypes.c_int(1))
        epilogue = (WITH_BIAS if shape.bias else 0) | (WITH_GELU if shape.gelu else 0)
        self.set(EPILOGUE, ctypes.c_int(epilogue or PLAIN))
        if shape.bias:
            self.set(BIAS_TYPE, ctypes.c_int(TYPES[shape.bias]))
        if shape.taken.itemsize == 1:
            self.set(FAST_SUMS, ctypes.c_int8(1))
        kept = torch.float16 if shape.given.itemsize == 1 else shape.given  # no e4m3 is ever added to
        self._a, self._b, self._c, self._d = (
            self._layout(dtype, rows, columns)
            for dtype, rows, columns in (
                (shape.taken, i, o), (shape.taken, i, t), (kept, o, t), (shape.given, o, t),
            )
        )  # fmt: skip
        self._shape = shape
        self._found: _Found | None = None

    def set(self, attribute: int, value: Any) -> None:
        """One attribute of the operation: a ctypes value, copied."""
        size = ctypes.c_size_t(ctypes.sizeof(value))
        check(
            self._library.cublasLtMatmulDescSetAttribute(
                self._operation, attribute, ctypes.byref(value), size
            ),
            f"attribute {attribute}",
        )

    def run(
        self, x_TI: torch.Tensor, weight_OI: torch.Tensor, o_TO: torch.Tensor, stream: torch.cuda.Stream
    ) -> None:
        if self._found is None:  # only now: the library looks at the pointers' alignment too
            self._found = self._best()
        x, o = ctypes.c_void_p(x_TI.data_ptr()), ctypes.c_void_p(o_TO.data_ptr())
        c = o if self._shape.add else x  # not read unless it is added; the library refuses o of another type
        status = self._library.cublasLtMatmul(
            self._handle, self._operation, ctypes.byref(self._sum),
            ctypes.c_void_p(weight_OI.data_ptr()), self._a, x, self._b,
            ctypes.byref(self._kept), c, self._c, o, self._d, ctypes.byref(self._found.algorithm),
            ctypes.c_void_p(_workspace(stream).data_ptr()), ctypes.c_size_t(WORKSPACE),
            ctypes.c_void_p(stream.cuda_stream),
        )  # fmt: skip
        check(status, "a product")

    def _best(self) -> _Found:
        """The library's first choice."""
        preference = self._made("MatmulPreference")
        limit = ctypes.c_size_t(WORKSPACE)
        set_limit = self._library.cublasLtMatmulPreferenceSetAttribute
        check(
            set_limit(preference, WORKSPACE_LIMIT, ctypes.byref(limit), ctypes.c_size_t(8)), "the workspace"
        )
        found, count = _Found(), ctypes.c_int(0)
        status = self._library.cublasLtMatmulAlgoGetHeuristic(
            self._handle, self._operation, self._a, self._b, self._c, self._d, preference, 1,
            ctypes.byref(found), ctypes.byref(count),
        )  # fmt: skip
        check(status or (0 if count.value else -1), f"{self._shape}")
        return found

    def _layout(self, dtype: torch.dtype, rows: int, columns: int) -> ctypes.c_void_p:
        sizes = (ctypes.c_uint64(rows), ctypes.c_uint64(columns), ctypes.c_int64(rows))
        return self._made("MatrixLayout", TYPES[dtype], *sizes)

    def _made(self, kind: str, *arguments: Any) -> ctypes.c_void_p:
        """Create an object of the library; it is destroyed together with the plan."""
        made = ctypes.c_void_p()
        check(getattr(self._library, f"cublasLt{kind}Create")(ctypes.byref(made), *arguments), kind)
        weakref.finalize(self, getattr(self._library, f"cublasLt{kind}Destroy"), made).atexit = False
        return made


@functools.lru_cache(maxsize=4096)
def _plan(device: torch.device, shape: Shape) -> _Plan:
    return _Plan(device, shape)


@functools.cache
def _library() -> ctypes.CDLL:
    """The library that torch has loaded already."""
    name = f"libcublasLt.so.{str(torch.version.cuda).split('.', maxsplit=1)[0]}"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise DeviceError(
            f"{name} cannot be loaded: {error}",
            remedy="install torch with its CUDA libraries, or use float32",
        ) from error


@functools.cache
def _handle(device: torch.device) -> ctypes.c_void_p:
    handle = ctypes.c_void_p()
    with torch.cuda.device(device):
        check(_library().cublasLtCreate(ctypes.byref(handle)), "a handle")
    return handle


@functools.cache
def _workspace(stream: torch.cuda.Stream) -> torch.Tensor:
    """The workspace of one stream; its products run one after another and share it."""
    return torch.empty(WORKSPACE, dtype=torch.uint8, device=stream.device)


def check(status: int, what: str) -> None:
    """Raises DeviceError unless the status is 0, the library's success."""
    if status:
        raise DeviceError(
            f"cuBLASLt refuses {what}: status {status}",
            remedy="use float32 with attention 'reference', or a GPU of compute capability 8.9 or above for fp8",
        )
