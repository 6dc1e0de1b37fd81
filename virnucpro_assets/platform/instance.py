"""Creates and opens the Dagster instance of this VIRNUCPRO_HOME. Its settings come from `dagster.yaml` here."""

import contextlib
import functools
import importlib.util
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from alembic.util import CommandError
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster_shared.check import CheckError
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from virnucpro_assets.platform.databases import Database, databases, refuse_network
from virnucpro_assets.platform.environment import POSTGRES_URL, dagster_home, export, postgres_asked
from virnucpro_assets.platform.resource import platform_from_environment
from virnucpro_core.errors import StoreError, UsageError
from virnucpro_core.files.disk import free_space
from virnucpro_core.files.locks import locked
from virnucpro_core.files.publish import publish_bytes, sweep, temporary_folder

CONFIG = Path(__file__).with_name("dagster.yaml")
POSTGRES = Path(__file__).with_name("postgres.yaml")
LOCK = "virnucpro.lock"
# How long to wait for another process that creates the databases. That takes less than a second on a quiet disk.
OTHERS_SECONDS = 5.0
# Under these keys Dagster's daemon keeps how far it has read the event log.
EVENT_CURSORS = {f"EVENT_LOG_CONSUMER_CURSOR-{kind}" for kind in ("PIPELINE_FAILURE", "PIPELINE_SUCCESS")}


def prepare_instance() -> Path:
    """Make sure that DAGSTER_HOME holds a complete instance, and return this folder.

    The first process creates the instance under a lock; others wait. Databases that an interrupted start left half-made
    are repaired. An existing configuration is not changed. Raises UsageError if PostgreSQL is requested but is not
    installed or not in the existing configuration, or if SQLite would lie on a network disk; StoreError for an error of
    the disk or a database.
    """
    home = dagster_home()
    config = home / "dagster.yaml"
    if postgres_asked() and not importlib.util.find_spec("dagster_postgres"):
        raise UsageError(
            f"{POSTGRES_URL} is set and dagster-postgres is not installed",
            remedy="pip install 'virnucpro[postgres]'",
        )
    refuse_network(home)
    with database_errors():
        if not config.exists() or _unfinished(home):
            with locked(home / LOCK, busy="another process is creating the Dagster instance", wait=True):
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
    """Open the instance, and create it first if needed. Close it, or use it as a context manager.

    Raises UsageError for a `dagster.yaml` that Dagster cannot use, such as one that names a package that is not
    installed.
    """
    home = prepare_instance()
    try:
        return dg.DagsterInstance.get()
    except (CheckError, dg.DagsterInvalidConfigError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            reason,
            where=home / "dagster.yaml",
            remedy="correct the file; PostgreSQL needs `pip install 'virnucpro[postgres]'`",
        ) from error


def _unfinished(home: Path) -> list[Database]:
    return [database for database in databases(home) if database.state() != "whole"]


def _make(home: Path) -> None:
    """Create the missing parts of the instance. Each file appears complete or not at all; the configuration comes last.

    Call this under the lock. Dagster itself uses no lock: a `dagster` command may be creating the databases at the same
    time, so this waits for it first.
    """
    config = home / "dagster.yaml"
    is_new = not config.exists()
    if is_new and postgres_asked():
        text = CONFIG.read_bytes() + POSTGRES.read_bytes()
        with _instance_made(home, text):
            pass  # opening it once has created the tables
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
            # A database with history but no version comes from an old Dagster release. Dagster upgrades it itself.


@contextlib.contextmanager
def _instance_made(home: Path, config: bytes) -> Iterator[Path]:
    """Yield a temporary folder with an instance that Dagster creates from this configuration."""
    sweep(home)
    with temporary_folder(home) as made:
        (made / "dagster.yaml").write_bytes(config)
        dg.DagsterInstance.from_config(str(made)).dispose()
        yield made


