"""The operations of an encoder on a CUDA device: Triton kernels around cuBLAS products, float16 or fp8.

Shapes: T tokens of a batch, D width, F feed-forward width, H heads, K head size, O outputs, I inputs.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from virnucpro_core.encoders import kernels
from virnucpro_core.encoders.attention import attend
from virnucpro_core.encoders.heads import Heads
from virnucpro_core.encoders.operations import Linear, Norm, Window
from virnucpro_core.encoders.packing import PackedBatch
from virnucpro_core.errors import WeightsError

E4M3 = torch.float8_e4m3fn
E4M3_MAX = 448.0
E4M3_MARGIN = (1 + 2**-4) ** 2
TINY = 1e-8  # keeps a scale finite where all weights are zero
_NO_LIMIT = 2**30


@dataclass(frozen=True, slots=True)
class GatedLinear:
    """Gate and value rows interleaved as kernels.gated_gelu reads them."""

    weight_GI: torch.Tensor

    def float(self) -> Linear:
        """The weights in use, in float32 and in their own order."""
        return Linear(kernels.separated(self.weight_GI).float())


class FusedOperations:
    """The steps of `Operations` in float16 or bfloat16, attention by the kernel of that name."""

    def __init__(self, dtype: torch.dtype, attention: str = "triton") -> None:
        self.dtype, self.attention = dtype, attention

    def begin(self, device: torch.device) -> None:
        """A tiny product and a tiny kernel: the first ones of a process take a second, wherever it can be spared."""
        with torch.cuda.device(device):
            x_TD = torch.zeros(128, 128, dtype=self.dtype, device=device)
            kernels.gelu(torch.mm(x_TD, x_TD))

    def prepare(self, linear: Linear) -> Linear:
        """The weights as they are."""
        return linear

    def prepare_gated(self, linear: Linear) -> GatedLinear:
        """Gate and value rows interleaved. Raises WeightsError for a width that no tile fits."""
        rows = len(linear.weight_OI)
        if rows % (2 * kernels.GATE_ROWS):
            raise WeightsError(
                f"a gated feed-forward of width {rows // 2} is no multiple of {kernels.GATE_ROWS}",
                remedy="use float32 with attention 'reference'",
            )
        return GatedLinear(kernels.interleaved(linear.weight_OI))

    def prepare_heads(self, heads: Heads, _norm: Norm, _qkv: Linear, /) -> Heads:
        """The same in every layer."""
        return heads

    def norm(self, x_TD: torch.Tensor, norm: Norm) -> torch.Tensor:
        """LayerNorm(x + offset), one pass over x."""
        return kernels.norm(x_TD, norm.weight_D, norm.bias_D, norm.eps, norm.offset_D)

    def linear(self, h_TI: torch.Tensor, linear: Linear) -> torch.Tensor:
        """(T, O) = x W^T + b, the bias in the product's epilogue."""
        if linear.bias_O is None:
            return torch.mm(h_TI, linear.weight_OI.t())
        return torch.addmm(linear.bias_O, h_TI, linear.weight_OI.t())

    def add_linear(self, x_TD: torch.Tensor, h_TI: torch.Tensor, linear: Linear) -> torch.Tensor:
        """x += h W^T in place: the product adds the residual itself. The bias is a later norm's offset."""
        return x_TD.addmm_(h_TI, linear.weight_OI.t())

    def attend(self, qkv_TC: torch.Tensor, batch: PackedBatch, heads: Heads) -> torch.Tensor:
        """(T, H*K) from (T, 3*H*K); q and k may be overwritten."""
        q_THK, k_THK, v_THK = qkv_TC.view(-1, 3, heads.count, heads.size).unbind(1)
        return attend(q_THK, k_THK, v_THK, batch, heads, kernel=self.attention).flatten(1)

    def linear_gelu(self, h_TI: torch.Tensor, linear: Linear) -> torch.Tensor:
        """(T, O): erf GELU in place of the product; under load cuBLAS and a pass beat one fused product."""
        return kernels.gelu(self.linear(h_TI, linear))

    def gated_gelu(self, h_TI: torch.Tensor, linear: GatedLinear) -> torch.Tensor:
        """(T, O/2), the activation in the product's epilogue."""
        return kernels.gated_gelu(h_TI, linear.weight_GI)

    def pool(self, x_TD: torch.Tensor, batch: PackedBatch, window: Window, norm: Norm | None) -> torch.Tensor:
        """(B, D) float32 means of the window's rows, normed first where `norm`."""
        if norm is not None:
            x_TD = kernels.norm(x_TD, norm.weight_D, norm.bias_D, norm.eps, norm.offset_D)
        limit = _NO_LIMIT if window.limit is None else window.limit
        return kernels.pool(x_TD, batch.starts_B1, first=window.first, last=window.last, limit=limit)


@dataclass(frozen=True, slots=True)
class Quantised:
    """Rows in e4m3 with one float32 scale each: value = values_TI * scales_T1."""

    values_TI: torch.Tensor
    scales_T1: torch.Tensor


@dataclass(frozen=True, slots=True)
class QuantisedLinear:
    """Weights in e4m3 with one float32 scale for each output; the bias is float16."""

    values_OI: torch.Tensor
    scales_1O: torch.Tensor
    bias_O: torch.Tensor | None

    def float(self) -> Linear:
        """The weights in use, in float32."""
        bias_O = None if self.bias_O is None else self.bias_O.float()
        return Linear(self.values_OI.float() * self.scales_1O.t(), bias_O)


