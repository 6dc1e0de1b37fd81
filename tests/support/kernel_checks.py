"""Each kernel against the reference operations: checks for a GPU and for Triton's interpreter."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from virnucpro_core.encoders import kernels
from virnucpro_core.encoders.attention import attend
from virnucpro_core.encoders.heads import Heads, Rotary, alibi_slopes
from virnucpro_core.encoders.operations import Norm, ReferenceOperations, Window
from virnucpro_core.encoders.packing import PackedBatch, pack

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


def check_attention_in_e4m3(device: torch.device, lengths: list[int]) -> None:
    """Within e4m3's rounding of the half-precision result, and NaN, never a clipped value, where it saturates.

    Triton's interpreter has no NaN in e4m3: that half is the GPU's.
    """
    heads, batch = Heads(2, 64, Rotary(64, device)), packed(lengths, device)
    qkv = random(batch.n_tokens, 3, 2, 64, device=device).to(HALF)
    expected = attend(*qkv.float().unbind(1), batch, heads, kernel="reference")
    found = kernels.attend(*qkv.clone().unbind(1), batch, replace(heads, e4m3_scale=16.0))
    assert found.dtype == torch.float8_e4m3fn
    assert relative(found.float() / 16, expected) < _e4m3_error(device)
    if device.type != "cuda":
        return
    saturated = kernels.attend(*qkv.clone().unbind(1), batch, replace(heads, e4m3_scale=2.0**11)).float()
    over = (expected * 2.0**11).abs() > 500
    assert over.any()
    assert torch.isnan(saturated[over]).all()
    assert torch.isfinite(saturated[(expected * 2.0**11).abs() < 400]).all()


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
        expected = REFERENCE.norm(x_TD, Norm(weight_D, bias_D, eps, offset))
        assert relative(found, expected) < 1e-3
        small = kernels.norm(x_TD, weight_D, bias_D, eps, offset, e4m3_scale=16.0)
        assert small.dtype == torch.float8_e4m3fn
        assert relative(small.float() / 16, expected) < _e4m3_error(device)


def check_pool(device: torch.device, lengths: list[int], width: int, window: Window) -> None:
    batch = packed(lengths, device)
    x_TD = random(batch.n_tokens, width, device=device).to(HALF)
    limit = 2**30 if window.limit is None else window.limit
    found = kernels.pool(x_TD, batch.starts_B1, first=window.first, last=window.last, limit=limit)
    expected = REFERENCE.pool(x_TD.float(), batch, window, None)
    assert found.dtype == torch.float32
    assert relative(found, expected) < 1e-6


def _e4m3_error(device: torch.device) -> float:
    """3 mantissa bits round to 2.6 % in all; Triton's interpreter cuts off instead of rounding."""
    return 0.03 if device.type == "cuda" else 0.1


def check_product(rows: int, outputs: int, inputs: int) -> None:
    """cuBLASLt's products in float16: bias, GELU, and added to what is there; on a GPU alone."""
    cuda = torch.device("cuda")
    x_TI = random(rows, inputs, device=cuda).to(HALF)
    weight_OI = random(outputs, inputs, device=cuda, scale=inputs**-0.5).to(HALF)
    bias_O = random(outputs, device=cuda).to(HALF)
    o_TO = random(rows, outputs, device=cuda).to(HALF)
    expected = x_TI.float() @ weight_OI.float().t()
    found = kernels.product(x_TI, weight_OI, torch.full_like(o_TO, torch.nan), bias_O=bias_O)
    assert relative(found, expected + bias_O.float()) < 1e-3
    found = kernels.product(x_TI, weight_OI, torch.full_like(o_TO, torch.nan), bias_O=bias_O, gelu=True)
    assert relative(found, F.gelu(expected + bias_O.float())) < 1e-3
    assert relative(kernels.product(x_TI, weight_OI, o_TO.clone(), add=True), o_TO.float() + expected) < 1e-3


def check_product_in_e4m3(rows: int, outputs: int, inputs: int) -> None:
    """The same from e4m3 operands; GELU in e4m3 too. NaN is handed on; a row never sees its neighbours."""
    cuda, small = torch.device("cuda"), torch.float8_e4m3fn
    x_TI = (8 * random(rows, inputs, device=cuda)).to(small)
    weight_OI = (16 * random(outputs, inputs, device=cuda)).to(small)
    scale_1 = torch.full((1,), inputs**-0.5 / 128, device=cuda)
    eight_1 = torch.full((1,), 8.0, device=cuda)
    bias_O = random(outputs, device=cuda).to(HALF)
    o_TO = random(rows, outputs, device=cuda).to(HALF)
    expected = x_TI.float() @ weight_OI.float().t() * scale_1
    found = kernels.product(
        x_TI, weight_OI, torch.full_like(o_TO, torch.nan), bias_O=bias_O, scales=(scale_1, None)
    )
    assert relative(found, expected + bias_O.float()) < 5e-3
    found = kernels.product(x_TI, weight_OI, o_TO.clone(), add=True, scales=(scale_1, None))
    assert relative(found, o_TO.float() + expected) < 5e-3

    def gelu(x_TI: torch.Tensor) -> torch.Tensor:
        o8_TO = torch.empty(rows, outputs, dtype=small, device=cuda)
        scales = (scale_1, eight_1)
        return kernels.product(x_TI, weight_OI, o8_TO, bias_O=bias_O, gelu=True, scales=scales).float()

    assert relative(gelu(x_TI) / 8, F.gelu(expected + bias_O.float())) < 0.03
    changed = x_TI.float()
    changed[0] = torch.nan
    before, after = gelu(x_TI), gelu(changed.to(small))
    assert torch.isnan(after[0]).all()
    assert torch.equal(before[1:], after[1:])


def check_gated_gelu(device: torch.device, rows: int, width: int, inputs: int) -> None:
    x_TI = random(rows, inputs, device=device).to(HALF)
    weight_GI = random(2 * width, inputs, device=device, scale=2 * inputs**-0.5).to(HALF)
    gate, value = (x_TI.float() @ weight_GI.float().t()).chunk(2, dim=1)
    found = kernels.gated_gelu(x_TI, kernels.interleaved(weight_GI))
    assert relative(found, F.gelu(gate) * value) < 1e-3
    assert torch.equal(kernels.separated(kernels.interleaved(weight_GI)), weight_GI)
