"""What the tests of Nextflow and Snakemake share: a model store that nothing may write to, and the command on PATH."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from virnucpro_core.models.profiles import DEMO

IN_STORE = {"dnabert_s": "dnabert-s", "esm2": "esm2-3b", "classifier_300": "virnucpro-300"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the profile esm2-3b, with the demo's small models, that may only be read.

    Root can write to it all the same: `listing` shows whether somebody did.
    """
    store = tmp_path_factory.mktemp("shared") / "models"
    for ours, name in IN_STORE.items():
        shutil.copytree(DEMO / ours, store / name)
    for path in (*store.rglob("*"), store):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return store


@pytest.fixture
def outside(tmp_path: Path) -> dict[str, str]:
    """The environment of a task: a home and a temporary folder of its own, and no variable of this project."""
    variables = {
        k: v for k, v in os.environ.items() if not k.startswith(("VIRNUCPRO_", "DAGSTER_", "PYTHON"))
    }
    for name, folder in (("HOME", "user"), ("TMPDIR", "temporary")):
        (tmp_path / folder).mkdir()
        variables[name] = str(tmp_path / folder)
    return variables | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Name, size and time of change of everything below a folder, and of the folder itself."""
    paths = (folder, *folder.rglob("*"))
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}
