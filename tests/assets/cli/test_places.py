"""`--home` and `--scratch`, and what is told where SQLite would lie on a network disk."""

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from click.testing import CliRunner

from virnucpro_assets.cli.main import app
from virnucpro_assets.platform.environment import models_folder
from virnucpro_assets.platform.instance import prepare_instance
from virnucpro_core.errors import UsageError
from virnucpro_core.files.filesystem import FileSystem
from virnucpro_core.models.profiles import DEMO

DOCTOR = ["doctor", "--profile", "demo"]


@pytest.fixture
def nfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the list of mounts calls NFS."""
    folder, mounts = tmp_path / "nfs", psutil.disk_partitions(all=True)
    folder.mkdir()
    mount = SimpleNamespace(mountpoint=str(folder), fstype="nfs4", opts="rw,vers=4.2")
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: [*mounts, mount])
    for name in ("DAGSTER_HOME", "VIRNUCPRO_POSTGRES_URL", "VIRNUCPRO_MODELS"):
        monkeypatch.delenv(name, raising=False)
    return folder


def rows(*words: str) -> tuple[int, dict[str, str]]:
    """Exit code of the doctor, and its lines by their names."""
    done = CliRunner().invoke(app, [*DOCTOR, *words])
    found = (line.split(maxsplit=2 if line[:8].strip() else 1) for line in done.output.splitlines())
    return done.exit_code, {row[-2]: row[-1] for row in found if len(row) > 1}


def test_sqlite_on_a_network_disk_is_refused_before_anything_is_made(
    nfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRNUCPRO_HOME", str(nfs / "home"))
    with pytest.raises(UsageError) as refused:
        prepare_instance()
    assert "SQLite does not work on a network disk (nfs4 at" in str(refused.value)
    assert "--scratch" in str(refused.value)
    assert "PostgreSQL" in str(refused.value)
    assert list(nfs.iterdir()) == []


def test_predict_is_refused_before_it_reads_anything(nfs: Path, tmp_path: Path) -> None:
    words = ["predict", str(DEMO / "viral.fa"), "--profile", "demo", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--home", str(nfs / "home")])
    assert isinstance(done.exception, UsageError)
    assert "SQLite does not work on a network disk" in str(done.exception)
    assert list(nfs.iterdir()) == []


def test_the_doctor_says_where_the_records_lie(nfs: Path, tmp_path: Path) -> None:
    code, told = rows("--home", str(nfs / "home"))
    assert code == 2
    assert "SQLite does not work on a network disk" in told["records"]

    # Scratch first: the order of the options says nothing.
    code, told = rows("--scratch", str(tmp_path / "local"), "--home", str(nfs / "home"))
    assert code == 0
    assert told["VIRNUCPRO_HOME"] == str(nfs / "home")
    assert told["VIRNUCPRO_MODELS"] == str(nfs / "home" / "models")
    assert told["DAGSTER_HOME"] == str(tmp_path / "local" / "dagster")
    assert told["records"].startswith(f"in SQLite below {tmp_path / 'local' / 'dagster'}, on ")


def test_records_in_postgresql_may_lie_on_a_network_disk(nfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRNUCPRO_POSTGRES_URL", "postgresql+psycopg2://u@h/d")
    code, told = rows("--home", str(nfs / "home"))
    assert code == 0
    assert told["records"] == "in PostgreSQL, as VIRNUCPRO_POSTGRES_URL says"


def test_options_win_over_variables(nfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRNUCPRO_HOME", str(nfs))
    monkeypatch.setenv("DAGSTER_HOME", str(nfs / "records"))
    _, told = rows("--home", str(tmp_path / "home"))
    assert told["DAGSTER_HOME"] == str(tmp_path / "home" / "dagster")
    assert os.environ["VIRNUCPRO_HOME"] == str(tmp_path / "home")


def test_several_homes_can_share_one_model_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("VIRNUCPRO_MODELS", raising=False)
    assert models_folder() == tmp_path / "home" / "models"
    monkeypatch.setenv("VIRNUCPRO_MODELS", str(tmp_path / "store"))
    assert models_folder() == tmp_path / "store"
    _, told = rows("--home", str(tmp_path / "other"))
    assert told["VIRNUCPRO_MODELS"] == str(tmp_path / "store")


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        ("nfs4", True),
        ("lustre", True),
        ("gpfs", True),
        ("beegfs", True),
        ("fuse.sshfs", True),
        ("ext4", False),
        ("overlay", False),
        ("fuse.fuse-overlayfs", False),
        ("virtiofs", False),
        ("9p", False),
    ],
)
def test_which_file_systems_come_over_a_network(kind: str, network: bool) -> None:
    assert FileSystem(kind, Path("/"), ()).network is network
