"""The compiled kernels against the float32 reference on the GPU, over edge and random shapes."""

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from tests.support import kernel_checks as checks
from virnucpro_core.encoders.operations import Window

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
RANDOM = np.random.default_rng(0)
LENGTHS = {
    "one token": [1],
    "edges of the tiles": [1, 2, 63, 64, 65, 127, 128, 129, 191, 192, 193, 256],
    "short": RANDOM.integers(38, 69, 200).tolist(),
    "mixed": RANDOM.integers(2, 700, 40).tolist(),
    "long": [1024, 2500],
}


@pytest.mark.parametrize("position", ["none", "rotary", "alibi"])
@pytest.mark.parametrize("size", [16, 24, 32, 64, 128])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_attention(lengths: list[int], size: int, position: str) -> None:
    checks.check_attention(CUDA, lengths, size, 5, position)


def test_attention_never_sees_a_neighbour() -> None:
    checks.check_neighbours(CUDA, [400, 300, 100, 100, 64, 64, 30, 30, 2])


def test_attention_in_e4m3() -> None:
    checks.check_attention_in_e4m3(CUDA, [1, 2, 64, 65, 128, 129, 300, 1024])


@pytest.mark.parametrize("width", [64, 80, 320, 480, 640, 768, 1280, 2560, 5120])
def test_norm(width: int) -> None:
    checks.check_norm(CUDA, 77, width, 1e-5)


@pytest.mark.parametrize("window", [Window(1, 1, 1024), Window(1, 1, 30), Window(0, 0)])
@pytest.mark.parametrize("width", [320, 768, 2560])
def test_pool(width: int, window: Window) -> None:
    checks.check_pool(CUDA, [1100, 300, 64, 64, 3], width, window)


@pytest.mark.parametrize(("rows", "width", "inputs"), [(1, 128, 64), (77, 256, 320), (1000, 3072, 768)])
def test_gated_gelu(rows: int, width: int, inputs: int) -> None:
    checks.check_gated_gelu(CUDA, rows, width, inputs)


PRODUCTS = [(1, 128, 64), (77, 320, 1280), (1000, 5120, 1280), (16_383, 1280, 5120)]


@pytest.mark.parametrize(("rows", "outputs", "inputs"), PRODUCTS)
def test_product(rows: int, outputs: int, inputs: int) -> None:
    checks.check_product(rows, outputs, inputs)


@pytest.mark.skipif(torch.cuda.get_device_capability() < (8, 9), reason="needs fp8 units (Hopper, Ada)")
@pytest.mark.parametrize(("rows", "outputs", "inputs"), PRODUCTS)
def test_product_in_e4m3(rows: int, outputs: int, inputs: int) -> None:
    checks.check_product_in_e4m3(rows, outputs, inputs)
