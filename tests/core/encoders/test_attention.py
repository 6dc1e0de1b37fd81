"""The attention seam: the reference kernel against a formula in float64, slopes, and refusals."""

import itertools
import math

import numpy as np
import pytest
import torch

from virnucpro_core.encoders.attention import KERNELS, attend, require_kernel, usable_kernels
from virnucpro_core.encoders.heads import Heads, Rotary, alibi_slopes
from virnucpro_core.encoders.packing import PackedBatch, pack
from virnucpro_core.errors import DeviceError

CPU = torch.device("cpu")


def _batch(lengths: list[int]) -> PackedBatch:
    lengths_B = np.array(lengths, dtype=np.int32)
    (batch,) = pack(np.zeros(lengths_B.sum(), dtype=np.int32), lengths_B, 10_000)
    return batch


def _formula(qkv_T3HK: torch.Tensor, batch: PackedBatch, heads: Heads) -> torch.Tensor:
    """One sequence, one head, one query at a time, in float64."""
    o_THK = torch.zeros(qkv_T3HK.shape[0], heads.count, heads.size, dtype=torch.float64)
    starts = batch.starts_B1.tolist()
    half = heads.size // 2
    for low, high in itertools.pairwise(starts):
        for h in range(heads.count):
            q, k, v = qkv_T3HK[low:high, :, h].double().unbind(1)
            place = torch.arange(high - low, dtype=torch.float64)
            if heads.rotary is not None:
                angle = place[:, None] * 10_000.0 ** (
                    -2 * torch.arange(half, dtype=torch.float64) / heads.size
                )
                turn = torch.polar(torch.ones_like(angle), angle)
                q, k = (torch.complex(x[:, :half], x[:, half:]) * turn for x in (q, k))
                q, k = (torch.cat([x.real, x.imag], dim=1) for x in (q, k))
            score = q @ k.T / math.sqrt(heads.size)
            if heads.slopes_H is not None:
                score -= heads.slopes_H[h].double() * (place[:, None] - place[None, :]).abs()
            o_THK[low:high, h] = score.softmax(-1) @ v
    return o_THK


@pytest.mark.parametrize("position", ["none", "rotary", "alibi"])
@pytest.mark.parametrize("size", [16, 24, 64])
def test_reference_kernel_is_the_formula(size: int, position: str) -> None:
    rotary = Rotary(size, CPU) if position == "rotary" else None
    slopes_H = torch.tensor(alibi_slopes(3)) if position == "alibi" else None
    heads, batch = Heads(3, size, rotary, slopes_H), _batch([1, 7, 7, 2, 130, 64])
    qkv = torch.randn(batch.n_tokens, 3, 3, size, generator=torch.Generator().manual_seed(0))
    o_THK = attend(*qkv.unbind(1), batch, heads, kernel="reference")
    expected = _formula(qkv, batch, heads)
    assert o_THK.is_contiguous()
    assert (o_THK - expected).norm() < 2e-6 * expected.norm()


def test_rotary_tables_grow_and_stay_float32() -> None:
    rotary = Rotary(64, CPU)
    cos_PK, sin_PK = rotary.tables(5_000)
    assert len(cos_PK) >= 5_000
    assert cos_PK.dtype == sin_PK.dtype == torch.float32
    assert torch.equal(Rotary(64, CPU).tables(10)[0], cos_PK[:1026])


def test_alibi_slopes_of_twelve_and_eight_heads() -> None:
    """The published values for 12 heads: 2^-1 .. 2^-8, then 2^-0.5, 2^-1.5, 2^-2.5, 2^-3.5."""
    exponents = [-1, -2, -3, -4, -5, -6, -7, -8, -0.5, -1.5, -2.5, -3.5]
    assert alibi_slopes(12) == pytest.approx([2**e for e in exponents])
    assert alibi_slopes(8) == pytest.approx([2**e for e in exponents[:8]])


def test_a_kernel_that_cannot_be_used_is_an_error_with_its_reason() -> None:
    reasons = usable_kernels()
    assert set(reasons) == set(KERNELS)
    assert reasons["reference"] == ""
    for name in KERNELS[1:]:
        with pytest.raises(DeviceError, match="doctor"):
            require_kernel(name, CPU, alibi=False)
    with pytest.raises(DeviceError, match="choose of"):
        require_kernel("fast", CPU, alibi=False)
