"""The state of the inbox: one row for every entry, in a small SQLite file in the home folder.

Only changed rows are written, so a scan that finds no change writes nothing. All of the state can be rebuilt: a damaged
file is moved aside, and the next scan starts from an empty state.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Literal, Self

from virnucpro_core.errors import StoreError, printable

FILE = "inbox.sqlite"
Kind = Literal["arriving", "unreadable", "failing", "refused", "registered", "taken"]
# Kinds that a person should check. All of them but `refused` are tried again with every scan.
PROBLEMS = ("unreadable", "failing", "refused")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_LOCK_SECONDS = 10.0


@dataclass(slots=True)
class Row:
    """The state of one entry.

    name: the bytes that the file system gave (`os.fsencode`). identity: sizes and times of its sequence files and of
    its own settings files; activity: those of all its files. since: when this activity was first seen, in seconds of
    `clock`; None: before the last restart of the machine. kind: `arriving` while it changes or waits for something;
    `unreadable` and `failing` are tried again; `refused` stays where it is; `registered` is a sample, `taken` one whose
    files were read. said: the reason, for people. samples: names of the samples that it became, separated by spaces,
    also while changed files of the same entry arrive. marker: the NAME.done that was acted on. look: number of the scan
    that registered it.
    """

    name: bytes
    identity: str = ""
    activity: str = ""
    since: float | None = None
    kind: Kind = "arriving"
    said: str = ""
    samples: str = ""
    marker: str = ""
    look: int = 0

    @property
    def sample_names(self) -> list[str]:
        """Names of its samples."""
        return self.samples.split()

    @property
    def handled(self) -> bool:
        """Whether nothing remains to be done as long as the entry's identity stays the same."""
        return self.kind in ("registered", "taken", "refused")


@dataclass(frozen=True, slots=True)
class Left:
    """An entry that left the inbox: what became of it, and where it is.

    kind: `refused` or `taken`. samples: as in `Row`. at: seconds since 1970.
    """

    name: bytes
    kind: Kind
    said: str
    samples: str
    moved_to: bytes
    at: float

    @property
    def sample_names(self) -> list[str]:
        """Names of its samples."""
        return self.samples.split()


_COLUMNS = tuple(f.name for f in fields(Row))
_values = attrgetter(*_COLUMNS)
_MOVED = "name BLOB, kind TEXT, said TEXT, samples TEXT, moved_to BLOB PRIMARY KEY, at REAL"


def clock() -> float:
    """Seconds of a monotonic clock: setting the date does not change it, a restart of the machine resets it."""
    return time.monotonic()


