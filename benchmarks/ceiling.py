"""Measure the chip's limit for an encoder: only the matrix products of its layers, timed like everything else."""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.seeded import GEOMETRIES
from virnucpro_core.encoders.encoder import full_batch
from virnucpro_core.encoders.operations import bytes_per_token

CUDA = torch.device("cuda")


def rate(step: Callable[[], object], tokens: int, *, seconds: float, repeats: int) -> float:
    """Median tokens per second over `repeats`. Each repeat runs complete steps of `tokens` for at least `seconds`."""
    with torch.inference_mode():
        step()
        torch.cuda.synchronize()
        rates = []
        for _ in range(repeats):
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                step()
                torch.cuda.synchronize()
                count += 1
            rates.append(count * tokens / (time.perf_counter() - start))
    return statistics.median(rates)


def budget(name: str) -> int:
    """Tokens per batch of the geometry `name` in half precision and fp8, as a lane plans them on a large GPU."""
    kind, _, width, _, feed = GEOMETRIES[name]
    return full_batch(
        "dnabert-s" if kind == "dnabert-s" else "esm2", bytes_per_token(width, feed, torch.float16)
    )


def ceiling(name: str, *, seconds: float, repeats: int, fp8: bool = False) -> float:
    """Tokens per second if a forward of the geometry `name` were its matrix products alone."""
    kind, layers, width, _, feed = GEOMETRIES[name]
    up = 2 * feed if kind == "dnabert-s" else feed
    shapes = [(3 * width, width), (width, width), (up, width), (width, feed)]
    tokens = budget(name)
    once = products_alone(shapes, tokens, fp8=fp8)

    def step() -> None:
        for _ in range(layers):
            once()

    return rate(step, tokens, seconds=seconds, repeats=repeats)


def products_alone(shapes: list[tuple[int, int]], tokens: int, *, fp8: bool) -> Callable[[], None]:
    """A step that runs only the matrix products of one layer, in float16 or in fp8 with rowwise scales."""
    dtype = torch.float16
    inputs = {i: torch.randn(tokens, i, device=CUDA).to(dtype) for _, i in shapes}
    weights = [(torch.randn(o, i, device=CUDA) * 0.02).to(dtype) for o, i in shapes]
    if not fp8:
        outputs = [torch.empty(tokens, o, device=CUDA, dtype=dtype) for o, _ in shapes]

        def half() -> None:
            for weight, output in zip(weights, outputs, strict=True):
                torch.mm(inputs[weight.shape[1]], weight.t(), out=output)

        return half
    small = {i: x.to(torch.float8_e4m3fn) for i, x in inputs.items()}
    narrow = [weight.to(torch.float8_e4m3fn) for weight in weights]
    rows = torch.ones(tokens, 1, device=CUDA)
    ones = {weight.shape[0]: torch.ones(1, weight.shape[0], device=CUDA) for weight in narrow}

    def eighth() -> None:
        for weight in narrow:
            columns = ones[weight.shape[0]]
            F.scaled_mm(
                small[weight.shape[1]],
                weight.t(),
                rows,
                F.ScalingType.RowWise,
                columns,
                F.ScalingType.RowWise,
                output_dtype=dtype,
                use_fast_accum=True,
            )

    return eighth
