"""Triton kernels of packed attention: whole sequences in one tile, longer ones over a loop of keys.

Half-precision tensors in, the same or e4m3 out, float32 scores and sums.

Shapes: T tokens of a batch, H heads, K head size.
"""

# ruff: noqa: PLR0913, PLR0917 (the arguments of a kernel are its pointers, sizes and tile constants)
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import functools

import torch
import triton
import triton.language as tl

from virnucpro_core.encoders.heads import Heads
from virnucpro_core.encoders.packing import CUT_TILE, MIDDLE_TILE, SHORT_TILE, PackedBatch

LOG2_E = tl.constexpr(1.4426950408889634)  # softmax is computed with powers of two
E4M3_MAX = tl.constexpr(448.0)
NEVER = tl.constexpr(-1e30)  # a score that no softmax sees; not infinite, so that empty rows stay finite


@triton.jit
def _stored(mean, o, scale, E4M3: tl.constexpr):
    """The output in the type of o: e4m3 of scale * mean, NaN where that would saturate, or half precision."""
    if E4M3:
        mean *= scale
        mean = tl.where(tl.abs(mean) > E4M3_MAX, float("nan"), mean)
    return mean.to(o.dtype.element_ty)


@triton.jit
def _attend_whole(
    q, k, v, o, tiles, first, cos, sin, slopes, scale, o_scale, stride,
    HEADS: tl.constexpr, SIZE: tl.constexpr, HALF: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr,
    ROTARY: tl.constexpr, ALIBI: tl.constexpr, E4M3: tl.constexpr,
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
    tl.store(target, _stored(mean, o, o_scale, E4M3), mask=whole)


@triton.jit
def _attend_cut(
    q, k, v, o, tiles, slopes, scale, o_scale, stride,
    HEADS: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    ALIBI: tl.constexpr, E4M3: tl.constexpr,
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
    tl.store(target, _stored(mean / total[:, None], o, o_scale, E4M3), mask=whole)


@triton.jit(do_not_specialize=["rows"])
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


def attend(
    q_THK: torch.Tensor, k_THK: torch.Tensor, v_THK: torch.Tensor, batch: PackedBatch, heads: Heads
) -> torch.Tensor:
    """Packed attention (T, H, K), positions included, one launch for each class of lengths in the batch.

    q, k, v: half precision, views with rows of H*K neighbours and one common row stride. q and k of sequences
    above MIDDLE_TILE tokens are overwritten by their rotation. slopes_H and the rotary tables are float32.
    The result has their dtype, or is e4m3 and times heads.e4m3_scale where that is given.
    """
    e4m3 = heads.e4m3_scale is not None
    o_scale = heads.e4m3_scale if e4m3 else 1.0
    o_THK = torch.empty(q_THK.shape, dtype=torch.float8_e4m3fn if e4m3 else q_THK.dtype, device=q_THK.device)
    wide = max(16, triton.next_power_of_2(heads.size))
    half = max(16, triton.next_power_of_2(heads.size // 2))
    slopes = q_THK if heads.slopes_H is None else heads.slopes_H  # a pointer that is not read
    cos, sin = (q_THK, q_THK) if heads.rotary is None else heads.rotary.tables(batch.max_length)
    alibi, stride = heads.slopes_H is not None, q_THK.stride(0)
    most = 128 if heads.rotary is not None and heads.size <= 64 and _hopper(q_THK.device) else None
    for tiles, rows, warps, registers in (
        (batch.short_N2, SHORT_TILE, 4, None),
        (batch.middle_N2, MIDDLE_TILE, 8, most),
    ):
        if len(tiles):
            _attend_whole[(len(tiles) * heads.count,)](
                q_THK, k_THK, v_THK, o_THK, tiles, batch.first_T, cos, sin, slopes, heads.scale, o_scale, stride,
                HEADS=heads.count, SIZE=heads.size, HALF=half, WIDE=wide, ROWS=rows,
                ROTARY=heads.rotary is not None, ALIBI=alibi, E4M3=e4m3,
                num_warps=warps, num_stages=1, maxnreg=registers,
            )  # fmt: skip
    if len(batch.long_N4):
        if heads.rotary is not None:
            rotate(q_THK, k_THK, batch, heads, rows=batch.n_long_tokens)
        _attend_cut[(len(batch.long_N4) * heads.count,)](
            q_THK, k_THK, v_THK, o_THK, batch.long_N4, slopes, heads.scale, o_scale, stride,
            HEADS=heads.count, SIZE=heads.size, WIDE=wide, ROWS=CUT_TILE, KEYS=64, ALIBI=alibi, E4M3=e4m3,
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


@functools.cache
def _hopper(device: torch.device) -> bool:
    """Whether 128 registers a thread are enough for the wide tile; two programs then fit a multiprocessor.

    Measured with rotary positions and heads of 64. On older GPUs, and with ALiBi or wider heads, it would spill.
    """
    return device.type == "cuda" and torch.cuda.get_device_capability(device) == (9, 0)
