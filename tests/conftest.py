"""Fixtures of all tests."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Golden files beside the repository; tests that need them are skipped where they are absent."""
    root = Path(__file__).resolve().parents[1]
    for folder in (root / "shared", root.parent / "shared", root.parent.parent / "shared"):
        if folder.is_dir():
            return folder
    pytest.skip("the shared golden files are not here")
