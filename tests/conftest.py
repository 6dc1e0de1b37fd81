"""Fixtures that every test may use."""

from pathlib import Path

import pytest
from hypothesis import settings

# Stores are synced to disk: a slow disk is no failure.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden files beside the repository; tests that need it are skipped without it."""
    repository = Path(__file__).resolve().parents[1]
    for folder in (repository.parent / "shared", repository.parent.parent / "shared"):
        if folder.is_dir():
            return folder
    pytest.skip("the golden files are not here")
