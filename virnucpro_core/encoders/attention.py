"""Computes attention over packed sequences with a kernel chosen by name; (T, H, K) in and out.

Tokens attend only to tokens of their own sequence. If the chosen kernel cannot do the job, that is an error; no other
kernel is used instead.

Shapes: T tokens of a batch, H heads, K head size, L tokens of one sequence, P positions of a table.
"""

import functools
import importlib.util

import torch
import torch.nn.functional as F

from virnucpro_core.encoders.heads import Heads, Rotary
from virnucpro_core.encoders.packing import PackedBatch
from virnucpro_core.errors import DeviceError

LONE = 64
KERNELS = ("reference", "triton", "torch-varlen", "flash-attn")


@functools.cache
def usable_kernels() -> dict[str, str]:
    """Kernel name -> "" if it can be used on this machine, else the reason why not."""
    no_cuda = "" if torch.cuda.is_available() else "needs a CUDA device"
    reasons = {"reference": "", "triton": no_cuda, "torch-varlen": no_cuda, "flash-attn": no_cuda}
    if importlib.util.find_spec("triton") is None:
        reasons["triton"] = "triton is not installed"
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        reasons["torch-varlen"] = "needs torch 2.10 or newer"
    if importlib.util.find_spec("flash_attn") is None:
        reasons["flash-attn"] = "flash-attn is not installed (pip install 'virnucpro[flash-attn]')"
    return reasons


def require_kernel(kernel: str, device: torch.device, *, alibi: bool) -> None:
    """Raise DeviceError unless `kernel` can run on `device` (with ALiBi slopes where `alibi`)."""
    remedy = "`virnucpro doctor` lists the usable kernels; the CPU has 'reference'"
    if kernel not in KERNELS:
        raise DeviceError(
            f"no attention kernel is named {kernel!r}", remedy=f"choose of {', '.join(KERNELS)}"
        )
    reason = usable_kernels()[kernel]
    if not reason and kernel != "reference" and device.type != "cuda":
        reason = f"it does not run on {device.type}"
    if not reason and alibi and kernel == "torch-varlen":
        reason = "it has no ALiBi bias, which DNABERT-S needs"
    if reason:
        raise DeviceError(f"attention kernel {kernel!r} cannot be used: {reason}", remedy=remedy)


def attend(
    q_THK: torch.Tensor,
    k_THK: torch.Tensor,
    v_THK: torch.Tensor,
    batch: PackedBatch,
    heads: Heads,
    *,
    kernel: str,
) -> torch.Tensor:
    """softmax(scale * rotated(q) rotated(k)^T - ALiBi) v within each sequence of `batch`: (T, H, K).

    q, k and v may be strided views of one (T, 3, H, K) tensor; the result is contiguous and has their dtype.
    Raises DeviceError for an unknown or absent kernel.
    """
    require_kernel(kernel, q_THK.device, alibi=heads.slopes_H is not None)
    return _ATTEND[kernel](q_THK, k_THK, v_THK, batch, heads)


def _rotate(x_THK: torch.Tensor, batch: PackedBatch, rotary: Rotary) -> torch.Tensor:
    """Rotary positions applied in float32, returned in the dtype of x."""
    cos_PK, sin_PK = rotary.tables(batch.max_length)
    rows_T = torch.arange(batch.n_tokens, device=x_THK.device, dtype=torch.int32)
    position_T = rows_T - batch.first_T
    cos_T1K, sin_T1K = cos_PK[position_T].unsqueeze(1), sin_PK[position_T].unsqueeze(1)
    low, high = x_THK.float().chunk(2, dim=-1)
    rotated = torch.cat([low * cos_T1K - high * sin_T1K, high * cos_T1K + low * sin_T1K], dim=-1)
    return rotated.to(x_THK.dtype)


def _reference(
    q_THK: torch.Tensor, k_THK: torch.Tensor, v_THK: torch.Tensor, batch: PackedBatch, heads: Heads
) -> torch.Tensor:
    """Sequences of equal length are one dense call; nothing is padded or masked.

    A short sequence whose length is unique is computed twice in one call. For a single sequence, torch on the
    CPU adds in another order (seen up to 10 tokens), so its bits would depend on the other sequences of the batch.
    """
    if heads.rotary is not None:
        q_THK, k_THK = (_rotate(x, batch, heads.rotary) for x in (q_THK, k_THK))
    o_THK = torch.empty(q_THK.shape, dtype=q_THK.dtype, device=q_THK.device)
    for row, count, length in batch.equal_lengths():
        rows = slice(row, row + count * length)
        q, k, v = (
            x[rows].view(count, length, heads.count, heads.size).transpose(1, 2)
            for x in (q_THK, k_THK, v_THK)
        )  # (n, H, L, K)
        bias_HLL = None
        if heads.slopes_H is not None:
            place_L = torch.arange(length, device=q.device)
            distance_LL = (place_L[:, None] - place_L[None, :]).abs()
            bias_HLL = (-heads.slopes_H[:, None, None] * distance_LL).to(q.dtype)
        if count == 1 and length < LONE:
            q, k, v = (x.expand(2, -1, -1, -1) for x in (q, k, v))
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=bias_HLL, scale=heads.scale)
        o_THK[rows] = o[:count].transpose(1, 2).flatten(0, 1)
    return o_THK


def _triton(
    q_THK: torch.Tensor, k_THK: torch.Tensor, v_THK: torch.Tensor, batch: PackedBatch, heads: Heads
) -> torch.Tensor:
    """Own kernels, positions inside; see kernels.attend."""
    from virnucpro_core.encoders import kernels  # noqa: PLC0415 (triton is not everywhere)

    return kernels.attend(q_THK, k_THK, v_THK, batch, heads)


def _torch_varlen(
    q_THK: torch.Tensor, k_THK: torch.Tensor, v_THK: torch.Tensor, batch: PackedBatch, heads: Heads
) -> torch.Tensor:
    """torch.nn.attention.varlen (FlashAttention inside torch); half precision."""
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 (torch 2.10)

    if heads.rotary is not None:
        q_THK, k_THK = (_rotate(x, batch, heads.rotary) for x in (q_THK, k_THK))
    starts, longest = batch.starts_B1, batch.max_length
    o_THK = varlen_attn(q_THK, k_THK, v_THK, starts, starts, longest, longest, scale=heads.scale)
    assert isinstance(o_THK, torch.Tensor)
    return o_THK


def _flash_attn(
    q_THK: torch.Tensor, k_THK: torch.Tensor, v_THK: torch.Tensor, batch: PackedBatch, heads: Heads
) -> torch.Tensor:
    """The flash-attn package; half precision. Its ALiBi is -slope * |i - j|, as here."""
    from flash_attn import flash_attn_varlen_func  # noqa: PLC0415 (optional)

    if heads.rotary is not None:
        q_THK, k_THK = (_rotate(x, batch, heads.rotary) for x in (q_THK, k_THK))
    starts, longest = batch.starts_B1, batch.max_length
    o_THK: torch.Tensor = flash_attn_varlen_func(
        q_THK,
        k_THK,
        v_THK,
        starts,
        starts,
        longest,
        longest,
        softmax_scale=heads.scale,
        alibi_slopes=heads.slopes_H,
    )
    return o_THK


_ATTEND = {
    "reference": _reference,
    "triton": _triton,
    "torch-varlen": _torch_varlen,
    "flash-attn": _flash_attn,
}
