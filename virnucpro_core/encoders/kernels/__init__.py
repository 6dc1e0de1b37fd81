"""The GPU kernels of the fused encoders: own Triton kernels, and matrix products of cuBLASLt. They know no model.

Each launcher is tested against the reference operations, on a GPU and under Triton's interpreter. No autotuning:
the constants were measured (benchmarks/results, docs/encoders.md). Kernels are not specialised on values that differ
between batches: else Triton would compile again for the first batch whose size is a multiple of 16.
"""

from virnucpro_core.encoders.kernels.attention import attend, rotate
from virnucpro_core.encoders.kernels.products import product
from virnucpro_core.encoders.kernels.rows import (
    GATE_ROWS,
    gated_gelu,
    interleaved,
    norm,
    pool,
    separated,
)

__all__ = [
    "GATE_ROWS",
    "attend",
    "gated_gelu",
    "interleaved",
    "norm",
    "pool",
    "product",
    "rotate",
    "separated",
]
