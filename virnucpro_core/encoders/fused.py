"""The operations of an encoder on a CUDA device, in float16 or fp8: Triton kernels and matrix products of cuBLASLt.

Shapes: T tokens of a batch, D width, F feed-forward width, H heads, K head size, O outputs, I inputs, 1 one value.
"""

import math
from dataclasses import dataclass, replace

import torch

from virnucpro_core.encoders import kernels
from virnucpro_core.encoders.attention import attend
from virnucpro_core.encoders.heads import Heads
from virnucpro_core.encoders.operations import Linear, Norm, Window
from virnucpro_core.encoders.packing import PackedBatch
from virnucpro_core.errors import WeightsError

E4M3 = torch.float8_e4m3fn
E4M3_MAX = 448.0
E4M3_HALF_STEP = 2.0**-4  # largest rounding error of e4m3, relative to the value
E4M3_LEAST_STEP = 2.0**-10  # largest rounding error, absolute, of values below 2^-6
MARGIN = 1.02  # for the rounding of float16 and of the sums in a product
TINY = 1e-8  # keeps a scale finite if all weights are zero
_NO_LIMIT = 2**30


@dataclass(frozen=True, slots=True)
class GatedLinear:
    """Weights of a gated feed-forward, with gate and value rows in the order that `kernels.gated_gelu` reads."""

    weight_GI: torch.Tensor

    def float(self) -> Linear:
        """The weights in use, in float32 and in their original order."""
        return Linear(kernels.separated(self.weight_GI).float())


class FusedOperations:
    """The steps of `Operations` in float16 or bfloat16. attention: name of the attention kernel."""

    def __init__(self, dtype: torch.dtype, attention: str = "triton") -> None:
        self.dtype, self.attention = dtype, attention

    def warm_up(self, device: torch.device) -> None:
        """Run a tiny product and kernel: the first ones of a process take a second. Here nothing waits for them."""
        with torch.cuda.device(device):
            x_TD = torch.zeros(128, 128, dtype=self.dtype, device=device)
            one_D = torch.ones(128, device=device)
            kernels.norm(torch.mm(x_TD, x_TD), one_D, one_D, 1e-5)

    def prepare_attention(
        self, norm: Norm, qkv: Linear, heads: Heads, out: Linear
    ) -> tuple[Norm, Linear, Heads, Linear]:
        """Return them unchanged."""
        return norm, qkv, heads, out

    def prepare_feed_forward(self, norm: Norm, up: Linear, down: Linear) -> tuple[Norm, Linear, Linear]:
        """Return them unchanged."""
        return norm, up, down

    def prepare_gated(self, linear: Linear) -> GatedLinear:
        """Interleave gate and value rows. Raises WeightsError if the width is not a multiple of the kernel's tile."""
        rows = len(linear.weight_OI)
        if rows % (2 * kernels.GATE_ROWS):
            raise WeightsError(
                f"a gated feed-forward of width {rows // 2} is no multiple of {kernels.GATE_ROWS}",
                remedy="use float32 with attention 'reference'",
            )
        return GatedLinear(kernels.interleaved(linear.weight_OI))

    def norm(self, x_TD: torch.Tensor, norm: Norm) -> torch.Tensor:
        """LayerNorm(x + offset). Reads x once."""
        return kernels.norm(x_TD, norm.weight_D, norm.bias_D, norm.eps, norm.offset_D)

    def linear(self, h_TI: torch.Tensor, linear: Linear) -> torch.Tensor:
        """(T, O) = x W^T + b. The product adds the bias itself."""
        if linear.bias_O is None:
            return torch.mm(h_TI, linear.weight_OI.t())
        return torch.addmm(linear.bias_O, h_TI, linear.weight_OI.t())

    def add_linear(self, x_TD: torch.Tensor, h_TI: torch.Tensor, linear: Linear) -> torch.Tensor:
        """x += h W^T in place, by the product itself. A later norm adds the bias (its offset)."""
        return x_TD.addmm_(h_TI, linear.weight_OI.t())

    def attend(self, qkv_TC: torch.Tensor, batch: PackedBatch, heads: Heads) -> torch.Tensor:
        """(T, H*K) from (T, 3*H*K); q and k may be overwritten."""
        q_THK, k_THK, v_THK = qkv_TC.view(-1, 3, heads.count, heads.size).unbind(1)
        return attend(q_THK, k_THK, v_THK, batch, heads, kernel=self.attention).flatten(1)

    def linear_gelu(self, h_TI: torch.Tensor, linear: Linear) -> torch.Tensor:
        """(T, O) = GELU(x W^T + b). The product applies GELU itself."""
        o_TO = torch.empty(len(h_TI), len(linear.weight_OI), dtype=self.dtype, device=h_TI.device)
        return kernels.product(h_TI, linear.weight_OI, o_TO, bias_O=linear.bias_O, gelu=True)

    def gated_gelu(self, h_TI: torch.Tensor, linear: GatedLinear) -> torch.Tensor:
        """(T, O/2) = GELU(gate) * value. The product applies the activation itself."""
        return kernels.gated_gelu(h_TI, linear.weight_GI)

    def pool(self, x_TD: torch.Tensor, batch: PackedBatch, window: Window, norm: Norm | None) -> torch.Tensor:
        """(B, D) float32: mean of each sequence's rows in the window. The rows are normed first if `norm` is given."""
        if norm is not None:
            x_TD = kernels.norm(x_TD, norm.weight_D, norm.bias_D, norm.eps, norm.offset_D)
        limit = _NO_LIMIT if window.limit is None else window.limit
        return kernels.pool(x_TD, batch.starts_B1, first=window.first, last=window.last, limit=limit)


