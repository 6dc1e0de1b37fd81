"""Finds and repairs incomplete SQLite databases of a Dagster instance.

Dagster creates three databases when an instance is first opened. If two processes do so at the same time, or one is
killed while it does, a database can be left without a schema version or with two, and no later process can open it.
This module works on files and tables, and never imports Dagster.
"""

import contextlib
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from virnucpro_assets.platform.environment import postgres_asked, variable
from virnucpro_assets.platform.tags import FAILED_TAG
from virnucpro_core.errors import UsageError
from virnucpro_core.files.filesystem import FileSystem, file_system
from virnucpro_core.files.publish import sync

State = Literal["absent", "half-made", "whole"]
# Each file below the storage's folder, and its tables that hold the user's history.
RUNS = "history/runs.db"
HISTORY = {
    RUNS: ("runs", "bulk_actions", "kvs"),
    "history/runs/index.db": ("event_logs", "asset_keys", "dynamic_partitions"),
    "schedules/schedules.db": ("jobs", "job_ticks", "instigators"),
}
STORAGES = ("run_storage", "event_log_storage", "schedule_storage")


@dataclass(frozen=True, slots=True)
class Database:
    """One of the three databases: the file `name` below `folder`."""

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        return self.folder / self.name

    def state(self) -> State:
        """Whether the database is absent, half-made or whole.

        It is whole if it has exactly one schema version and at least one row in its tables. Raises sqlite3.Error if it
        cannot be read.
        """
        if not self.path.exists() or not self.path.stat().st_size:
            return "absent"
        with self._opened() as connection:
            tables = ("secondary_indexes", *HISTORY[self.name])
            whole = len(_versions(connection)) == 1 and any(_rows(connection, table) for table in tables)
            return "whole" if whole else "half-made"

    def versions(self) -> int:
        """How many schema versions are recorded in it: one, if it is whole."""
        with self._opened() as connection:
            return len(_versions(connection))

    def has_history(self) -> bool:
        """Whether it holds any run, event, partition or tick."""
        with self._opened() as connection:
            return any(_rows(connection, table) for table in HISTORY[self.name])

    def has_failures(self) -> bool:
        """Whether a failed run is recorded, or one with failed samples. For the database of the runs only."""
        with self._opened() as connection:
            if not (_has(connection, "runs") and _has(connection, "run_tags")):
                return True
            asked = (
                "SELECT 1 WHERE EXISTS (SELECT 1 FROM runs WHERE status = 'FAILURE')"
                " OR EXISTS (SELECT 1 FROM run_tags WHERE key = ?)"
            )
            return connection.execute(asked, (FAILED_TAG,)).fetchone() is not None

    def replace_by(self, made: Path) -> None:
        """Replace this database, which must be empty, by the file `made`, which no process may have open."""
        sync(made)
        for suffix in ("-wal", "-shm", "-journal"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        made.replace(self.path)
        sync(self.path.parent)

    def set_version(self, made: Path) -> None:
        """Replace several schema versions by that of the database `made`. The tables are complete in such a case."""
        with contextlib.closing(sqlite3.connect(made)) as fresh:
            [version] = _versions(fresh)
        with self._opened() as connection, connection:
            connection.execute("DELETE FROM alembic_version")
            connection.execute("INSERT INTO alembic_version (version_num) VALUES (?)", (version,))

    def _opened(self) -> contextlib.closing[sqlite3.Connection]:
        # Not read-only: SQLite must roll back what a killed process left in the journal.
        return contextlib.closing(sqlite3.connect(f"{self.path.as_uri()}?mode=rw", uri=True, timeout=30))


def databases(home: Path) -> list[Database]:
    """The SQLite databases of the instance in DAGSTER_HOME; none if its `dagster.yaml` names another storage.

    Raises UsageError if `dagster.yaml` is not valid YAML.
    """
    config = _read(home / "dagster.yaml")
    if any(config.get(storage) for storage in STORAGES):
        return []
    folder: Any = home
    if storage := config.get("storage"):
        if not isinstance(storage, Mapping) or not isinstance(storage.get("sqlite"), Mapping):
            return []
        folder = storage["sqlite"].get("base_dir", home)
        if isinstance(folder, Mapping):
            folder = variable(str(folder.get("env", ""))) or home
    return [Database(Path(folder), name) for name in HISTORY]


def network_place(home: Path) -> FileSystem | None:
    """The network file system on which the instance's SQLite databases lie, or would lie; None if all is well."""
    for database in databases(home):
        folder = database.path.parent
        found = file_system(next(p for p in (folder, *folder.parents) if p.exists()))
        if found.network:
            return found
    return None


def refuse_network(home: Path) -> None:
    """Raise UsageError if SQLite databases lie on a network file system, or would be made there."""
    if postgres_asked() and not (home / "dagster.yaml").exists():
        return  # the instance will be made in PostgreSQL
    found = network_place(home)
    if found is not None:
        raise UsageError(
            f"Dagster's records are kept in SQLite, and SQLite does not work on a network disk "
            f"({found.kind} at {found.mount})",
            where=home,
            remedy="give --scratch a folder on a local disk, or use PostgreSQL: see docs/clusters.md, a home that fits",
        )


def half_made(home: Path) -> list[str]:
    """Names of the databases that an interrupted first start has left half-made.

    Raises sqlite3.Error if one cannot be read, and UsageError as `databases` does.
    """
    return [database.name for database in databases(home) if database.state() == "half-made"]


def has_failures(home: Path) -> bool:
    """Whether a run, or a sample in a run of several, may have failed. False only if the SQLite records show none.

    So a command that would only learn that nothing failed need not import Dagster, which takes seconds.
    """
    runs = [database for database in databases(home) if database.name == RUNS]
    if not runs:
        return True  # another storage
    with contextlib.suppress(sqlite3.Error):
        return runs[0].state() != "absent" and runs[0].has_failures()
    return True


def _read(config: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(config.read_bytes())
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise UsageError(f"is not valid YAML ({line})", where=config, remedy="correct the file") from error
    return found if isinstance(found, Mapping) else {}


def _versions(connection: sqlite3.Connection) -> list[str]:
    if not _has(connection, "alembic_version"):
        return []
    return [version for (version,) in connection.execute("SELECT version_num FROM alembic_version")]


def _rows(connection: sqlite3.Connection, table: str) -> bool:
    found = _has(connection, table) and connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()  # noqa: S608 - the table names are constants
    return bool(found)


def _has(connection: sqlite3.Connection, table: str) -> bool:
    asked = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.execute(asked, (table,)).fetchone() is not None
