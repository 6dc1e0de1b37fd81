"""A sample of the sweep of `torture/writes.py`, and the paths it does not take."""

import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from tests.support import ROOT
from torture.faults import ERRORS, build, compiler, environment
from torture.writes import run_sweep
from virnucpro_core.errors import StoreError
from virnucpro_core.files.publish import publish_folder
from virnucpro_core.models.profiles import DEMO

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="the switch that fails system calls needs a C compiler"
)
STRIDE = 149


def test_a_disk_that_refuses_any_call_costs_one_line_and_nothing_else(tmp_path: Path) -> None:
    row = run_sweep(tmp_path, stride=STRIDE)
    assert row.findings == []
    assert row.points > 10
    assert row.clean


def _virnucpro(folder: Path, *words: object, **fault: object) -> "subprocess.CompletedProcess[str]":
    """`virnucpro ...` with a fault below `folder`, in a home of its own."""
    home = {"VIRNUCPRO_HOME": str(folder / "home"), "DAGSTER_HOME": "", "VIRNUCPRO_PROFILE": "demo"}
    return subprocess.run(
        [sys.executable, "-m", "virnucpro_assets.cli.main", *map(str, words)],
        env=environment(build(folder), below=folder.resolve(), **fault) | home | {"VIRNUCPRO_GPUS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("call", [2, 11, 12, 14])
def test_embeddings_on_a_full_disk_are_refused_and_never_zeros(tmp_path: Path, call: int) -> None:
    (tmp_path / "a.fa").write_text(">a\nMKV\n>b\nMLK\n")
    out = tmp_path / "out" / "a.h5"
    words = ("embed", "esm2", tmp_path / "a.fa", "--weights", DEMO / "esm2", "--out", out)
    done = _virnucpro(tmp_path, *words, at=call, errno=ERRORS["ENOSPC"], lasts=0)
    assert done.returncode == 3, done
    assert "No space left on device" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert [f.name for f in (tmp_path / "out").glob("*")] == []
    done = _virnucpro(tmp_path, *words, at=0, errno=ERRORS["ENOSPC"], lasts=0)
    with h5py.File(out) as file:
        assert file["embeddings"][:].any(axis=1).all()


@pytest.mark.parametrize(("error", "call"), [("ENOSPC", 60), ("EMFILE", 150)])
def test_a_refusing_disk_stops_predict_with_one_line(tmp_path: Path, error: str, call: int) -> None:
    words = (
        "predict",
        DEMO / "non_viral.fa",
        "--profile",
        "demo",
        "--chunk-size",
        300,
        "--out",
        tmp_path / "out",
        "--quiet",
    )
    done = _virnucpro(tmp_path, *words, at=call, errno=ERRORS[error], lasts=1)
    assert done.returncode in (2, 3), done
    assert "Traceback" not in done.stderr + done.stdout
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with publish_folder(tmp_path / "model") as folder:
        (folder / "weights").write_bytes(b"old")
    real = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if target == tmp_path / "model" and self.parent == tmp_path:
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StoreError, match="No space left"), publish_folder(tmp_path / "model") as folder:
        (folder / "weights").write_bytes(b"new")
    assert [f.name for f in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "weights").read_bytes() == b"old"
    shutil.rmtree(tmp_path / "model")
