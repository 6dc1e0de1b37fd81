"""Before the work begins: are the GPUs there, can they compute in the precision, have they room for the models?"""

import subprocess
import sys

import pytest
import torch

from virnucpro_core.devices import fitness
from virnucpro_core.devices.fitness import check_cpu, check_gpus, check_memory
from virnucpro_core.devices.visible import Device, Facts
from virnucpro_core.errors import DeviceError

GPUS = [Device("GPU-a", "Card A"), Device("GPU-b", "Card B")]
FACTS = {
    "GPU-a": Facts(80_000_000_000, 79_000_000_000, (9, 0)),
    "GPU-b": Facts(24_000_000_000, 3_000_000_000, (8, 0)),
}


def facts(device: Device) -> Facts:
    return FACTS[device.uuid]


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """PyTorch as if it was built with CUDA."""
    monkeypatch.setattr(fitness, "built_with_cuda", lambda: True)
    return monkeypatch


def test_what_torch_was_built_with_is_known_without_importing_it() -> None:
    assert fitness.built_with_cuda() is (torch.version.cuda is not None)
    code = (
        "from virnucpro_core.devices import fitness; fitness.built_with_cuda(); print('torch' in sys.modules)"
    )
    code = f"import sys; {code}"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"


def test_the_cpu_computes_float32_only() -> None:
    check_cpu("float32")
    with pytest.raises(DeviceError, match="but fp8 was requested; use --precision float32"):
        check_cpu("fp8")


def test_devices_that_are_missing_are_said(with_cuda: pytest.MonkeyPatch) -> None:
    check_gpus(GPUS, 2, "float16", facts)
    check_gpus(GPUS, 1, "fp8", facts)
    with pytest.raises(DeviceError, match=r"3 GPUs were requested, 2 can be used; give --gpus 2"):
        check_gpus(GPUS, 3, "float16", facts)
    with pytest.raises(DeviceError, match=r"GPU-b: Card B cannot compute in fp8: .* 8\.0, 8\.9 is needed"):
        check_gpus(GPUS, 2, "fp8", facts)
    with pytest.raises(DeviceError, match="none is visible"):
        check_gpus([], 1, "float16", facts)
    with_cuda.setattr(fitness, "built_with_cuda", lambda: False)
    with pytest.raises(DeviceError, match="built without CUDA"):
        check_gpus(GPUS, 1, "float16", facts)


def test_a_gpu_without_room_is_said_unless_the_room_is_given_back() -> None:
    check_memory(GPUS[:1], 6_000_000_000, lambda _: "", facts)
    with pytest.raises(
        DeviceError, match=r"GPU-b: Card B has 3\.0 GB of 24\.0 GB memory free, 7\.0 GB needed"
    ):
        check_memory(GPUS, 6_000_000_000, lambda _: "", facts)
    check_memory(GPUS, 6_000_000_000, lambda _: "process 7", facts)  # it waits for the lease
    with pytest.raises(DeviceError, match="Card B"):
        check_memory(GPUS, 30_000_000_000, lambda _: "process 7", facts)