@dataclass(frozen=True, slots=True)
class QuantisedLinear:
    """Weights in e4m3: weight = values_OI * scale_1; the bias is float16.

    `factor_1`: the factor of a product of e4m3 values, scale_1 divided by the scale of the input.
    `o_scale_1`: the scale of the output, if the product writes e4m3.
    """

    values_OI: torch.Tensor
    scale_1: torch.Tensor
    factor_1: torch.Tensor
    bias_O: torch.Tensor | None
    o_scale_1: torch.Tensor | None = None

    def float(self) -> Linear:
        """The weights in use, in float32."""
        bias_O = None if self.bias_O is None else self.bias_O.float()
        return Linear(self.values_OI.float() * self.scale_1, bias_O)


class Fp8Operations:
    """ESM-2's steps with fp8 products (e4m3, float32 sums); the residual stream, q, k and v are float16.

    The inputs of a product are e4m3 with one scale for each layer: a power of two, computed from the weights such that
    no value can leave the range. One scale is nearly as good as many, because e4m3 has the same relative precision over
    15 powers of two.
    """

    def __init__(self, attention: str = "triton") -> None:
        self.dtype, self.attention = torch.float16, attention
        self._half = FusedOperations(torch.float16, attention)

    def warm_up(self, device: torch.device) -> None:
        """As in float16. Also finds out whether cuBLASLt has products in e4m3 for this device."""
        self._half.warm_up(device)
        with torch.cuda.device(device):
            x_TI = torch.zeros(128, 128, device=device).to(E4M3)
            one_1 = torch.ones(1, device=device)
            bias_O = torch.zeros(128, dtype=torch.float16, device=device)
            kernels.product(
                x_TI, x_TI, torch.empty_like(x_TI), bias_O=bias_O, gelu=True, scales=(one_1, one_1)
            )

    def prepare_attention(
        self, norm: Norm, qkv: Linear, heads: Heads, out: Linear
    ) -> tuple[Norm, QuantisedLinear, Heads, QuantisedLinear]:
        """Add the scales of their outputs to the norm and the heads, and convert the weights to e4m3."""
        norm = replace(norm, e4m3_scale=norm_scale(norm))
        small_qkv = quantised(qkv, norm.e4m3_scale)
        width = len(norm.weight_D)
        heads = replace(heads, e4m3_scale=scale_within(largest(norm, small_qkv)[2 * width :]))
        return norm, small_qkv, heads, quantised(out, heads.e4m3_scale)

    def prepare_feed_forward(
        self, norm: Norm, up: Linear, down: Linear
    ) -> tuple[Norm, QuantisedLinear, QuantisedLinear]:
        """Add the scales of their outputs to the norm and to `up`, and convert the weights to e4m3."""
        norm = replace(norm, e4m3_scale=norm_scale(norm))
        small_up = quantised(up, norm.e4m3_scale)
        scale = scale_within(largest(norm, small_up))  # |gelu(u)| <= |u|
        o_scale_1 = torch.full((1,), scale, device=small_up.values_OI.device)
        return norm, replace(small_up, o_scale_1=o_scale_1), quantised(down, scale)

    def norm(self, x_TD: torch.Tensor, norm: Norm) -> torch.Tensor:
        """LayerNorm(x + offset), written in e4m3. Reads x once."""
        return kernels.norm(
            x_TD, norm.weight_D, norm.bias_D, norm.eps, norm.offset_D, e4m3_scale=norm.e4m3_scale
        )

    def linear(self, h_TI: torch.Tensor, linear: QuantisedLinear) -> torch.Tensor:
        """(T, O) float16 = x W^T + b."""
        o_TO = torch.empty(len(h_TI), len(linear.values_OI), dtype=self.dtype, device=h_TI.device)
        return kernels.product(
            h_TI, linear.values_OI, o_TO, bias_O=linear.bias_O, scales=(linear.factor_1, None)
        )

    def add_linear(self, x_TD: torch.Tensor, h_TI: torch.Tensor, linear: QuantisedLinear) -> torch.Tensor:
        """x += h W^T in place, by the product itself. A later norm adds the bias (its offset)."""
        return kernels.product(h_TI, linear.values_OI, x_TD, scales=(linear.factor_1, None), add=True)

    def attend(self, qkv_TC: torch.Tensor, batch: PackedBatch, heads: Heads) -> torch.Tensor:
        """Attention in float16 with e4m3 output, which the kernel `triton` writes; that of others is rounded."""
        o_TD = self._half.attend(qkv_TC, batch, heads)
        assert heads.e4m3_scale is not None
        return o_TD if o_TD.dtype == E4M3 else (o_TD.float() * heads.e4m3_scale).to(E4M3)

    def linear_gelu(self, h_TI: torch.Tensor, linear: QuantisedLinear) -> torch.Tensor:
        """(T, O) = GELU(x W^T + b) in e4m3. The product applies GELU and rounds."""
        o_TO = torch.empty(len(h_TI), len(linear.values_OI), dtype=E4M3, device=h_TI.device)
        return kernels.product(
            h_TI, linear.values_OI, o_TO,
            bias_O=linear.bias_O, gelu=True, scales=(linear.factor_1, linear.o_scale_1),
        )  # fmt: skip

    def prepare_gated(self, linear: Linear) -> QuantisedLinear:
        """No encoder with fp8 has a gated feed-forward."""
        raise NotImplementedError

    def gated_gelu(self, h_TI: torch.Tensor, linear: QuantisedLinear) -> torch.Tensor:
        """No encoder with fp8 has a gated feed-forward."""
        raise NotImplementedError

    def pool(self, x_TD: torch.Tensor, batch: PackedBatch, window: Window, norm: Norm | None) -> torch.Tensor:
        """(B, D) float32: mean of each sequence's rows in the window. First normed in float16, if asked."""
        return self._half.pool(x_TD, batch, window, norm)


