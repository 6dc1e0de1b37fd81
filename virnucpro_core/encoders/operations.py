"""The steps of an encoder's forward on packed (T, D) tensors: the protocol `Operations` and its reference in torch.

Each encoder is written once, with these operations. The reference set is plain torch and runs on any device; another
set may use other kernels for the same arithmetic. Norms, softmax, positions and pooling are float32 in every set.

Shapes: T tokens of a batch, B sequences, D width, F feed-forward width, H heads, K head size, O outputs, I
inputs.
"""

from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F

from virnucpro_core.encoders.attention import attend
from virnucpro_core.encoders.heads import Heads
from virnucpro_core.encoders.packing import PackedBatch


@dataclass(frozen=True, slots=True)
class Linear:
    """y = x W^T + b. `bias_O` is None where there is none, or where a later norm adds it as its offset."""

    weight_OI: torch.Tensor
    bias_O: torch.Tensor | None = None

    def float(self) -> Self:
        bias_O = None if self.bias_O is None else self.bias_O.float()
        return type(self)(self.weight_OI.float(), bias_O)


@dataclass(frozen=True, slots=True)
class Norm:
    """LayerNorm(x + offset), all float32. `offset_D`: biases of the layers that wrote x without them.

    `e4m3_scale`: where it is to be e4m3, the factor that brings every possible output into that range.
    """

    weight_D: torch.Tensor
    bias_D: torch.Tensor
    eps: float
    offset_D: torch.Tensor | None = None
    e4m3_scale: float | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """Rows of a sequence that are pooled: without `first` and `last` tokens, at most `limit` of the rest."""

    first: int
    last: int
    limit: int | None = None

    def bounds(self, length: int) -> tuple[int, int]:
        end = length - self.last
        return self.first, end if self.limit is None else min(end, self.first + self.limit)


