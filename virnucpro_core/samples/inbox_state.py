"""What is known of every entry of the inbox: one row each in a small SQLite file in the home folder.

Rows are written when something changes, so a look at an inbox in which nothing happens writes nothing. Everything
here can be found out anew: a damaged file is put aside, and the inbox looked at as if for the first time.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Literal, Self

from virnucpro_core.errors import StoreError, printable

FILE = "inbox.sqlite"
Kind = Literal["arriving", "unreadable", "failing", "refused", "registered"]
# Kinds that somebody should look at, and that are looked at again and again but for `refused`.
PROBLEMS = ("unreadable", "failing", "refused")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_LOCK_SECONDS = 10.0


@dataclass(slots=True)
class Row:
    """One entry. A name holds whatever bytes the file system gave (`os.fsencode`).

    identity: sizes and times of its sequence files; activity: of all its files. since: when this activity was first
    seen, in seconds of `clock`; None: before the machine started anew. kind: `arriving` while it changes or waits for
    something; `unreadable` and `failing` are tried again; `refused` is left where it lies; `registered` is a sample.
    said: why, for people. sample: the sample that it became, also while changed files of the same entry arrive.
    marker: the NAME.done that was obeyed. look: number of the look that registered it.
    """

    name: bytes
    identity: str = ""
    activity: str = ""
    since: float | None = None
    kind: Kind = "arriving"
    said: str = ""
    sample: str = ""
    marker: str = ""
    look: int = 0

    @property
    def handled(self) -> bool:
        """Whether nothing is to be done while its identity stays the same."""
        return self.kind in ("registered", "refused")


_COLUMNS = tuple(f.name for f in fields(Row))
_values = attrgetter(*_COLUMNS)


def clock() -> float:
    """Seconds that no correction of the date moves; they begin anew when the machine does."""
    return time.monotonic()


class InboxState:
    """All rows, read when the block begins, written when it ends without an exception. Use as a context manager.

    `boot` names the machine's start, which `clock` counts from. Raises StoreError.
    """

    def __init__(self, home: Path, boot: str = "") -> None:
        self.file, self.damaged = home / FILE, False
        self._boot = boot or _boot()
        self.rows: dict[bytes, Row] = {}
        self._stored: dict[bytes, tuple[object, ...]] = {}

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
        """Number of the latest look that registered something, 0 for none."""
        return max((row.look for row in self.rows.values()), default=0)

    def _read(self) -> None:
        boots = dict(self._connection.execute("SELECT name, value FROM facts"))
        same_boot = boots.get("boot") == self._boot
        for values in self._connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM entries"):  # noqa: S608
            row = Row(*values)
            self._stored[row.name] = values
            if not same_boot:
                row.since = None
            self.rows[row.name] = row

    def _write(self) -> None:
        changed = [v for name, row in self.rows.items() if (v := _values(row)) != self._stored.get(name)]
        gone = [(name,) for name in self._stored if name not in self.rows]
        if not (changed or gone):
            return
        places = ", ".join("?" * len(_COLUMNS))
        with self._connection:
            self._connection.execute("INSERT OR REPLACE INTO facts VALUES ('boot', ?)", (self._boot,))
            self._connection.executemany("DELETE FROM entries WHERE name = ?", gone)
            self._connection.executemany(f"INSERT OR REPLACE INTO entries VALUES ({places})", changed)  # noqa: S608

    def _put_aside(self) -> None:
        self.damaged = True
        for suffix in ("", "-journal"):
            file = self.file.with_name(FILE + suffix)
            with contextlib.suppress(FileNotFoundError):
                file.replace(self.file.with_name(f"{FILE}{suffix}.damaged"))


def noted_problems(home: Path) -> list[Row]:
    """Entries of the inbox that wait for a person or another try, by name. Raises StoreError."""
    file = home / FILE
    if not file.exists():
        return []
    with (
        _database_errors(file),
        contextlib.closing(_connect(f"{file.absolute().as_uri()}?mode=ro")) as connection,
    ):
        marks = ", ".join("?" * len(PROBLEMS))
        query = f"SELECT {', '.join(_COLUMNS)} FROM entries WHERE kind IN ({marks}) ORDER BY name"  # noqa: S608
        return [Row(*values) for values in connection.execute(query, PROBLEMS)]


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
            f"what is known of the inbox cannot be read or written: {error}",
            where=file,
            remedy="make room on this disk and check its rights; it is tried again by itself",
        ) from error


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:  # not Linux, or hidden: then every process counts as a start of its own
        return f"process {os.getpid()}"
