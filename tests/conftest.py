"""Fixtures of all tests, and what has to be set before anything is imported."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# The partition keys follow the environment when the definitions are imported: two lanes on the CPU.
os.environ.update(VIRNUCPRO_GPUS="2", VIRNUCPRO_DEVICE="cpu", VIRNUCPRO_PROFILE="demo")
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported: its kernels then run on the CPU

# A job in a shell's background ignores SIGINT, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Stores are synced to disk: a slow disk is no failure.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Golden files beside the repository; tests that need them are skipped where they are absent."""
    root = Path(__file__).resolve().parents[1]
    for folder in (root / "shared", root.parent / "shared", root.parent.parent / "shared"):
        if folder.is_dir():
            return folder
    pytest.skip("the shared golden files are not here")