def least_rows(inputs: int) -> int:
    """Smallest number of rows for which a row of a matrix product does not depend on the number of rows.

    With few rows MKL picks other kernels, which add the columns up in another order: up to 15 rows of 64 to 512
    columns, up to 170 of 1,280 and 513 of 5,120 (torch 2.11 on an Intel Xeon with 1, 2 and 16 threads; fewer on an AMD
    EPYC, torch 2.13). Products of fewer rows are padded to this many, so that a sequence's bits are the same alone and
    among others.
    """
    return max(64, inputs // 4)


def padded(x_TI: torch.Tensor, rows: int) -> torch.Tensor:
    """x padded with rows of zeros to `rows` rows; x itself if it has as many."""
    lacking = rows - len(x_TI)
    return F.pad(x_TI, (0, 0, 0, lacking)) if lacking > 0 else x_TI


def bytes_per_token(width: int, feed_forward: int, dtype: torch.dtype) -> int:
    """Device memory that a forward holds for each token: stream, norm, qkv, attention, and the feed-forward twice."""
    return (6 * width + 2 * feed_forward) * dtype.itemsize


class Operations(Protocol):
    """The steps of a forward. A step may overwrite the `x` or `qkv` that it takes.

    What norm, attend and the GELUs hand to the next product is the set's own type of tensor. So are the weights
    (Any) that the `prepare`s return for the steps of one block.
    """

    dtype: torch.dtype

    def warm_up(self, device: torch.device) -> None: ...
    def prepare_attention(
        self, norm: Norm, qkv: Linear, heads: Heads, out: Linear
    ) -> tuple[Norm, Any, Heads, Any]: ...
    def prepare_feed_forward(self, norm: Norm, up: Linear, down: Linear) -> tuple[Norm, Any, Any]: ...
    def prepare_gated(self, linear: Linear) -> Any: ...
    def norm(self, x_TD: torch.Tensor, norm: Norm) -> torch.Tensor: ...
    def linear(self, h_TI: torch.Tensor, linear: Any) -> torch.Tensor: ...
    def add_linear(self, x_TD: torch.Tensor, h_TI: torch.Tensor, linear: Any) -> torch.Tensor: ...
    def attend(self, qkv_TC: torch.Tensor, batch: PackedBatch, heads: Heads) -> torch.Tensor: ...
    def linear_gelu(self, h_TI: torch.Tensor, linear: Any) -> torch.Tensor: ...
    def gated_gelu(self, h_TI: torch.Tensor, linear: Any) -> torch.Tensor: ...
    def pool(
        self, x_TD: torch.Tensor, batch: PackedBatch, window: Window, norm: Norm | None
    ) -> torch.Tensor: ...


class ReferenceOperations:
    """Plain torch in `dtype`, with one attention kernel of attention.py.

    On the CPU a sequence's rows have the same bits whatever is beside it (see `least_rows`, and attention.py).
    """

    def __init__(self, dtype: torch.dtype, attention: str = "reference") -> None:
        self.dtype, self.attention = dtype, attention

    def warm_up(self, device: torch.device) -> None:
        """Nothing: plain torch is ready when it is imported."""

    def prepare_attention(
        self, norm: Norm, qkv: Linear, heads: Heads, out: Linear
    ) -> tuple[Norm, Linear, Heads, Linear]:
        """As they are."""
        return norm, qkv, heads, out

    def prepare_feed_forward(self, norm: Norm, up: Linear, down: Linear) -> tuple[Norm, Linear, Linear]:
        """As they are."""
        return norm, up, down

    def prepare_gated(self, linear: Linear) -> Linear:
        """The weights as they are: the gate's rows, then the value's."""
        return linear

    def norm(self, x_TD: torch.Tensor, norm: Norm) -> torch.Tensor:
        """LayerNorm of x + offset in float32, returned in the compute dtype."""
        x_TD = x_TD.float() if norm.offset_D is None else x_TD.float() + norm.offset_D
        return F.layer_norm(x_TD, x_TD.shape[-1:], norm.weight_D, norm.bias_D, norm.eps).to(self.dtype)

    def linear(self, h_TI: torch.Tensor, linear: Linear) -> torch.Tensor:
        """(T, O) = x W^T + b."""
        return F.linear(padded(h_TI, least_rows(h_TI.shape[1])), linear.weight_OI, linear.bias_O)[: len(h_TI)]

    def add_linear(self, x_TD: torch.Tensor, h_TI: torch.Tensor, linear: Linear) -> torch.Tensor:
        """x += h W^T in place: the product adds the residual itself. The bias is a later norm's offset."""
        padded_TI = padded(h_TI, least_rows(h_TI.shape[1]))
        if padded_TI is h_TI:
            return x_TD.addmm_(h_TI, linear.weight_OI.t())
        x_PD = F.pad(x_TD, (0, 0, 0, len(padded_TI) - len(h_TI)))
        return x_TD.copy_(x_PD.addmm_(padded_TI, linear.weight_OI.t())[: len(x_TD)])

    def attend(self, qkv_TC: torch.Tensor, batch: PackedBatch, heads: Heads) -> torch.Tensor:
        """(T, H*K) from (T, 3*H*K): all q, then all k, then all v, head by head."""
        q_THK, k_THK, v_THK = qkv_TC.view(-1, 3, heads.count, heads.size).unbind(1)
        return attend(q_THK, k_THK, v_THK, batch, heads, kernel=self.attention).flatten(1)

    def linear_gelu(self, h_TI: torch.Tensor, linear: Linear) -> torch.Tensor:
        """(T, O) = erf GELU of x W^T + b."""
        return F.gelu(self.linear(h_TI, linear))

    def gated_gelu(self, h_TI: torch.Tensor, linear: Linear) -> torch.Tensor:
        """(T, O/2): erf GELU of the first half of x W^T times the second."""
        gate_TF, value_TF = self.linear(h_TI, linear).chunk(2, dim=1)
        return F.gelu(gate_TF) * value_TF

    def pool(self, x_TD: torch.Tensor, batch: PackedBatch, window: Window, norm: Norm | None) -> torch.Tensor:
        """(B, D) float32 mean of the window's rows, normed first where `norm`; by runs of equal lengths."""
        if norm is not None:
            x_TD = self.norm(x_TD, norm)
        means = []
        for row, count, length in batch.equal_lengths():
            x_nLD = x_TD[row : row + count * length].view(count, length, -1)
            first, end = window.bounds(length)
            means.append(x_nLD[:, first:end].float().mean(dim=1))
        return torch.cat(means)
