"""Many first starts at once, as in a job array, in a home that does not exist; some are killed on the way.

All that were left alone succeed, and afterwards the home is whole and holds every sample. Likewise where an earlier
start, or an earlier version, has left the instance's databases half-made.
"""

import contextlib
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from tests.support import ROOT
from torture.pipeline import write_reads
from torture.site import Site
from torture.table import Row, Task, campaign
from virnucpro_assets.platform.databases import HISTORY, databases, half_made

TIMEOUT = 500.0
AT_ONCE, KILLED = 4, 2


@campaign("first start", share=2)
def first_start(task: Task) -> Sequence[Row]:
    """Homes, over and over until the time is spent."""
    return first_start_points(task, most=10**9)


def first_start_points(task: Task, *, most: int, at_once: int = AT_ONCE) -> Sequence[Row]:
    """The campaign with at most `most` homes; at least one."""
    began, draw, row = time.monotonic(), random.Random(task.seed), Row("many first starts at once")
    while not row.points or (row.points < most and time.monotonic() < began + task.seconds):
        site = Site(task.folder / "first")
        site.begin()
        shutil.rmtree(site.home)
        if row.points % 2:
            _leave_half_made(site, draw)
        row.points += 1
        problems, tracebacks = _one_home(site, draw, at_once)
        row.wrong += len(problems)
        row.tracebacks += tracebacks
        row.findings += problems
    row.seconds = time.monotonic() - began
    row.note = f"{at_once} predictions at once, and up to {KILLED} more that are killed"
    return (row,)


def _one_home(site: Site, draw: random.Random, at_once: int) -> tuple[list[str], int]:
    names = [f"z{number}" for number in range(at_once + draw.randint(0, KILLED))]
    for name in names:
        write_reads(site.folder / f"{name}.fa", records=3, seed=len(name) + ord(name[-1]))
    runs = {
        name: site.start(file=f"{name}.fa", out=f"out-{name}", number=number)
        for number, name in enumerate(names)
    }
    for name in names[at_once:]:
        with contextlib.suppress(subprocess.TimeoutExpired):
            runs[name].process.wait(draw.uniform(0.0, 8.0))
        runs[name].process.kill()
    ends = {name: run.process.wait(TIMEOUT) for name, run in runs.items()}
    problems = [
        f"{name}: exit {ends[name]}, {runs[name].errors()[-2:]}" for name in names[:at_once] if ends[name]
    ]
    problems += [
        f"{name} has no results"
        for name in names[:at_once]
        if not (site.folder / f"out-{name}" / "run.json").exists()
    ]
    tracebacks = sum("Traceback" in run.said.read_text() for run in runs.values())
    states = {database.name: database.state() for database in databases(site.home / "dagster")}
    if set(states.values()) != {"whole"}:
        problems.append(f"the databases are {states}")
    return problems + _afterwards(site), tracebacks


def _afterwards(site: Site) -> list[str]:
    """Whether the home is whole for who comes next."""
    words = (["doctor", "--profile", "demo", "--chunk-size", "300"], ["samples"])
    problems = []
    for word in words:
        done = subprocess.run(
            [sys.executable, "-m", "virnucpro_assets.cli.main", *word],
            env=site.platform.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or (word[0] == "doctor" and "ok      instance" not in done.stdout):
            problems.append(f"{word[0]}: exit {done.returncode}, {done.stdout[-300:]} {done.stderr[-300:]}")
    return problems


def _leave_half_made(site: Site, draw: random.Random) -> None:
    """As two first starts of an earlier version, or one that was killed, left the databases."""
    home = site.home / "dagster"
    for name in draw.sample(sorted(HISTORY), draw.randint(1, len(HISTORY))):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(home / name)) as made, made:
            draw.choice(HARMS)(made)
    if not half_made(home):
        raise RuntimeError(f"nothing is half-made in {home}")


def _two_versions(database: sqlite3.Connection) -> None:
    _no_version(database)
    database.executemany("INSERT INTO alembic_version VALUES (?)", [("5771160a95ad",), ("29b539ebc72a",)])


def _no_version(database: sqlite3.Connection) -> None:
    _some_tables(database)
    database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")


def _some_tables(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE secondary_indexes (id INTEGER)")


HARMS: tuple[Callable[[sqlite3.Connection], None], ...] = (_two_versions, _no_version, _some_tables)
