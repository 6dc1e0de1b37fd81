"""Triton kernels over the rows of (T, D) tensors: LayerNorm, pooling, the gated product.

Half precision or e4m3 in and out, float32 inside.

Shapes: T tokens of a batch, B sequences, D width, F feed-forward width, G = 2 F, I inputs.
"""

# ruff: noqa: PLR0913, PLR0917 (the arguments of a kernel are its pointers, sizes and tile constants)
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import functools

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

GATE_ROWS = 128  # of the gate, then of the value, in an interleaved weight


@triton.jit
def _gelu(x, INSTRUCTION: tl.constexpr):
    """x * Phi(x) = x (1 + tanh(u)) / 2, u = x p(x^2), p fitted to erf (absolute error of all 3.1e-6).

    INSTRUCTION: the GPU's own tanh (absolute error 5e-4), which Triton's interpreter has not.
    """
    s = x * x
    u = x * ((((1.112560e-6 * s - 3.046590e-5) * s - 1.254837e-4) * s + 3.646996e-2) * s + 7.978270e-1)
    if INSTRUCTION:
        t = tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [u], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        e = tl.exp2(tl.abs(u) * -2.885390081777927)  # 2 log2(e)
        t = tl.where(u < 0, e - 1.0, 1.0 - e) / (1.0 + e)
    return 0.5 * x + 0.5 * x * t


