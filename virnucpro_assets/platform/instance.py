"""The Dagster instance of this VIRNUCPRO_HOME: made on first use, configured by the `dagster.yaml` beside this file."""

import contextlib
import importlib.util
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from alembic.util import CommandError
from dagster._core.storage.event_log.sqlite.sqlite_event_log import (
    INDEX_SHARD_NAME,
    SqliteEventLogStorage,
)
from dagster_shared.check import CheckError
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from virnucpro_assets.platform.databases import Database, databases
from virnucpro_assets.platform.environment import POSTGRES_URL, dagster_home, export, postgres_asked
from virnucpro_assets.platform.resource import platform_from_environment
from virnucpro_core.errors import StoreError, UsageError
from virnucpro_core.files.locks import locked
from virnucpro_core.files.publish import publish_bytes, sweep, temporary_folder

CONFIG = Path(__file__).with_name("dagster.yaml")
POSTGRES = Path(__file__).with_name("postgres.yaml")
LOCK = "virnucpro.lock"
# Dagster makes its databases in less than a second; a busy disk may take longer.
OTHERS_SECONDS = 5.0


def prepare_instance() -> Path:
    """DAGSTER_HOME with an instance that is whole; an existing one is left as the site made it.

    The first process makes it, all others wait for that. What an earlier start has left half-made is mended.
    Raises UsageError where PostgreSQL is asked for and the existing configuration, or this Python, has none,
    StoreError where the disk or a database refuses.
    """
    home = dagster_home()
    config = home / "dagster.yaml"
    if postgres_asked() and not importlib.util.find_spec("dagster_postgres"):
        raise UsageError(
            f"{POSTGRES_URL} is set and dagster-postgres is not installed",
            remedy="pip install 'virnucpro[postgres]'",
        )
    with database_errors():
        if not config.exists() or _unfinished(home):
            with locked(home / LOCK, busy="the Dagster instance is being made", wait=True):
                _make(home)
    if postgres_asked() and "postgres" not in config.read_text(encoding="utf-8"):
        raise UsageError(
            f"{POSTGRES_URL} is set, but this instance keeps its records in SQLite",
            where=config,
            remedy=f"append {POSTGRES} to it, or unset the variable; see docs/operations.md",
        )
    export(platform_from_environment())
    return home


def open_instance() -> dg.DagsterInstance:
    """The instance, made ready if it is new. Close it, or use it as a context manager.

    Raises UsageError for a `dagster.yaml` that Dagster cannot use, such as one that asks for what is not installed.
    """
    home = prepare_instance()
    try:
        return dg.DagsterInstance.get()
    except (CheckError, dg.DagsterInvalidConfigError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            reason,
            where=home / "dagster.yaml",
            remedy="mend it; PostgreSQL needs `pip install 'virnucpro[postgres]'`",
        ) from error


def _unfinished(home: Path) -> list[Database]:
    return [database for database in databases(home) if database.state() != "whole"]


def _make(home: Path) -> None:
    """Make what is missing of the instance, each file whole or not at all, the configuration last.

    Called under the lock. Dagster itself knows no lock: a `dagster` command may be making the databases just now, and
    is given time to end.
    """
    config = home / "dagster.yaml"
    is_new = not config.exists()
    if is_new and postgres_asked():
        text = CONFIG.read_bytes() + POSTGRES.read_bytes()
        with _instance_made(home, text):
            pass  # the tables are there
    else:
        text = CONFIG.read_bytes()
        _make_databases(home, databases(home))
    if is_new:
        # The web UI's first-visit dialog asks for a newsletter; it would cover the asset graph.
        publish_bytes(home / ".nux" / "nux.yaml", b"seen: 1\n")
        publish_bytes(config, text)


def _make_databases(home: Path, wanted: Sequence[Database]) -> None:
    deadline = time.monotonic() + OTHERS_SECONDS
    while any(d.state() == "half-made" for d in wanted) and time.monotonic() < deadline:
        time.sleep(0.1)
    if all(database.state() == "whole" for database in wanted):
        return
    with _instance_made(home, b"telemetry: {enabled: false}\n") as made:
        for database in wanted:
            state = database.state()  # others may have made it by now
            if state == "whole":
                continue
            if state == "absent" or not database.has_history():
                database.replace_by(made / database.name)
            elif database.versions() > 1:
                database.set_version(made / database.name)
            # One with history and without a version is of an old Dagster, which knows how to go on with it.


@contextlib.contextmanager
def _instance_made(home: Path, config: bytes) -> Iterator[Path]:
    """A folder with an instance that Dagster has made from the configuration; gone when the block ends."""
    sweep(home)
    with temporary_folder(home) as made:
        (made / "dagster.yaml").write_bytes(config)
        dg.DagsterInstance.from_config(str(made)).dispose()
        yield made


@contextlib.contextmanager
def quick_event_log(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Inside the block an event costs SQLite no wait for the disk; nothing to do where the log is no SQLite.

    Dagster opens and closes the files of the log for each event. Here they stay open, so that not every close writes
    the write-ahead log back, and a commit is not synced (SQLite's `synchronous = NORMAL`): a machine that loses power
    may lose the latest records, never the database. What is done is told by the manifests.
    """
    if not isinstance(log := instance.event_log_storage, SqliteEventLogStorage):
        yield
        return
    with contextlib.ExitStack() as held:
        for shard in (INDEX_SHARD_NAME, run_id):
            connection = sqlite3.connect(log.path_for_shard(shard))
            held.callback(connection.close)
            connection.execute("SELECT 1 FROM sqlite_master").close()  # it is open from its first read
        event.listen(Engine, "connect", _unsynced)
        held.callback(event.remove, Engine, "connect", _unsynced)
        yield


def _unsynced(connection: Any, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = NORMAL").close()


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """What the instance's database refuses inside the block becomes a StoreError of one line."""
    try:
        yield
    except _errors_of_databases() as error:
        told = error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error
        reason = str(getattr(told, "orig", None) or told).strip().splitlines()[0]
        raise StoreError(
            f"the Dagster instance's database refuses: {reason}",
            where=dagster_home(),
            remedy=(
                "use PostgreSQL if this recurs (docs/operations.md)"
                if "locked" in reason
                else "check the database and the disk"
            )
            + ", then run the same command again; nothing finished is lost",
        ) from error


def _errors_of_databases() -> tuple[type[Exception], ...]:
    """SQLAlchemy's, SQLite's and alembic's, and where it is in use what dagster-postgres raises in place of those."""
    known = (SQLAlchemyError, sqlite3.Error, CommandError)
    postgres = sys.modules.get("dagster_postgres.utils")
    return known if postgres is None else (*known, postgres.DagsterPostgresException)