@dataclass(frozen=True, slots=True)
class Pending:
    """A residual stream x whose last product y the next norm adds: fp8 products cannot add it themselves."""

    x_TD: torch.Tensor
    y_TD: torch.Tensor


class Fp8Operations:
    """ESM-2's steps with fp8 products (e4m3, one scale a row, float32 sums), float16 between them.

    Norm and GELU quantise in their own pass, attention with one scale a layer. The residual stream is float16.
    """

    def __init__(self, attention: str = "triton") -> None:
        self.dtype, self.attention = torch.float16, attention
        self._half = FusedOperations(torch.float16, attention)

    def begin(self, device: torch.device) -> None:
        """As in float16."""
        self._half.begin(device)

    def prepare(self, linear: Linear) -> QuantisedLinear:
        """Rounds each row of the weights to e4m3 by its own largest value."""
        weight_OI = linear.weight_OI.float()
        scales_O1 = weight_OI.abs().amax(dim=1, keepdim=True).clamp_(min=1e-8) / E4M3_MAX
        return QuantisedLinear((weight_OI / scales_O1).to(E4M3), scales_O1.t().contiguous(), linear.bias_O)

    def prepare_heads(self, heads: Heads, norm: Norm, qkv: Linear, /) -> Heads:
        """With the layer's scale of the attention's output, for the kernel that can apply it (see e4m3_scale)."""
        return replace(heads, e4m3_scale=e4m3_scale(norm, qkv)) if self.attention == "triton" else heads

    def norm(self, x_TD: torch.Tensor | Pending, norm: Norm) -> Quantised:
        """The pending product is added to x; then LayerNorm(x + offset), quantised, in the same pass."""
        assert norm.offset_D is not None
        y_TD = x_TD.y_TD if isinstance(x_TD, Pending) else None
        x_TD = x_TD.x_TD if isinstance(x_TD, Pending) else x_TD
        return Quantised(
            *kernels.norm_quantised(x_TD, y_TD, norm.weight_D, norm.bias_D, norm.eps, norm.offset_D)
        )

    def linear(self, h_TI: Quantised, linear: QuantisedLinear) -> torch.Tensor:
        """(T, O) float16 = x W^T + b."""
        return F.scaled_mm(
            h_TI.values_TI,
            linear.values_OI.t(),
            h_TI.scales_T1,
            F.ScalingType.RowWise,
            linear.scales_1O,
            F.ScalingType.RowWise,
            bias=linear.bias_O,
            output_dtype=torch.float16,
            use_fast_accum=True,
        )

    def add_linear(self, x_TD: torch.Tensor | Pending, h_TI: Quantised, linear: QuantisedLinear) -> Pending:
        """x, with h W^T to be added by the next norm."""
        stream_TD = x_TD.x_TD if isinstance(x_TD, Pending) else x_TD  # its own y was added by the norm before
        return Pending(stream_TD, self.linear(h_TI, linear))

    def attend(self, qkv_TC: torch.Tensor, batch: PackedBatch, heads: Heads) -> Quantised:
        """Attention in float16; its output leaves the kernel in e4m3, or is quantised row by row after another one."""
        o_TD = self._half.attend(qkv_TC, batch, heads)
        if heads.e4m3_scale is None:
            return Quantised(*kernels.quantised(o_TD, gelu=False))
        return Quantised(o_TD, torch.full((len(o_TD), 1), 1 / heads.e4m3_scale, device=o_TD.device))

    def linear_gelu(self, h_TI: Quantised, linear: QuantisedLinear) -> Quantised:
        """erf GELU of the product and its quantisation in one pass."""
        return Quantised(*kernels.quantised(self.linear(h_TI, linear), gelu=True))

    def prepare_gated(self, linear: Linear) -> QuantisedLinear:
        """No encoder with fp8 has a gated feed-forward."""
        raise NotImplementedError

    def gated_gelu(self, h_TI: Quantised, linear: QuantisedLinear) -> Quantised:
        """No encoder with fp8 has a gated feed-forward."""
        raise NotImplementedError

    def pool(
        self, x_TD: torch.Tensor | Pending, batch: PackedBatch, window: Window, norm: Norm | None
    ) -> torch.Tensor:
        """(B, D) float32 means of the window's rows, normed first where `norm`, in float16."""
        if isinstance(x_TD, Pending):
            x_TD = x_TD.x_TD.add_(x_TD.y_TD)
        return self._half.pool(x_TD, batch, window, norm)


def e4m3_scale(norm: Norm, qkv: Linear) -> float:
    """The largest power of two with which no output of the layer's attention can leave e4m3's range.

    An output is a mean of values v = W h + b with h = w * z + c and a normed z, |z| <= sqrt(D): by Cauchy and
    Schwarz |v_j| <= sqrt(D) |W_j * w| + |W_j c + b_j|. The margin covers the rounding of W and h to e4m3, 2^-4 of
    each. A power of two rounds nothing itself, and e4m3 keeps its relative precision over 15 powers of two.
    """
    width = len(norm.weight_D)
    values_DD = qkv.weight_OI[2 * width :].float()
    bound_D = math.sqrt(width) * (values_DD * norm.weight_D).norm(dim=1) + (values_DD @ norm.bias_D).abs()
    if qkv.bias_O is not None:
        bound_D += qkv.bias_O[2 * width :].float().abs()
    bound = max(float(bound_D.max()) * E4M3_MARGIN, TINY)
    return float(2.0 ** math.floor(math.log2(E4M3_MAX / bound)))
