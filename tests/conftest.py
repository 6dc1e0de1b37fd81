"""Fixtures of all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The partition keys follow the environment when the definitions are imported: two lanes on the CPU.
os.environ.update(VIRNUCPRO_GPUS="2", VIRNUCPRO_DEVICE="cpu", VIRNUCPRO_PROFILE="demo")

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
