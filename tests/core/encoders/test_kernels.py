"""The Triton kernels under Triton's interpreter on the CPU; tests/gpu has the same checks on a GPU."""

import pytest
import torch

pytest.importorskip("triton", minversion="3.9")  # its interpreter works with numpy 2.4
if torch.cuda.is_available():
    pytest.skip("tests/gpu checks the compiled kernels", allow_module_level=True)

from tests.support import kernel_checks as checks
from virnucpro_core.encoders.fused import Fp8Operations, FusedOperations, quantised
from virnucpro_core.encoders.kernels import products
from virnucpro_core.encoders.operations import Linear, Norm, Window
from virnucpro_core.errors import DeviceError, WeightsError

CPU = torch.device("cpu")


@pytest.mark.parametrize("position", ["none", "rotary", "alibi"])
@pytest.mark.parametrize(("lengths", "size"), [([3, 1, 64, 40, 20], 64), ([200, 129, 65, 128, 9], 24)])
def test_attention(lengths: list[int], size: int, position: str) -> None:
    checks.check_attention(CPU, lengths, size, 2, position)


def test_attention_never_sees_a_neighbour() -> None:
    checks.check_neighbours(CPU, [140, 64, 30, 30, 2])


def test_attention_in_e4m3() -> None:
    checks.check_attention_in_e4m3(CPU, [1, 20, 64, 70, 130, 200])


@pytest.mark.parametrize("width", [64, 80, 320])
def test_norm(width: int) -> None:
    checks.check_norm(CPU, 3, width, 1e-5)


@pytest.mark.parametrize("window", [Window(1, 1, 20), Window(0, 0)])
def test_pool(window: Window) -> None:
    checks.check_pool(CPU, [40, 22, 3], 300, window)


@pytest.mark.parametrize("rows", [5, 130])
def test_gated_gelu(rows: int) -> None:
    checks.check_gated_gelu(CPU, rows, 256, 72)


def test_prepared_weights_give_back_what_they_hold() -> None:
    """What float32 recomputation sees: float16 weights exactly, fp8 weights to their 3 bits, over three decades."""
    weight_OI = checks.random(512, 64, device=CPU) * torch.logspace(-2, 1, 512)[:, None]
    gated = FusedOperations(torch.float16).prepare_gated(Linear(weight_OI.half())).float()
    assert torch.equal(gated.weight_OI, weight_OI.half().float())
    small = quantised(Linear(weight_OI), 1.0).float()
    error_O = (small.weight_OI - weight_OI).norm(dim=1) / weight_OI.norm(dim=1)
    assert error_O.max() < 0.05


@pytest.mark.parametrize("bias", [0.0, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_input_of_a_product_can_leave_e4m3(seed: int, bias: float) -> None:
    """Norm outputs, attention outputs and GELUs, for the most one-sided streams there are."""
    generator = torch.Generator().manual_seed(seed)
    width, rows = 64, 256
    weight_D, bias_D = torch.randn(width, generator=generator), bias * torch.randn(width, generator=generator)
    up = Linear(torch.randn(rows, width, generator=generator), bias * torch.randn(rows, generator=generator))
    norm, small, down = Fp8Operations().prepare_feed_forward(
        Norm(weight_D, bias_D, 1e-5), up, Linear(torch.randn(width, rows, generator=generator))
    )
    assert norm.e4m3_scale is not None
    assert small.o_scale_1 is not None
    used = small.float()
    assert used.bias_O is not None
    z_RD = used.weight_OI * weight_D  # along each output in turn, both ways, and along each axis
    z_RD = torch.cat([z_RD, -z_RD, torch.eye(width), -torch.eye(width)])
    z_RD *= width**0.5 / z_RD.norm(dim=1, keepdim=True)
    h_RD = (z_RD * weight_D + bias_D) * norm.e4m3_scale
    assert 448 / 2.1 < h_RD.abs().max() <= 448
    rounded_RD = h_RD.to(torch.float8_e4m3fn).float() / norm.e4m3_scale
    u_RO = rounded_RD @ used.weight_OI.t() + used.bias_O
    assert 448 / 4 < u_RO.abs().max() * small.o_scale_1 <= 448
    assert torch.equal(down.factor_1, down.scale_1 / small.o_scale_1)


def test_a_gated_width_that_no_tile_fits_is_refused() -> None:
    with pytest.raises(WeightsError, match="no multiple of 128"):
        FusedOperations(torch.float16).prepare_gated(Linear(torch.zeros(2 * 100, 64)))


def test_fp8_weights_that_the_library_has_no_product_for_are_refused() -> None:
    with pytest.raises(WeightsError, match="no multiples of 16"):
        quantised(Linear(torch.zeros(64, 24)), 1.0)


def test_a_refusal_of_the_library_is_one_clear_error() -> None:
    with pytest.raises(DeviceError, match="cuBLASLt refuses a product: status 15"):
        products.check(15, "a product")
