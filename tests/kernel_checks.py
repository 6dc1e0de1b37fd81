"""Each kernel against the reference operations: checks for a GPU and for Triton's interpreter."""

import numpy as np
import torch

from virnucpro_core import kernels
from virnucpro_core.attention import Heads, Rotary, alibi_slopes, attend
from virnucpro_core.encoders.operations import Norm, ReferenceOperations, Window
from virnucpro_core.packing import PackedBatch, pack

REFERENCE = ReferenceOperations(torch.float32)
HALF = torch.float16


def packed(lengths: list[int], device: torch.device) -> PackedBatch:
    lengths_B = np.array(lengths, dtype=np.int32)
    (batch,) = pack(np.zeros(lengths_B.sum(), dtype=np.int32), lengths_B, int(lengths_B.sum()))
    return batch.to(device)


def random(*shape: int, device: torch.device, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return (torch.randn(shape, generator=generator) * scale).to(device)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """L2 distance over L2 norm; a NaN or an unwritten value does not pass."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def check_attention(device: torch.device, lengths: list[int], size: int, count: int, position: str) -> None:
    rotary = Rotary(size, device) if position == "rotary" else None
    slopes_H = torch.tensor(alibi_slopes(count), device=device) if position == "alibi" else None
    heads, batch = Heads(count, size, rotary, slopes_H), packed(lengths, device)
    qkv = random(batch.n_tokens, 3, count, size, device=device).to(HALF)
    expected = attend(*qkv.float().unbind(1), batch, heads, kernel="reference")
    found = kernels.attend(*qkv.unbind(1), batch, heads)
    assert found.dtype == HALF
    assert found.is_contiguous()
    assert relative(found, expected) < 1e-3


def check_neighbours(device: torch.device, lengths: list[int]) -> None:
    """Changing one sequence leaves the others' rows bit-equal."""
    heads, batch = Heads(2, 64, Rotary(64, device)), packed(lengths, device)
    starts = batch.starts_B1.tolist()
    qkv = random(batch.n_tokens, 3, 2, 64, device=device).to(HALF)
    changed = qkv.clone()
    changed[starts[1] : starts[2]] = 7.0
    before, after = (kernels.attend(*x.unbind(1), batch, heads) for x in (qkv, changed))
    same = torch.ones(batch.n_tokens, dtype=torch.bool)
    same[starts[1] : starts[2]] = False
    assert torch.equal(before[same], after[same])
    assert not torch.equal(before[~same], after[~same])


def check_norm(device: torch.device, rows: int, width: int, eps: float) -> None:
    weight_D, bias_D, offset_D = (random(width, device=device) for _ in range(3))
    x_TD = (random(rows, width, device=device, scale=3.0) + 2).to(HALF)
    for offset in (None, offset_D):
        found = kernels.norm(x_TD, weight_D, bias_D, eps, offset)
        assert relative(found, REFERENCE.norm(x_TD, Norm(weight_D, bias_D, eps, offset))) < 1e-3


def check_activations(device: torch.device, rows: int, width: int) -> None:
    x_TG = random(rows, 2 * width, device=device, scale=3.0).to(HALF)
    assert relative(kernels.gated_gelu(x_TG), REFERENCE.gated_gelu(x_TG.float())) < 1e-3
    expected = REFERENCE.gelu(x_TG.float())
    assert relative(kernels.gelu(x_TG), expected) < 1e-3


def check_pool(device: torch.device, lengths: list[int], width: int, window: Window) -> None:
    batch = packed(lengths, device)
    x_TD = random(batch.n_tokens, width, device=device).to(HALF)
    limit = 2**30 if window.limit is None else window.limit
    found = kernels.pool(x_TD, batch.starts_B1, first=window.first, last=window.last, limit=limit)
    expected = REFERENCE.pool(x_TD.float(), batch, window)
    assert found.dtype == torch.float32
    assert relative(found, expected) < 1e-6
