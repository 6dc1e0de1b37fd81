"""The golden self-check on a GPU: answers of the CPU in float32 hold in each precision, and faults are named."""

from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from tests.support import stand_in
from virnucpro_core.models.golden import BOUNDS, Golden
from virnucpro_core.models.golden_check import SelfCheck, check_models

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda", 0)
FP8 = pytest.param(
    "fp8",
    marks=pytest.mark.skipif(
        torch.cuda.get_device_capability() < (8, 9), reason="needs fp8 units (Hopper, Ada)"
    ),
)
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stand-ins with heads of 64 columns, as DNABERT-S and ESM-2 3B have them."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stand_in, "WIDTHS", {"esm2": 256, "dnabert-s": 256})
        return {
            "dnabert-s": stand_in.dnabert(folder / "dnabert-s"),
            "esm2-3b": stand_in.esm2(folder / "esm2-3b"),
            "virnucpro-500": stand_in.classifier(folder / "virnucpro-500"),
        }


@pytest.fixture(scope="module")
def golden(models: dict[str, Path]) -> Golden:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stand_in, "WIDTHS", {"esm2": 256, "dnabert-s": 256})
        return stand_in.recorded(*models.values())


def check(golden: Golden, models: dict[str, Path], precision: str) -> SelfCheck:
    return check_models(golden, models, device=CUDA, precision=precision, on_outcome=lambda _: None)


@pytest.mark.parametrize("precision", ["float32", "float16", FP8])
def test_the_stand_in_passes_in_every_precision(
    golden: Golden, models: dict[str, Path], precision: str
) -> None:
    found = check(golden, models, precision)
    assert [(o.model, o.diagnosis) for o in found.outcomes if not o.passed] == []
    used = {o.model: o.precision for o in found.outcomes}
    assert used["esm2-3b"] == precision
    assert used["dnabert-s"] == ("float16" if precision == "fp8" else precision)
    for outcome in found.outcomes[:2]:
        assert outcome.vectors is not None
        assert 0 < outcome.vectors < BOUNDS[outcome.precision].vectors
    assert found.agreeing == 8
    assert found.difference is not None
    assert found.difference < BOUNDS[precision].scores


@pytest.mark.parametrize("precision", ["float16", FP8])
def test_a_fault_is_named_in_every_precision(
    golden: Golden, models: dict[str, Path], tmp_path: Path, precision: str
) -> None:
    last = f"encoder.layer.{stand_in.LAYERS - 1}."

    def halve(state: State) -> None:
        for name in [n for n in state if n.startswith(last) and n.endswith("output.dense.weight")]:
            state[name] *= 0.3

    def exchange(state: State) -> None:
        for part in ("weight", "bias"):
            state[f"output_layer.{part}"] = state[f"output_layer.{part}"].flip(0)

    faulty = models | {
        "esm2-3b": stand_in.changed(models["esm2-3b"], tmp_path / "esm2", halve),
        "virnucpro-500": stand_in.changed(models["virnucpro-500"], tmp_path / "classifier", exchange),
    }
    found = {o.model: o for o in check(golden, faulty, precision).outcomes}
    assert [o.passed for o in found.values()] == [True, False, False]
    assert "another model or revision" in found["esm2-3b"].diagnosis
    assert "its two outputs are exchanged" in found["virnucpro-500"].diagnosis
