"""The workers of a new sample start before anything else, and end if the command comes to nothing."""

import shutil
from pathlib import Path

import psutil
import pytest

from tests.assets.conftest import Finished
from virnucpro_assets.running.predict import Watch, predict
from virnucpro_assets.running.workers import MODULE, early_workers
from virnucpro_core.errors import UsageError


def worker_processes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if MODULE in child.cmdline()]


def test_workers_start_early_only_where_there_may_be_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, out, home = tmp_path / "reads.fa", tmp_path / "out", tmp_path / "home"
    reads.write_text(">a\nACGT\n")
    monkeypatch.setenv("VIRNUCPRO_HOME", str(home))

    def started(*files: Path) -> int:
        with early_workers(files, out, gpus=3, device="cpu") as crew:
            assert len(crew.gpus) == 3
            return len(worker_processes())

    assert started(reads) == 0  # the home is not there, and is not made
    assert not home.exists()
    home.mkdir()
    assert started(reads) == 2  # a small sample has one lane
    assert started(reads, tmp_path / "missing.fa") == 0
    out.mkdir()
    assert started(reads) == 2
    (out / "run.json").touch()
    assert started(reads) == 0
    assert not worker_processes()
    assert list((home / "logs").iterdir()) == []


def test_workers_end_with_a_command_whose_instance_cannot_be_opened(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform, sample = finished.platform, finished.sample
    dagster_home = platform.folder / "dagster"
    monkeypatch.setenv("VIRNUCPRO_HOME", platform.home)
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
    shutil.rmtree(sample.results)
    dagster_home.mkdir(exist_ok=True)
    (dagster_home / "dagster.yaml").write_text("storage: {module: not_there, class: Storage}\n")
    with pytest.raises(UsageError):
        predict([sample], platform, Watch(*[lambda *_: None] * 3))
    assert not worker_processes()
    assert list((platform.folder / "logs").iterdir()) == []