def quantised(linear: Linear, input_scale: float | None) -> QuantisedLinear:
    """Weights scaled by their largest value and rounded to e4m3, for inputs that have the scale `input_scale`.

    Raises WeightsError for sizes that cuBLASLt cannot multiply.
    """
    assert input_scale is not None
    outputs, inputs = linear.weight_OI.shape
    if outputs % 16 or inputs % 16:
        raise WeightsError(f"fp8 weights of {outputs} x {inputs}, no multiples of 16", remedy="use float16")
    weight_OI = linear.weight_OI.float()
    scale_1 = weight_OI.abs().amax().clamp_(min=TINY).reshape(1) / E4M3_MAX
    return QuantisedLinear((weight_OI / scale_1).to(E4M3), scale_1, scale_1 / input_scale, linear.bias_O)


def norm_scale(norm: Norm) -> float:
    """The scale of LayerNorm's output w * z + c, for |z| <= sqrt(D)."""
    return scale_within(math.sqrt(len(norm.weight_D)) * norm.weight_D.abs() + norm.bias_D.abs())


def largest(norm: Norm, linear: QuantisedLinear) -> torch.Tensor:
    """(O,): no |W h + b| can be larger, h = w * z + c the norm's e4m3 output, W the weights in use.

    With |z| <= sqrt(D), by Cauchy and Schwarz |W h + b| <= sqrt(D) |W * w| + |W c + b|. Rounding moves each h by at
    most E4M3_HALF_STEP of itself, or by E4M3_LEAST_STEP over its scale where that is more.
    """
    assert norm.e4m3_scale is not None
    used = linear.float()
    weight_OI, c_I = used.weight_OI, norm.bias_D
    spread_O = math.sqrt(len(c_I)) * (weight_OI * norm.weight_D).norm(dim=1)
    centre_O = weight_OI @ c_I
    if used.bias_O is not None:
        centre_O = centre_O + used.bias_O
    sizes_OI = weight_OI.abs()
    moved_O = E4M3_HALF_STEP * (spread_O + sizes_OI @ c_I.abs())
    moved_O += E4M3_LEAST_STEP / norm.e4m3_scale * sizes_OI.sum(dim=1)
    largest_O: torch.Tensor = spread_O + centre_O.abs() + moved_O
    return largest_O


def scale_within(bounds: torch.Tensor) -> float:
    """The largest power of two that brings values up to the largest of `bounds` into e4m3's range."""
    bound = max(float(bounds.max()) * MARGIN, TINY)
    return float(2.0 ** math.floor(math.log2(E4M3_MAX / bound)))