def begin_event_log(instance: dg.DagsterInstance) -> None:
    """Note where Dagster's daemon begins to read the event log, if it has never run: at the newest event.

    The daemon itself would begin there too, but with two warnings that a person cannot do anything about.
    """
    known = instance.daemon_cursor_storage.get_cursor_values(EVENT_CURSORS)
    missing = EVENT_CURSORS - known.keys()
    if missing:
        newest = str(instance.event_log_storage.get_maximum_record_id() or 0)
        instance.daemon_cursor_storage.set_cursor_values(dict.fromkeys(missing, newest))


class _Kept(sqlite3.Connection):
    """A connection that is used again and again: to close it ends its transaction, and leaves the file open."""

    in_use = False

    def close(self) -> None:
        self.rollback()
        self.in_use = False

    def end(self) -> None:
        """Close the file."""
        super().close()


@contextlib.contextmanager
def quick_event_log(instance: dg.DagsterInstance) -> Iterator[None]:
    """Inside the block, SQLite does not wait for the disk when this process records an event of a run.

    Dagster makes an SQLAlchemy engine for each event, and opens and closes the event log's files. Inside the block an
    engine is made once for each file, so that its statements are compiled once, and each thread opens such a file once
    and keeps it open. So SQLite need not read its schema again, nor write its write-ahead log back at every close. It
    also sets `synchronous = NORMAL` for these files, and for no other database: a commit is then not synced to disk.
    After a power failure the latest events may be lost, but the database stays intact, and the manifests still say
    which shards are finished. If the event log is not in SQLite, the block has no effect.
    """
    folder = Path(instance.root_directory, "history", "runs").resolve()
    kept: dict[tuple[int, str], _Kept] = {}

    @functools.cache
    def is_of_event_log(file: str) -> bool:
        return Path(file).resolve().parent == folder

    def connected(dialect: Any, _record: object, words: Sequence[Any], options: Mapping[str, Any]) -> Any:
        if dialect.name != "sqlite" or not is_of_event_log(str(words[0])):
            return None  # as always
        key = (threading.get_ident(), str(words[0]))
        known = kept.get(key)
        if known is not None and not known.in_use:
            known.in_use = True
            return known
        if known is None:  # the thread of the block closes it at the end
            options = {**options, "factory": _Kept, "check_same_thread": False}
        # Else this thread has it in use, for something around this, and gets one that is closed as always.
        made = dialect.connect(*words, **options)
        made.execute("PRAGMA synchronous = NORMAL").close()
        if known is None:
            kept[key] = made
            made.in_use = True
        return made

    engines: dict[str, Engine] = {}
    names = vars(sqlite_event_log)
    made_engine = names["create_engine"]

    def kept_engine(address: str, **options: Any) -> Engine:
        if address not in engines:
            engines[address] = made_engine(address, **options)
        return engines[address]

    event.listen(Engine, "do_connect", connected)
    names["create_engine"] = kept_engine
    try:
        yield
    finally:
        names["create_engine"] = made_engine
        event.remove(Engine, "do_connect", connected)
        for connection in kept.values():
            connection.end()


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """Turn database errors inside the block into a StoreError of one line."""
    try:
        yield
    except _errors_of_databases() as error:
        told = error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error
        reason = str(getattr(told, "orig", None) or told).strip().splitlines()[0]
        home = dagster_home()
        raise StoreError(
            f"error in the Dagster instance's database: {reason}{free_space(home) if 'disk' in reason else ''}",
            where=home,
            remedy=(
                "use PostgreSQL if this recurs (docs/operations.md)"
                if "locked" in reason
                else "check the database and the disk"
            )
            + ", then run the same command again; finished work is kept",
        ) from error


def _errors_of_databases() -> tuple[type[Exception], ...]:
    """The exceptions of SQLAlchemy, SQLite and alembic, and the one with which dagster-postgres replaces them."""
    known = (SQLAlchemyError, sqlite3.Error, CommandError)
    postgres = sys.modules.get("dagster_postgres.utils")
    return known if postgres is None else (*known, postgres.DagsterPostgresException)
