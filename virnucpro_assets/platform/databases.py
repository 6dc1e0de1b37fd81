"""The SQLite databases of a Dagster instance: which there are, whether each is whole, how a half-made one is mended.

Dagster makes three of them when an instance is first opened. Two processes that do so at once, or one that is killed
meanwhile, leave databases that no later process can open: without a schema version, or with two. Knows files and
tables; never imports Dagster.
"""

import contextlib
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from virnucpro_assets.platform.environment import variable
from virnucpro_core.errors import UsageError
from virnucpro_core.files.publish import sync

State = Literal["absent", "half-made", "whole"]
# Each file below the storage's folder, and the tables of which a row is somebody's history.
HISTORY = {
    "history/runs.db": ("runs", "bulk_actions", "kvs"),
    "history/runs/index.db": ("event_logs", "asset_keys", "dynamic_partitions"),
    "schedules/schedules.db": ("jobs", "job_ticks", "instigators"),
}
STORAGES = ("run_storage", "event_log_storage", "schedule_storage")


@dataclass(frozen=True, slots=True)
class Database:
    """One of the three: `name` below `folder`."""

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        return self.folder / self.name

    def state(self) -> State:
        """Whole: its tables have one schema version, and its indexes or somebody's rows.

        Raises sqlite3.Error where it cannot be read.
        """
        if not self.path.exists() or not self.path.stat().st_size:
            return "absent"
        with self._opened() as connection:
            tables = ("secondary_indexes", *HISTORY[self.name])
            whole = len(_versions(connection)) == 1 and any(_rows(connection, table) for table in tables)
            return "whole" if whole else "half-made"

    def versions(self) -> int:
        """How many schema versions it says that it has."""
        with self._opened() as connection:
            return len(_versions(connection))

    def has_history(self) -> bool:
        """Whether anything was ever recorded in it."""
        with self._opened() as connection:
            return any(_rows(connection, table) for table in HISTORY[self.name])

    def replace_by(self, made: Path) -> None:
        """Put the database `made`, which nobody has open, in the place of this one, which holds nothing."""
        sync(made)
        for suffix in ("-wal", "-shm", "-journal"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        made.replace(self.path)
        sync(self.path.parent)

    def set_version(self, made: Path) -> None:
        """Leave one schema version of several: that of the database `made`. Each who wrote one had made all tables."""
        with contextlib.closing(sqlite3.connect(made)) as fresh:
            [version] = _versions(fresh)
        with self._opened() as connection, connection:
            connection.execute("DELETE FROM alembic_version")
            connection.execute("INSERT INTO alembic_version (version_num) VALUES (?)", (version,))

    def _opened(self) -> contextlib.closing[sqlite3.Connection]:
        # Not read-only: what a killed process left in the journal has to be rolled back.
        return contextlib.closing(sqlite3.connect(f"{self.path.as_uri()}?mode=rw", uri=True, timeout=30))


def databases(home: Path) -> list[Database]:
    """Those of the instance in DAGSTER_HOME; none where its `dagster.yaml` names another storage.

    Raises UsageError for a `dagster.yaml` that is no YAML.
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


def half_made(home: Path) -> list[str]:
    """Names of the databases that a first start, stopped or met by another, has left half-made.

    Raises sqlite3.Error where one cannot be read, UsageError as `databases` does.
    """
    return [database.name for database in databases(home) if database.state() == "half-made"]


def _read(config: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(config.read_bytes())
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise UsageError(f"is no YAML ({line})", where=config, remedy="mend it") from error
    return found if isinstance(found, Mapping) else {}


def _versions(connection: sqlite3.Connection) -> list[str]:
    if not _has(connection, "alembic_version"):
        return []
    return [version for (version,) in connection.execute("SELECT version_num FROM alembic_version")]


def _rows(connection: sqlite3.Connection, table: str) -> bool:
    found = _has(connection, table) and connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()  # noqa: S608 - our own names
    return bool(found)


def _has(connection: sqlite3.Connection, table: str) -> bool:
    asked = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.execute(asked, (table,)).fetchone() is not None
