"""What a process sets up before it computes on a GPU."""

import os
from pathlib import Path

import pytest

from virnucpro_assets.platform.resource import platform_from_environment
from virnucpro_core.devices.leases import ProcessDevice


def process(monkeypatch: pytest.MonkeyPatch) -> ProcessDevice:
    """The device of this process, on a machine whose driver shows no GPU."""
    monkeypatch.setattr("virnucpro_assets.platform.resource.visible_devices", list)
    return platform_from_environment().device_leases().process


def test_compiled_kernels_go_below_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Triton's own place is below HOME, which a container may not have or not be allowed to write."""
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    process(monkeypatch).narrow("GPU-1")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path / "cache/triton")
    assert list(tmp_path.iterdir()) == []


def test_a_site_may_have_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("TRITON_CACHE_DIR", "/scratch/kernels")
    process(monkeypatch).narrow("GPU-1")
    assert os.environ["TRITON_CACHE_DIR"] == "/scratch/kernels"
