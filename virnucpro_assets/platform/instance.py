"""The Dagster instance of this VIRNUCPRO_HOME: made on first use, configured by the `dagster.yaml` beside this file."""

import contextlib
import importlib.util
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from alembic.util import CommandError
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
    if not config.exists() and not postgres_asked():
        _make_databases(home, databases(home))
    if not config.exists():
        # The web UI's first-visit dialog asks for a newsletter; it would cover the asset graph.
        publish_bytes(home / ".nux" / "nux.yaml", b"seen: 1\n")
        publish_bytes(config, CONFIG.read_bytes() + (POSTGRES.read_bytes() if postgres_asked() else b""))
    _make_databases(home, databases(home))


def _make_databases(home: Path, wanted: Sequence[Database]) -> None:
    deadline = time.monotonic() + OTHERS_SECONDS
    while any(d.state() == "half-made" for d in wanted) and time.monotonic() < deadline:
        time.sleep(0.1)
    open_ones = [(database, state) for database in wanted if (state := database.state()) != "whole"]
    if not open_ones:
        return
    sweep(home)
    with temporary_folder(home) as made:
        (made / "dagster.yaml").write_bytes(b"telemetry: {enabled: false}\n")
        dg.DagsterInstance.from_config(str(made)).dispose()
        for database, state in open_ones:
            if state == "absent" or not database.has_history():
                database.replace_by(made / database.name)
            elif database.versions() > 1:
                database.set_version(made / database.name)
            # One with history and without a version is of an old Dagster, which knows how to go on with it.


@contextlib.contextmanager
def quick_event_log(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Inside the block an event of the run costs SQLite no wait for the disk; nothing to do where the log is no SQLite.

    Dagster opens and closes the files of the log for each event. Here they stay open, so that not every close writes
    the write-ahead log back, and a commit to them, and to no other database, is not synced (SQLite's `synchronous =
    NORMAL`): a machine that loses power may lose the latest records, never the database. What is done is told by the
    manifests. An event took 25 to 60 ms without this and 7 to 16 ms with it, on a busy disk (1.7 ms a sync).
    """
    folder = Path(instance.root_directory) / "history" / "runs"
    files = [folder / f"{name}.db" for name in ("index", run_id)]

    def unsynced(connection: Any, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            [(_, _, file), *_] = connection.execute("PRAGMA database_list").fetchall()
            if file and Path(file) in files:
                connection.execute("PRAGMA synchronous = NORMAL").close()

    with contextlib.ExitStack() as held:
        for file in files:
            if not file.exists():
                continue
            connection = sqlite3.connect(file)
            held.callback(connection.close)
            connection.execute("SELECT 1 FROM sqlite_master").close()  # it is open from its first read
        event.listen(Engine, "connect", unsynced)
        held.callback(event.remove, Engine, "connect", unsynced)
        yield


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """What the instance's database refuses inside the block becomes a StoreError of one line."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, CommandError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise StoreError(
            f"the Dagster instance's database refuses: {reason}",
            where=dagster_home(),
            remedy=(
                "use PostgreSQL if this recurs (docs/operations.md)"
                if "locked" in reason
                else "mend the disk"
            )
            + ", then run the same command again; nothing finished is lost",
        ) from error
