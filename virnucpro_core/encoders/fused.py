"""The operations of an encoder on a CUDA device: Triton kernels around cuBLAS products, half precision."""

import torch

from virnucpro_core import kernels
from virnucpro_core.attention import Heads, attend
from virnucpro_core.encoders.operations import Linear, Norm, Window
from virnucpro_core.packing import PackedBatch

_NO_LIMIT = 2**30


class FusedOperations:
    """The steps of `Operations` in float16 or bfloat16, attention by the kernel of that name."""

    def __init__(self, dtype: torch.dtype, attention: str = "triton") -> None:
        self.dtype, self.attention = dtype, attention

    def norm(self, x_TD: torch.Tensor, norm: Norm) -> torch.Tensor:
        """LayerNorm(x + offset), one pass over x."""
        return kernels.norm(x_TD, norm.weight_D, norm.bias_D, norm.eps, norm.offset_D)

    def linear(self, x_TI: torch.Tensor, linear: Linear) -> torch.Tensor:
        """(T, O) = x W^T + b, the bias in the product's epilogue."""
        if linear.bias_O is None:
            return torch.mm(x_TI, linear.weight_OI.t())
        return torch.addmm(linear.bias_O, x_TI, linear.weight_OI.t())

    def add_linear(self, x_TD: torch.Tensor, h_TI: torch.Tensor, linear: Linear) -> torch.Tensor:
        """x += h W^T in place: the product adds the residual itself. The bias is a later norm's offset."""
        return x_TD.addmm_(h_TI, linear.weight_OI.t())

    def attend(self, qkv_TC: torch.Tensor, batch: PackedBatch, heads: Heads) -> torch.Tensor:
        """(T, H*K) from (T, 3*H*K); q and k may be overwritten."""
        q_THK, k_THK, v_THK = qkv_TC.view(-1, 3, heads.count, heads.size).unbind(1)
        return attend(q_THK, k_THK, v_THK, batch, heads, kernel=self.attention).flatten(1)

    def gelu(self, x_TF: torch.Tensor) -> torch.Tensor:
        """erf GELU in place."""
        return kernels.gelu(x_TF)

    def gated_gelu(self, x_TG: torch.Tensor) -> torch.Tensor:
        """(T, F) from (T, 2F)."""
        return kernels.gated_gelu(x_TG)

    def pool(self, x_TD: torch.Tensor, batch: PackedBatch, window: Window) -> torch.Tensor:
        """(B, D) float32 means of the window's rows."""
        limit = _NO_LIMIT if window.limit is None else window.limit
        return kernels.pool(x_TD, batch.starts_B1, first=window.first, last=window.last, limit=limit)
