"""The instance is made once, whole, whoever comes at the same time; what was left half-made is mended."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from virnucpro_assets.cli.doctor import _instance
from virnucpro_assets.platform import instance as module
from virnucpro_assets.platform.databases import HISTORY, Database, databases, half_made
from virnucpro_assets.platform.instance import open_instance, prepare_instance
from virnucpro_core.errors import StoreError, UsageError
from virnucpro_core.files.publish import TEMPORARY

OPEN = """
import sys
sys.stdin.readline()
from virnucpro_assets.platform.instance import database_errors, open_instance
with database_errors(), open_instance() as instance:
    instance.add_dynamic_partitions("sample", [sys.argv[1]])
    print(instance.get_runs_count())
"""
OLD = "5771160a95ad"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DAGSTER_HOME that is not there yet."""
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home" / "dagster"))
    monkeypatch.setattr(module, "OTHERS_SECONDS", 0.3)
    return tmp_path / "home" / "dagster"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instance in which a partition was recorded, to copy."""
    folder, before = tmp_path_factory.mktemp("whole"), dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIRNUCPRO_HOME", str(folder))
        patch.setenv("DAGSTER_HOME", str(folder / "dagster"))
        with open_instance() as instance:
            instance.add_dynamic_partitions("sample", ["kept"])
            instance.create_run_for_job(dg.job(name="j")(lambda: None))
    os.environ.clear()  # opening the instance has exported the settings of this home
    os.environ.update(before)
    return folder / "dagster"


def partitions() -> set[str]:
    with open_instance() as instance:
        return set(instance.get_dynamic_partitions("sample"))


def test_many_first_starts_at_once_all_succeed(home: Path) -> None:
    words = [[sys.executable, "-c", OPEN, f"s{number}"] for number in range(6)]
    started = [
        subprocess.Popen(w, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for w in words
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=200) for process in started]
    assert [process.returncode for process in started] == [0] * 6, ends
    assert not any("Traceback" in err for _, err in ends)
    assert [database.state() for database in databases(home)] == ["whole"] * 3
    assert partitions() == {f"s{number}" for number in range(6)}
    assert not list(home.rglob(f"{TEMPORARY}*"))


def run_sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def two_versions(path: Path) -> None:
    run_sql(path, f"INSERT INTO alembic_version (version_num) VALUES ('{OLD}')")


def no_version(path: Path) -> None:
    run_sql(path, "DELETE FROM alembic_version")


def no_version_table(path: Path) -> None:
    run_sql(path, "DROP TABLE alembic_version")


def first_table(path: Path) -> None:
    path.unlink()
    run_sql(path, "CREATE TABLE secondary_indexes (id INTEGER)")


def no_indexes(path: Path) -> None:
    run_sql(path, "DELETE FROM secondary_indexes")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("name", list(HISTORY))
@pytest.mark.parametrize(
    "harm", [two_versions, no_version, no_version_table, first_table, no_indexes, empty, gone]
)
def test_a_half_made_database_without_history_is_made_anew(
    home: Path, name: str, harm: Callable[[Path], None]
) -> None:
    prepare_instance()
    harm(home / name)
    states = {database.name: database.state() for database in databases(home)}
    assert states.pop(name) != "whole"
    assert set(states.values()) == {"whole"}
    if states := half_made(home):
        assert f"half-made: {name}" in _instance(home).text
    with open_instance() as instance:
        assert instance.get_runs() == []
        assert instance.all_instigator_state() == []
    assert half_made(home) == []
    assert _instance(home).text == "complete"


def test_two_versions_with_history_become_one_and_the_history_stays(home: Path, whole: Path) -> None:
    shutil.copytree(whole, home)
    for name in HISTORY:
        two_versions(home / name)
    assert half_made(home) == list(HISTORY)
    assert partitions() == {"kept"}
    with open_instance() as instance:
        assert [run.job_name for run in instance.get_runs()] == ["j"]
    assert half_made(home) == []


def test_history_without_a_version_is_left_to_dagster(home: Path, whole: Path) -> None:
    """So did an old Dagster leave it."""
    shutil.copytree(whole, home)
    no_version(home / "history" / "runs.db")
    with open_instance() as instance:
        assert [run.job_name for run in instance.get_runs()] == ["j"]
    assert half_made(home) == []


def test_a_whole_instance_is_opened_without_a_lock(home: Path, whole: Path) -> None:
    shutil.copytree(whole, home)
    (home / module.LOCK).unlink()
    assert partitions() == {"kept"}
    assert not (home / module.LOCK).exists()


def test_killed_at_any_moment_the_next_start_makes_it_whole(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    for after in range(5):  # three databases, the dialog's file, the configuration
        shutil.rmtree(home, ignore_errors=True)
        left = iter(range(after))
        real = Path.replace

        def replace(self: Path, target: Path, left=left, real=real) -> Path:  # type: ignore[no-untyped-def]
            if next(left, None) is None:
                raise KilledError
            return real(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            with pytest.raises(KilledError):
                prepare_instance()
        assert not (home / "dagster.yaml").exists()
        assert all(database.state() in ("absent", "whole") for database in databases(home))
        assert partitions() == set()
        assert {database.state() for database in databases(home)} == {"whole"}


def test_a_file_that_is_no_database_is_said_in_one_line(home: Path) -> None:
    prepare_instance()
    (home / "history" / "runs.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="error in the Dagster instance's database: file is not a database"):
        prepare_instance()
    report = _instance(home)
    assert report.good is False
    assert "cannot be read: file is not a database" in report.text


def test_another_storage_is_the_sites_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir(parents=True)
    config = home / "dagster.yaml"
    assert databases(home) == [Database(home, name) for name in HISTORY]
    for text, folder in (
        ("storage: {postgres: {postgres_url: x}}", None),
        ("run_storage: {module: m, class: C}", None),
        ("storage: {sqlite: {base_dir: /elsewhere}}", "/elsewhere"),
        ("storage: {sqlite: {base_dir: {env: PLACE}}}", "/place"),
        ("telemetry: {enabled: false}", str(home)),
        ("", str(home)),
    ):
        monkeypatch.setenv("PLACE", "/place")
        config.write_text(text)
        assert {str(database.folder) for database in databases(home)} == ({folder} if folder else set())
    config.write_text("{")
    with pytest.raises(UsageError, match="is not valid YAML"):
        databases(home)
    assert _instance(home).good is False
