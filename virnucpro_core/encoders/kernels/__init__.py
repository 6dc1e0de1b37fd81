"""The kernels of the fused encoders, own ones in Triton and cuBLASLt's products; they know no model.

Each launcher is tested against the reference operations, on a GPU and under Triton's interpreter. No autotuning:
the constants were measured (benchmarks/results, docs/encoders.md). What differs from batch to batch is not specialised
on: Triton would compile a kernel anew for the first batch whose size is a multiple of 16.
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
