"""Triton kernels of the fused encoders: attention, LayerNorm, GELU, quantisation, pooling; knows no model.

Half-precision tensors in and out, float32 inside. Each launcher is tested against the reference operations,
on a GPU and under Triton's interpreter. No autotuning: the constants were measured.

Shapes: T tokens of a batch, B sequences, D width, F feed-forward width, H heads, K head size, P positions.
"""

# ruff: noqa: PLR0913, PLR0917 (the arguments of a kernel are its pointers, sizes and tile constants)
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import functools

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from virnucpro_core.attention import Heads
from virnucpro_core.packing import CUT_TILE, MIDDLE_TILE, SHORT_TILE, PackedBatch

LOG2_E = tl.constexpr(1.4426950408889634)  # softmax is computed with powers of two
E4M3_MAX = tl.constexpr(448.0)
TINY = tl.constexpr(1e-8)  # keeps the scale of a row of zeros positive
GATE_ROWS = 128  # of the gate, then of the value, in an interleaved weight
NEVER = tl.constexpr(-1e30)  # a score that no softmax sees; not infinite, so that empty rows stay finite


@triton.jit
def _attend_whole(
    q, k, v, o, tiles, first, cos, sin, slopes, scale, stride,
    HEADS: tl.constexpr, SIZE: tl.constexpr, HALF: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr,
    ROTARY: tl.constexpr, ALIBI: tl.constexpr,
):  # fmt: skip
    """One head of one tile of whole sequences: its keys are its rows, so there is no loop over keys."""
    tile = tl.program_id(0) // HEADS
    head = tl.program_id(0) % HEADS
    low = tl.load(tiles + 2 * tile)
    high = tl.load(tiles + 2 * tile + 1)
    row = low + tl.arange(0, ROWS)
    inside = row < high
    start = tl.load(first + row, mask=inside, other=-1)
    half = tl.arange(0, HALF)
    part = inside[:, None] & (half < SIZE // 2)[None, :]
    at = row.to(tl.int64)[:, None] * stride + head * SIZE + half[None, :]
    q1 = tl.load(q + at, mask=part, other=0.0).to(tl.float32)
    q2 = tl.load(q + at + SIZE // 2, mask=part, other=0.0).to(tl.float32)
    k1 = tl.load(k + at, mask=part, other=0.0).to(tl.float32)
    k2 = tl.load(k + at + SIZE // 2, mask=part, other=0.0).to(tl.float32)
    wide = tl.arange(0, WIDE)
    whole = inside[:, None] & (wide < SIZE)[None, :]
    values = tl.load(
        v + row.to(tl.int64)[:, None] * stride + head * SIZE + wide[None, :], mask=whole, other=0.0
    )
    if ROTARY:
        place = (row - start)[:, None] * (SIZE // 2) + half[None, :]
        c = tl.load(cos + place, mask=part, other=0.0)
        s = tl.load(sin + place, mask=part, other=0.0)
        q1, q2 = q1 * c - q2 * s, q2 * c + q1 * s
        k1, k2 = k1 * c - k2 * s, k2 * c + k1 * s
    dtype = q.dtype.element_ty
    scores = tl.dot((q1 * (scale * LOG2_E)).to(dtype), tl.trans(k1.to(dtype)))
    scores = tl.dot((q2 * (scale * LOG2_E)).to(dtype), tl.trans(k2.to(dtype)), scores)
    if ALIBI:
        distance = tl.abs((row[:, None] - row[None, :]).to(tl.float32))
        scores = scores - tl.load(slopes + head) * LOG2_E * distance
    scores = tl.where(start[:, None] == start[None, :], scores, NEVER)
    weights = tl.exp2(scores - tl.max(scores, 1)[:, None])
    mean = tl.dot(weights.to(dtype), values) / tl.sum(weights, 1)[:, None]
    target = o + row.to(tl.int64)[:, None] * (HEADS * SIZE) + head * SIZE + wide[None, :]
    tl.store(target, mean.to(dtype), mask=whole)


@triton.jit
def _attend_cut(
    q, k, v, o, tiles, slopes, scale, stride,
    HEADS: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    ALIBI: tl.constexpr,
):  # fmt: skip
    """One head of ROWS queries of one long sequence, over all its keys (online softmax); q, k are rotated."""
    tile = tl.program_id(0) // HEADS
    head = tl.program_id(0) % HEADS
    low = tl.load(tiles + 4 * tile)
    high = tl.load(tiles + 4 * tile + 1)
    begin = tl.load(tiles + 4 * tile + 2)
    end = tl.load(tiles + 4 * tile + 3)
    row = low + tl.arange(0, ROWS)
    wide = tl.arange(0, WIDE)
    whole = (row < high)[:, None]
    if WIDE != SIZE:
        whole = whole & (wide < SIZE)[None, :]
    dtype = q.dtype.element_ty
    at = row.to(tl.int64)[:, None] * stride + head * SIZE + wide[None, :]
    queries = (tl.load(q + at, mask=whole, other=0.0).to(tl.float32) * (scale * LOG2_E)).to(dtype)
    top = tl.full((ROWS,), NEVER, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mean = tl.zeros((ROWS, WIDE), tl.float32)
    if ALIBI:
        slope = tl.load(slopes + head) * LOG2_E
    for block in range(begin, end, KEYS):
        key = block + tl.arange(0, KEYS)
        valid = (key < end)[:, None]
        if WIDE != SIZE:
            valid = valid & (wide < SIZE)[None, :]
        there = key.to(tl.int64)[:, None] * stride + head * SIZE + wide[None, :]
        keys = tl.load(k + there, mask=valid, other=0.0)
        scores = tl.dot(queries, tl.trans(keys))
        if ALIBI:
            scores = scores - slope * tl.abs((row[:, None] - key[None, :]).to(tl.float32))
        scores = tl.where((key < end)[None, :], scores, NEVER)
        higher = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(weights, 1)
        values = tl.load(v + there, mask=valid, other=0.0)
        mean = tl.dot(weights.to(dtype), values, mean * shrink[:, None])
        top = higher
    target = o + row.to(tl.int64)[:, None] * (HEADS * SIZE) + head * SIZE + wide[None, :]
    tl.store(target, (mean / total[:, None]).to(dtype), mask=whole)


@triton.jit
def _rotate(
    q, k, first, cos, sin, rows, stride,
    SIZE: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Rotary positions of one head of ROWS rows of q and k, in place."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    half = tl.arange(0, HALF)
    part = (row < rows)[:, None] & (half < SIZE // 2)[None, :]
    start = tl.load(first + row, mask=row < rows, other=0)
    place = (row - start)[:, None] * (SIZE // 2) + half[None, :]
    c = tl.load(cos + place, mask=part, other=0.0)
    s = tl.load(sin + place, mask=part, other=0.0)
    at = row.to(tl.int64)[:, None] * stride + tl.program_id(1) * SIZE + half[None, :]
    dtype = q.dtype.element_ty
    for x in tl.static_range(2):
        p = q if x == 0 else k
        x1 = tl.load(p + at, mask=part, other=0.0).to(tl.float32)
        x2 = tl.load(p + at + SIZE // 2, mask=part, other=0.0).to(tl.float32)
        tl.store(p + at, (x1 * c - x2 * s).to(dtype), mask=part)
        tl.store(p + at + SIZE // 2, (x2 * c + x1 * s).to(dtype), mask=part)


@triton.jit
def _erf_gelu(x):
    """x * Phi(x), erf by Abramowitz & Stegun 7.1.26 (absolute error 1.5e-7)."""
    z = tl.abs(x) * 0.7071067811865476
    t = 1.0 / (1.0 + 0.3275911 * z)
    p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    tail = 0.5 * p * tl.exp2(-z * z * LOG2_E)
    return x * tl.where(x >= 0, 1.0 - tail, tail)


@triton.jit
def _norm(
    x, y, offset, weight, bias, o, scales, eps,
    D: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr,
    SUM: tl.constexpr, OFFSET: tl.constexpr, QUANTISE: tl.constexpr,
):  # fmt: skip
    """LayerNorm of one row, read once: D columns as LOW + HIGH, powers of two (masked beyond D).

    SUM: y is added to x first, and stored there. QUANTISE: e4m3 with the row's own scale.
    """
    row = tl.program_id(0).to(tl.int64) * D
    i = tl.arange(0, LOW)
    j = LOW + tl.arange(0, HIGH)
    there = j < D
    a = tl.load(x + row + i).to(tl.float32)
    b = tl.load(x + row + j, mask=there, other=0.0).to(tl.float32)
    if SUM:
        a += tl.load(y + row + i).to(tl.float32)
        b += tl.load(y + row + j, mask=there, other=0.0).to(tl.float32)
        tl.store(x + row + i, a.to(x.dtype.element_ty))
        tl.store(x + row + j, b.to(x.dtype.element_ty), mask=there)
    if OFFSET:
        a += tl.load(offset + i)
        b += tl.load(offset + j, mask=there, other=0.0)
    mean = (tl.sum(a, 0) + tl.sum(b, 0)) / D
    a -= mean
    b = tl.where(there, b - mean, 0.0)
    rate = tl.rsqrt((tl.sum(a * a, 0) + tl.sum(b * b, 0)) / D + eps)
    a = a * rate * tl.load(weight + i) + tl.load(bias + i)
    b = b * rate * tl.load(weight + j, mask=there, other=0.0) + tl.load(bias + j, mask=there, other=0.0)
    if QUANTISE:
        top = tl.maximum(tl.maximum(tl.max(tl.abs(a), 0), tl.max(tl.abs(b), 0)), TINY)
        tl.store(scales + tl.program_id(0), top / E4M3_MAX)
        a *= E4M3_MAX / top
        b *= E4M3_MAX / top
    tl.store(o + row + i, a.to(o.dtype.element_ty))
    tl.store(o + row + j, b.to(o.dtype.element_ty), mask=there)


@triton.jit
def _quantise(x, o, scales, D: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, GELU: tl.constexpr):
    """One row to e4m3 with its own scale, after erf GELU where GELU; columns as in `_norm`."""
    row = tl.program_id(0).to(tl.int64) * D
    i = tl.arange(0, LOW)
    j = LOW + tl.arange(0, HIGH)
    a = tl.load(x + row + i).to(tl.float32)
    b = tl.load(x + row + j, mask=j < D, other=0.0).to(tl.float32)
    if GELU:
        a = _erf_gelu(a)
        b = _erf_gelu(b)
    top = tl.maximum(tl.maximum(tl.max(tl.abs(a), 0), tl.max(tl.abs(b), 0)), TINY)
    tl.store(scales + tl.program_id(0), top / E4M3_MAX)
    tl.store(o + row + i, (a * (E4M3_MAX / top)).to(o.dtype.element_ty))
    tl.store(o + row + j, (b * (E4M3_MAX / top)).to(o.dtype.element_ty), mask=j < D)


@triton.jit
def _gelu(x, count, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + i, mask=i < count, other=0.0).to(tl.float32)
    tl.store(x + i, _erf_gelu(value).to(x.dtype.element_ty), mask=i < count)


@triton.jit
def _gated_gelu(
    x, weight, o, T, G, inputs,
    ROWS: tl.constexpr, GATE: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr, PROGRAMS: tl.constexpr,
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
        o.store([r, c], (_erf_gelu(gate) * value).to(o.dtype))


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


def attend(
    q_THK: torch.Tensor, k_THK: torch.Tensor, v_THK: torch.Tensor, batch: PackedBatch, heads: Heads
) -> torch.Tensor:
    """Packed attention (T, H, K), positions included, one launch for each class of lengths in the batch.

    q, k, v: half precision, views with rows of H*K neighbours and one common row stride. q and k of sequences
    above MIDDLE_TILE tokens are overwritten by their rotation. slopes_H and the rotary tables are float32.
    """
    o_THK = torch.empty(q_THK.shape, dtype=q_THK.dtype, device=q_THK.device)
    wide = max(16, triton.next_power_of_2(heads.size))
    half = max(16, triton.next_power_of_2(heads.size // 2))
    slopes = q_THK if heads.slopes_H is None else heads.slopes_H  # a pointer that is not read
    cos, sin = (q_THK, q_THK) if heads.rotary is None else heads.rotary.tables(batch.max_length)
    alibi, stride = heads.slopes_H is not None, q_THK.stride(0)
    for tiles, rows, warps in ((batch.short_N2, SHORT_TILE, 4), (batch.middle_N2, MIDDLE_TILE, 8)):
        if len(tiles):
            _attend_whole[(len(tiles) * heads.count,)](
                q_THK, k_THK, v_THK, o_THK, tiles, batch.first_T, cos, sin, slopes, heads.scale, stride,
                HEADS=heads.count, SIZE=heads.size, HALF=half, WIDE=wide, ROWS=rows,
                ROTARY=heads.rotary is not None, ALIBI=alibi, num_warps=warps, num_stages=1,
            )  # fmt: skip
    if len(batch.long_N4):
        if heads.rotary is not None:
            rotate(q_THK, k_THK, batch, heads, rows=batch.n_long_tokens)
        _attend_cut[(len(batch.long_N4) * heads.count,)](
            q_THK, k_THK, v_THK, o_THK, batch.long_N4, slopes, heads.scale, stride,
            HEADS=heads.count, SIZE=heads.size, WIDE=wide, ROWS=CUT_TILE, KEYS=64, ALIBI=alibi,
            num_warps=4, num_stages=3,
        )  # fmt: skip
    return o_THK


def rotate(q_THK: torch.Tensor, k_THK: torch.Tensor, batch: PackedBatch, heads: Heads, *, rows: int) -> None:
    """Rotary positions of the first `rows` tokens of q and k, in place."""
    assert heads.rotary is not None
    cos_PK, sin_PK = heads.rotary.tables(batch.max_length)
    half = triton.next_power_of_2(heads.size // 2)
    _rotate[(triton.cdiv(rows, 64), heads.count)](
        q_THK, k_THK, batch.first_T, cos_PK, sin_PK, rows, q_THK.stride(0),
        SIZE=heads.size, HALF=half, ROWS=64, num_warps=4,
    )  # fmt: skip


def norm(
    x_TD: torch.Tensor,
    weight_D: torch.Tensor,
    bias_D: torch.Tensor,
    eps: float,
    offset_D: torch.Tensor | None = None,
) -> torch.Tensor:
    """LayerNorm(x + offset) (T, D) in the dtype of x; weight, bias and offset are float32."""
    o_TD = torch.empty_like(x_TD)
    _norm[(len(x_TD),)](
        x_TD, x_TD, weight_D if offset_D is None else offset_D, weight_D, bias_D, o_TD, o_TD, eps,
        **_columns(x_TD), SUM=False, OFFSET=offset_D is not None, QUANTISE=False,
        num_warps=1 if x_TD.shape[1] < 1024 else 4,
    )  # fmt: skip
    return o_TD


def norm_quantised(
    x_TD: torch.Tensor,
    y_TD: torch.Tensor | None,
    weight_D: torch.Tensor,
    bias_D: torch.Tensor,
    eps: float,
    offset_D: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """x += y in place, then LayerNorm(x + offset) as (T, D) e4m3 and scales (T, 1) float32."""
    o_TD = torch.empty(x_TD.shape, dtype=torch.float8_e4m3fn, device=x_TD.device)
    scales_T1 = torch.empty(len(x_TD), 1, dtype=torch.float32, device=x_TD.device)
    _norm[(len(x_TD),)](
        x_TD, x_TD if y_TD is None else y_TD, offset_D, weight_D, bias_D, o_TD, scales_T1, eps,
        **_columns(x_TD), SUM=y_TD is not None, OFFSET=True, QUANTISE=True, num_warps=8,
    )  # fmt: skip
    return o_TD, scales_T1


def quantised(x_TI: torch.Tensor, *, gelu: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(T, I) e4m3 and scales (T, 1) float32, one scale a row; erf GELU first where `gelu`."""
    o_TI = torch.empty(x_TI.shape, dtype=torch.float8_e4m3fn, device=x_TI.device)
    scales_T1 = torch.empty(len(x_TI), 1, dtype=torch.float32, device=x_TI.device)
    _quantise[(len(x_TI),)](x_TI, o_TI, scales_T1, **_columns(x_TI), GELU=gelu, num_warps=8)
    return o_TI, scales_T1


def gelu(x_TF: torch.Tensor) -> torch.Tensor:
    """erf GELU in place, x contiguous."""
    _gelu[(triton.cdiv(x_TF.numel(), 4096),)](x_TF, x_TF.numel(), BLOCK=4096, num_warps=8)
    return x_TF


def gated_gelu(x_TI: torch.Tensor, weight_GI: torch.Tensor) -> torch.Tensor:
    """gelu(x Wg^T) * (x Wv^T) (T, F), half precision; weight_GI (2F, I) `interleaved`, I a multiple of 8."""
    o_TF = torch.empty(len(x_TI), len(weight_GI) // 2, dtype=x_TI.dtype, device=x_TI.device)
    rows, depth, programs = 128, 64, _multiprocessors(x_TI.device)
    _gated_gelu[(programs,)](
        TensorDescriptor.from_tensor(x_TI, [rows, depth]),
        TensorDescriptor.from_tensor(weight_GI, [2 * GATE_ROWS, depth]),
        TensorDescriptor.from_tensor(o_TF, [rows, GATE_ROWS]),
        len(x_TI), len(weight_GI), x_TI.shape[1],
        ROWS=rows, GATE=GATE_ROWS, DEPTH=depth, GROUP=8, PROGRAMS=programs, num_warps=8, num_stages=3,
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
