"""Own Triton kernels of the fused encoders; they know no model.

Each launcher is tested against the reference operations, on a GPU and under Triton's interpreter. No autotuning:
the constants were measured (benchmarks/results, docs/encoders.md). What differs from batch to batch is not specialised
on: Triton would compile a kernel anew for the first batch whose size is a multiple of 16.
"""

from virnucpro_core.encoders.kernels.attention import attend, rotate
from virnucpro_core.encoders.kernels.rows import (
    GATE_ROWS,
    gated_gelu,
    gelu,
    interleaved,
    norm,
    norm_quantised,
    pool,
    quantised,
    separated,
)

__all__ = [
    "GATE_ROWS",
    "attend",
    "gated_gelu",
    "gelu",
    "interleaved",
    "norm",
    "norm_quantised",
    "pool",
    "quantised",
    "rotate",
    "separated",
]
