"""Soak: many samples through the inbox, the sensor and the daemon; on SQLite, then on PostgreSQL.

Every sample must be called once, with its own record; the daemon's memory must stay flat; no log may say that
a database was locked. While the daemon works, the command line predicts one of the same samples.
"""

import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from torture.postgres import postgres_storage
from torture.site import ROOT, Site
from torture.table import Row, Task, campaign

POLL_SECONDS = 1.0
RECORD_BASES = 900
FIRST_ROUND = 4
PROBLEMS = ("database is locked", "OperationalError", "DagsterUserCodeUnreachableError")


@dataclass
class Soak:
    """One storage under test."""

    site: Site
    row: Row
    names: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


@campaign("soak", share=3)
def soak(task: Task) -> Sequence[Row]:
    """Half of the time on SQLite, half on PostgreSQL."""
    return [_soak(task, "SQLite", task.seconds / 2, ""), _on_postgres(task)]


def _on_postgres(task: Task) -> Row:
    if not shutil.which("initdb") and not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return Row("samples soaked, PostgreSQL", note="no PostgreSQL here: apt-get install postgresql")
    with postgres_storage(task.folder / "postgres") as (config, environment):
        return _soak(task, "PostgreSQL", task.seconds / 2, config, environment)


def _soak(
    task: Task, name: str, seconds: float, storage: str, environment: dict[str, str] | None = None
) -> Row:
    """A first round tells how long a sample takes, the second is as large as the time allows, to 100 in all."""
    began, draw = time.monotonic(), random.Random(task.seed)
    site = Site(
        task.folder / name,
        {"VIRNUCPRO_INBOX_STABLE_SECONDS": "1", "VIRNUCPRO_GPUS": "1"} | (environment or {}),
    )
    state = Soak(site, Row(f"samples soaked, {name}"))
    site.begin()
    config = site.home / "dagster" / "dagster.yaml"
    config.parent.mkdir()
    config.write_text((ROOT / "virnucpro_assets" / "dagster.yaml").read_text() + storage)
    with _daemon(state):
        _drop(state, FIRST_ROUND, draw)
        _wait(state, began + seconds)
        each = (time.monotonic() - began) / FIRST_ROUND
        more = min(100 - FIRST_ROUND, int((began + seconds - time.monotonic()) / each))
        _drop(state, max(0, more), draw)
        beside = _predict(state, state.names[-1])
        _wait(state, began + seconds + 60 + 2 * each)
        with contextlib.suppress(subprocess.TimeoutExpired):
            beside.wait(60 + 2 * each)
    row = state.row
    row.points, row.seconds = len(state.names), time.monotonic() - began
    _judge(state, beside)
    return row


@contextlib.contextmanager
def _daemon(state: Soak) -> Iterator[None]:
    """`dagster-daemon` at the site; at the end none of the site's processes is left."""
    with (state.site.folder / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "dagster._daemon",
                "run",
                "-m",
                "virnucpro_assets.definitions",
            ],
            env=state.site.environment,
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            state.row.findings += [f"left after the daemon: {p}" for p in state.site.processes()[:3]]
            state.site.end()


def _drop(state: Soak, count: int, draw: random.Random) -> None:
    """New samples of one record each into the inbox: renamed when they are whole."""
    inbox = state.site.home / "inbox"
    inbox.mkdir(exist_ok=True)
    for _ in range(count):
        name = f"s{len(state.names):03d}"
        bases = "".join(draw.choices("ACGT", k=RECORD_BASES))
        partial = inbox / f"{name}.fa.part"
        partial.write_text(f">record_{name}\n{bases}\n")
        partial.rename(inbox / f"{name}.fa")
        state.names.append(name)


def _predict(state: Soak, name: str) -> "subprocess.Popen[bytes]":
    """The command line on a sample that the daemon works on, or will."""
    words = ["predict", str(state.site.home / "inbox" / f"{name}.fa"), "--out", str(state.site.out)]
    words += ["--profile", "demo", "--chunk-size", "300"]
    with (state.site.folder / "said-beside.err").open("wb") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "virnucpro_assets.cli", *words],
            env=state.site.environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=err,
        )


def _wait(state: Soak, until: float) -> None:
    """Until all samples have results; meanwhile the daemon's memory is noted, in MB."""
    while time.monotonic() < until and any(not _results(state.site, name) for name in state.names):
        daemons = (p for p in state.site.processes() if "dagster._daemon" in " ".join(p.cmdline()))
        with contextlib.suppress(psutil.Error):
            state.memory += [p.memory_info().rss / 1e6 for p in daemons]
        time.sleep(POLL_SECONDS)


def _results(site: Site, name: str) -> bool:
    return (site.home / "samples" / name / "results" / "run.json").exists()


def _judge(state: Soak, beside: "subprocess.Popen[bytes]") -> None:
    site, row = state.site, state.row
    for name in state.names:
        if not _results(site, name):
            row.lost += 1
            row.findings.append(f"{name} has no results")
            continue
        lines = (site.home / "samples" / name / "results" / "contigs.tsv").read_text().splitlines()
        if [line.split("\t")[0] for line in lines[1:]] != [f"record_{name}"]:
            row.wrong += 1
            row.findings.append(f"{name}: {lines}")
    samples = sorted(p.name for p in (site.home / "samples").iterdir())
    if samples != sorted(state.names):
        row.wrong += 1
        row.findings.append(f"doubled or foreign samples: {sorted(set(samples) ^ set(state.names))}")
    code, errors = beside.returncode, (site.folder / "said-beside.err").read_text()
    if code:
        row.wrong += 1
        row.findings.append(f"the command line beside the daemon: exit {code}, {errors[-300:]}")
    log = (site.folder / "daemon.log").read_text(errors="replace")
    row.tracebacks += log.count("Traceback") + errors.count("Traceback")
    found = {words: log.count(words) for words in PROBLEMS if words in log + errors}
    row.wrong += sum(found.values())
    row.findings += [f"{count} times {words!r} in {site.folder}/daemon.log" for words, count in found.items()]
    third = max(1, len(state.memory) // 3)
    early, late = max(state.memory[third : 2 * third] or [0.0]), max(state.memory[-third:] or [0.0])
    row.note = f"memory of the daemon at most {early:.0f} MB in the second third, {late:.0f} MB in the last"
    row.note += "" if late < 1.1 * early else " (not flat)"
    (site.folder / "memory.json").write_text(json.dumps(state.memory))