@triton.jit
def _norm(
    x, offset, weight, bias, o, eps, scale,
    D: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, OFFSET: tl.constexpr, E4M3: tl.constexpr,
):  # fmt: skip
    """LayerNorm of one row, read once: D columns as LOW + HIGH, powers of two (masked beyond D); e4m3: times scale."""
    row = tl.program_id(0).to(tl.int64) * D
    i = tl.arange(0, LOW)
    j = LOW + tl.arange(0, HIGH)
    there = j < D
    a = tl.load(x + row + i).to(tl.float32)
    b = tl.load(x + row + j, mask=there, other=0.0).to(tl.float32)
    if OFFSET:
        a += tl.load(offset + i)
        b += tl.load(offset + j, mask=there, other=0.0)
    mean = (tl.sum(a, 0) + tl.sum(b, 0)) / D
    a -= mean
    b = tl.where(there, b - mean, 0.0)
    rate = tl.rsqrt((tl.sum(a * a, 0) + tl.sum(b * b, 0)) / D + eps)
    a = a * rate * tl.load(weight + i) + tl.load(bias + i)
    b = b * rate * tl.load(weight + j, mask=there, other=0.0) + tl.load(bias + j, mask=there, other=0.0)
    if E4M3:
        a *= scale
        b *= scale
    tl.store(o + row + i, a.to(o.dtype.element_ty))
    tl.store(o + row + j, b.to(o.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["T"])
def _gated_gelu(
    x, weight, o, T, G, inputs,
    ROWS: tl.constexpr, GATE: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr, PROGRAMS: tl.constexpr,
    INSTRUCTION: tl.constexpr,
):  # fmt: skip
    """Persistent product with its activation: o = gelu(x Wg^T) * (x Wv^T), ROWS x GATE of o at a time.

    GATE rows of the gate's weights and as many of the value's lie in turn in W (G rows). GROUP row tiles go
    before the next columns, for the cache. x, weight and o are tensor descriptors.
    """
    down = tl.cdiv(T, ROWS)
    across = tl.cdiv(G, 2 * GATE)
    for tile in tl.range(tl.program_id(0), down * across, PROGRAMS, flatten=True):
        first = tile // (GROUP * across) * GROUP
        high = tl.minimum(down - first, GROUP)
        r = (first + tile % (GROUP * across) % high) * ROWS
        c = tile % (GROUP * across) // high * GATE
        sums = tl.zeros((ROWS, 2 * GATE), tl.float32)
        for d in range(0, inputs, DEPTH):
            sums = tl.dot(x.load([r, d]), weight.load([2 * c, d]).T, sums)
        gate, value = tl.split(tl.permute(tl.reshape(sums, (ROWS, 2, GATE)), (0, 2, 1)))
        o.store([r, c], (_gelu(gate, INSTRUCTION) * value).to(o.dtype))


@triton.jit
def _pool(x, starts, o, skip, last, limit, D, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Mean of one sequence's rows [skip, length - last), at most `limit` of them, over BLOCK columns."""
    sequence = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    low = tl.load(starts + sequence) + skip
    high = tl.minimum(tl.load(starts + sequence + 1) - last, low + limit)
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for block in range(low, high, ROWS):
        row = block + tl.arange(0, ROWS)
        there = (row < high)[:, None] & (column < D)[None, :]
        total += tl.load(x + row.to(tl.int64)[:, None] * D + column[None, :], mask=there, other=0.0).to(
            tl.float32
        )
    mean = tl.sum(total, 0) / (high - low).to(tl.float32)
    tl.store(o + sequence.to(tl.int64) * D + column, mean, mask=column < D)


def norm(
    x_TD: torch.Tensor,
    weight_D: torch.Tensor,
    bias_D: torch.Tensor,
    eps: float,
    offset_D: torch.Tensor | None = None,
    *,
    e4m3_scale: float | None = None,
) -> torch.Tensor:
    """LayerNorm(x + offset) (T, D) in the dtype of x, or times e4m3_scale in e4m3; the vectors are float32.

    e4m3 saturates: the scale is to be one with which no output can.
    """
    small, columns = e4m3_scale is not None, _columns(x_TD)
    dtype = torch.float8_e4m3fn if small else x_TD.dtype
    o_TD = torch.empty(x_TD.shape, dtype=dtype, device=x_TD.device)
    warps = min(max(columns["LOW"] // 256, 1), 8) if small else 1 if x_TD.shape[1] < 1024 else 4
    _norm[(len(x_TD),)](
        x_TD, weight_D if offset_D is None else offset_D, weight_D, bias_D, o_TD, eps, e4m3_scale or 1.0,
        **columns, OFFSET=offset_D is not None, E4M3=small, num_warps=warps,
    )  # fmt: skip
    return o_TD


def gated_gelu(x_TI: torch.Tensor, weight_GI: torch.Tensor) -> torch.Tensor:
    """gelu(x Wg^T) * (x Wv^T) (T, F), half precision; weight_GI (2F, I) `interleaved`, I a multiple of 8."""
    o_TF = torch.empty(len(x_TI), len(weight_GI) // 2, dtype=x_TI.dtype, device=x_TI.device)
    rows, depth, programs = 128, 64, _multiprocessors(x_TI.device)
    _gated_gelu[(programs,)](
        TensorDescriptor.from_tensor(x_TI, [rows, depth]),
        TensorDescriptor.from_tensor(weight_GI, [2 * GATE_ROWS, depth]),
        TensorDescriptor.from_tensor(o_TF, [rows, GATE_ROWS]),
        len(x_TI), len(weight_GI), x_TI.shape[1],
        ROWS=rows, GATE=GATE_ROWS, DEPTH=depth, GROUP=8, PROGRAMS=programs,
        INSTRUCTION=x_TI.is_cuda, num_warps=8, num_stages=3,
    )  # fmt: skip
    return o_TF


def interleaved(weight_GI: torch.Tensor) -> torch.Tensor:
    """(2F, I), F gate rows and F value rows, as blocks of GATE_ROWS gate and GATE_ROWS value rows in turn."""
    gate_FI, value_FI = (half.view(-1, GATE_ROWS, half.shape[1]) for half in weight_GI.chunk(2))
    return torch.stack([gate_FI, value_FI], dim=1).reshape(weight_GI.shape)


def separated(weight_GI: torch.Tensor) -> torch.Tensor:
    """The inverse of `interleaved`."""
    return weight_GI.view(-1, 2, GATE_ROWS, weight_GI.shape[1]).transpose(0, 1).reshape(weight_GI.shape)


def pool(x_TD: torch.Tensor, starts_B1: torch.Tensor, *, first: int, last: int, limit: int) -> torch.Tensor:
    """(B, D) float32: mean over each sequence's rows without `first` and `last`, at most `limit` of them."""
    width = x_TD.shape[1]
    o_BD = torch.empty(len(starts_B1) - 1, width, dtype=torch.float32, device=x_TD.device)
    _pool[(len(o_BD), triton.cdiv(width, 256))](
        x_TD, starts_B1, o_BD, first, last, limit, width, ROWS=8, BLOCK=256, num_warps=4
    )
    return o_BD


def _columns(x_TD: torch.Tensor) -> dict[str, int]:
    width = x_TD.shape[1]
    low = triton.next_power_of_2(width) // 2
    return {"D": width, "LOW": low, "HIGH": triton.next_power_of_2(width - low)}


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    """Programs of a persistent kernel: one for each multiprocessor; two where Triton interprets."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2
