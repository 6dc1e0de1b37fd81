"""Soak test: send many samples through the inbox, the sensor and the daemon; on SQLite, then on PostgreSQL.

Every sample must be called once, with its own record. The memory of daemon and servers must not grow. No log may say
that a database was locked. While the daemon works, the command line predicts one of the same samples.
"""

import contextlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support import ROOT
from tests.support.live_platform import wait_until, web_ui
from torture.postgres import postgres_storage
from torture.site import END_SECONDS, Site
from torture.table import Row, Task, campaign

POLL_SECONDS = 1.0
RECORD_BASES = 900
MOST, AT_ONCE, FIRST, STALL_SECONDS = 100, 12, 4, 240.0
PROBLEMS = ("database is locked", "OperationalError", "DagsterUserCodeUnreachableError")


@dataclass
class Soak:
    """One storage under test."""

    site: Site
    row: Row
    draw: random.Random
    ends: float
    began: float = field(default_factory=time.monotonic)
    names: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    log: str = ""

    def waiting(self) -> list[str]:
        """Samples that have no results yet."""
        return [name for name in self.names if not (self.results(name) / "run.json").exists()]

    def results(self, name: str) -> Path:
        return self.site.home / "samples" / name / "results"

    def has_room(self) -> bool:
        """Whether one more sample is likely to finish in time, at the present rate."""
        now, waiting = time.monotonic(), len(self.waiting())
        each = (now - self.began) / max(1, len(self.names) - waiting)
        return len(self.names) < MOST and waiting < AT_ONCE and now + each * (waiting + 2) < self.ends


@campaign("soak", share=5)
def soak(task: Task) -> Iterator[Row]:
    """Spend half of the time on SQLite and half on PostgreSQL."""
    yield _soak(task, "SQLite", "")
    yield _on_postgres(task)


def _on_postgres(task: Task) -> Row:
    if not shutil.which("initdb") and not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return Row(
            "samples soaked, PostgreSQL", note="PostgreSQL is not installed: apt-get install postgresql"
        )
    with postgres_storage(task.folder / "postgres") as (config, environment):
        return _soak(task, "PostgreSQL", config, environment)


def _soak(task: Task, name: str, storage: str, environment: dict[str, str] | None = None) -> Row:
    """Process MOST samples, or as many as the time allows, with AT_ONCE of them in flight."""
    own = {"VIRNUCPRO_INBOX_STABLE_SECONDS": "1", "VIRNUCPRO_GPUS": "1", "VIRNUCPRO_WORKERS": "0"}
    site = Site(task.folder / name, own | (environment or {}))
    site.begin()
    config = site.home / "dagster" / "dagster.yaml"
    config.parent.mkdir()
    config.write_text((ROOT / "virnucpro_assets" / "platform" / "dagster.yaml").read_text() + storage)
    row, seconds = Row(f"samples soaked, {name}"), task.seconds / 2
    state = Soak(site, row, random.Random(task.seed), time.monotonic() + seconds)
    with web_ui(site.platform):
        _drop(state, FIRST)
        beside = _predict(state, state.names[-1])
        _feed(state)
        with contextlib.suppress(subprocess.TimeoutExpired, AssertionError):
            beside.wait(END_SECONDS)
            wait_until(lambda: not site.open_runs(), seconds=END_SECONDS, what="the runs' end")
        state.log = (site.home / "ui.log").read_text(
            errors="replace"
        )  # without Dagster's messages while it is stopped
    row.points, row.seconds = len(state.names), time.monotonic() - state.began
    _judge(state, beside)
    return row


def _feed(state: Soak) -> None:
    """Drop samples into the inbox as long as there is time. Ends when all are called, or none for STALL_SECONDS."""
    left, since = state.waiting(), time.monotonic()
    while left and time.monotonic() - since < STALL_SECONDS:
        while state.has_room():
            _drop(state, 1)
        with contextlib.suppress(psutil.Error):
            services = [p for p in state.site.platform.processes() if "-m dagster" in " ".join(p.cmdline())]
            state.memory.append(sum(p.memory_info().rss for p in services) / 1e6)
        time.sleep(POLL_SECONDS)
        if (now := state.waiting()) != left:
            left, since = now, time.monotonic()


def _drop(state: Soak, count: int) -> None:
    """Drop new samples of one record each into the inbox. Files are renamed when they are complete."""
    inbox = state.site.home / "inbox"
    inbox.mkdir(exist_ok=True)
    for _ in range(count):
        name = f"s{len(state.names):03d}"
        bases = "".join(state.draw.choices("ACGT", k=RECORD_BASES))
        partial = inbox / f"{name}.fa.part"
        partial.write_text(f">record_{name}\n{bases}\n")
        partial.rename(inbox / f"{name}.fa")
        state.names.append(name)


def _predict(state: Soak, name: str) -> "subprocess.Popen[bytes]":
    """Start the command line on a sample that the daemon also processes, now or later."""
    words = ["predict", str(state.site.home / "inbox" / f"{name}.fa"), "--out", str(state.site.out)]
    words += ["--profile", "demo", "--chunk-size", "300"]
    with (state.site.folder / "said-beside.err").open("wb") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "virnucpro_assets.cli.main", *words],
            env=state.site.platform.environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=err,
        )


def _judge(state: Soak, beside: "subprocess.Popen[bytes]") -> None:
    site, row, waiting = state.site, state.row, state.waiting()
    row.lost += len(waiting)
    row.findings += [f"{name} has no results" for name in waiting]
    found = _wrong(state, beside)
    said = state.log + (site.folder / "said-beside.err").read_text()
    found += [
        f"{said.count(words)} times {words!r} in {site.home}/ui.log" for words in PROBLEMS if words in said
    ]
    row.wrong += len(found)
    row.tracebacks += said.count("Traceback")
    row.findings += found
    third = max(1, len(state.memory) // 3)
    early, late = max(state.memory[third : 2 * third] or [0.0]), max(state.memory[-third:] or [0.0])
    row.note = f"daemon and servers: at most {early:.0f} MB in the second third, {late:.0f} MB in the last"
    row.note += "" if late < 1.1 * early else " (not flat)"


def _wrong(state: Soak, beside: "subprocess.Popen[bytes]") -> list[str]:
    """Findings: samples that were not dropped, that have wrong records or were called twice; a failed command line."""
    site, found = state.site, []
    called = sorted(set(state.names) - set(state.waiting()))
    for name in called:
        lines = (state.results(name) / "contigs.tsv").read_text().splitlines()
        if [line.split("\t")[0] for line in lines[1:]] != [f"record_{name}"]:
            found.append(f"{name}: {lines}")
    samples = sorted(p.name for p in (site.home / "samples").iterdir())
    if samples != sorted(state.names):
        found.append(f"doubled or foreign samples: {sorted(set(samples) ^ set(state.names))}")
    if beside.returncode:
        found.append(f"the command line beside the daemon: exit {beside.returncode}")
    both = state.names[FIRST - 1]  # the daemon and the command line may each have run it
    counts = site.materializations("consensus", called)
    found += [f"{name} was called {n} times" for name, n in counts.items() if n != 1 and name != both]
    return found + [f"run {run} is recorded as in progress" for run in site.open_runs()]