class InboxState:
    """All rows, as a context manager: read on entry, written on exit if there was no exception.

    `boot` identifies the current start of the machine, from which `clock` counts. Raises StoreError.
    """

    def __init__(self, home: Path, boot: str = "") -> None:
        self.file, self.damaged = home / FILE, False
        self._boot = boot or _boot()
        self.rows: dict[bytes, Row] = {}
        self._stored: dict[bytes, tuple[object, ...]] = {}
        self._left: list[Left] = []

    def __enter__(self) -> Self:
        with _database_errors(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._connection = _open(self.file)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                self._put_aside()
                self._connection = _open(self.file)
            self._read()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with contextlib.closing(self._connection), _database_errors(self.file):
            if kind is None:
                self._write()

    @property
    def last_look(self) -> int:
        """Number of the latest scan that registered something, 0 for none."""
        return max((row.look for row in self.rows.values()), default=0)

    def leave(self, row: Row, kind: Kind, said: str, moved_to: Path) -> None:
        """Note that an entry was moved out of the inbox. Its row is dropped."""
        self.rows.pop(row.name, None)
        self._left.append(Left(row.name, kind, said, row.samples, os.fsencode(moved_to), time.time()))

    def _read(self) -> None:
        boots = dict(self._connection.execute("SELECT name, value FROM facts"))
        same_boot = boots.get("boot") == self._boot
        for values in self._connection.execute("SELECT * FROM entries"):
            row = Row(*values)
            self._stored[row.name] = values
            if not same_boot:
                row.since = None
            self.rows[row.name] = row

    def _write(self) -> None:
        changed = [v for name, row in self.rows.items() if (v := _values(row)) != self._stored.get(name)]
        gone = [(name,) for name in self._stored if name not in self.rows]
        if not (changed or gone or self._left):
            return
        places = ", ".join("?" * len(_COLUMNS))
        with self._connection:
            self._connection.execute("INSERT OR REPLACE INTO facts VALUES ('boot', ?)", (self._boot,))
            self._connection.executemany("DELETE FROM entries WHERE name = ?", gone)
            self._connection.executemany(f"INSERT OR REPLACE INTO entries VALUES ({places})", changed)  # noqa: S608
            left = [astuple(one) for one in self._left]
            self._connection.executemany("INSERT OR REPLACE INTO moved_away VALUES (?, ?, ?, ?, ?, ?)", left)

    def _put_aside(self) -> None:
        self.damaged = True
        for suffix in ("", "-journal"):
            file = self.file.with_name(FILE + suffix)
            with contextlib.suppress(FileNotFoundError):
                file.replace(self.file.with_name(f"{FILE}{suffix}.damaged"))


def noted_problems(home: Path) -> list[Row]:
    """Entries of the inbox with a problem (kinds PROBLEMS), sorted by name. Raises StoreError."""
    return [row for row in noted_entries(home) if row.kind in PROBLEMS]


def noted_entries(home: Path) -> list[Row]:
    """All entries that the latest scan saw in the inbox, sorted by name. Raises StoreError."""
    with _reading(home) as connection:
        if connection is None:
            return []
        return [Row(*values) for values in connection.execute("SELECT * FROM entries ORDER BY name")]


def moved_entries(home: Path) -> list[Left]:
    """Entries that were moved out of the inbox, sorted by name, then by time. Raises StoreError."""
    with _reading(home) as connection:
        if connection is None:
            return []
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
        found = [
            Left(*values)
            for table in ("moved", "moved_away")
            if table in tables
            for values in connection.execute(f"SELECT * FROM {table}")  # noqa: S608
        ]
        return sorted(found, key=lambda one: (one.name, one.at))


def batches(home: Path) -> dict[str, list[str]]:
    """The samples of each entry that became several, by the entry's name for people. Raises StoreError.

    Of entries of the same name, those of the latest. A sample among them may have been removed since.
    """
    entries: list[Row | Left] = [*moved_entries(home), *noted_entries(home)]
    found = {shown(one.name): one.sample_names for one in entries}
    return {name: samples for name, samples in sorted(found.items()) if len(samples) > 1}


@contextlib.contextmanager
def _reading(home: Path) -> Iterator[sqlite3.Connection | None]:
    file = home / FILE
    if not file.exists():
        yield None
        return
    with (
        _database_errors(file),
        contextlib.closing(_connect(f"{file.absolute().as_uri()}?mode=ro")) as connection,
    ):
        yield connection


def shown(name: bytes) -> str:
    """An entry's name for people: one printable line."""
    return printable(os.fsdecode(name))


def _open(file: Path) -> sqlite3.Connection:
    connection = _connect(file.absolute().as_uri())
    try:
        checked = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if checked != "ok":
            raise sqlite3.DatabaseError(checked)
        names = ", ".join(f"{name} BLOB PRIMARY KEY" if name == "name" else name for name in _COLUMNS)
        with connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS entries ({names})")
            connection.execute(f"CREATE TABLE IF NOT EXISTS moved_away ({_MOVED})")
            # An earlier version kept one entry of each name, in a table with the same columns.
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'moved'").fetchone():
                connection.execute("INSERT OR REPLACE INTO moved_away SELECT * FROM moved")
                connection.execute("DROP TABLE moved")
            connection.execute("CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT)")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, timeout=_LOCK_SECONDS)


@contextlib.contextmanager
def _database_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"the state of the inbox cannot be read or written: {error}",
            where=file,
            remedy="free space on this disk and check the file's permissions; the next scan tries again",
        ) from error


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:  # not Linux, or not readable: then every process counts as a new start
        return f"process {os.getpid()}"
