"""Another project on the same Dagster instance: its runs stay as they are, whatever this one does there.

Runs of every status, old and young, with partitions that are called as samples of ours and jobs that are called as
ours, while samples are predicted and looked at and the daemon of the web UI is at work.
"""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

from tests.support import ROOT
from tests.support.live_platform import web_ui
from torture.site import SAMPLE, SHARD_ROWS, Site, undisturbed
from torture.table import Row, Task, campaign

TIMEOUT = 300.0
STATUSES = ("RUN_START", "RUN_STARTING", "RUN_CANCELING", "RUN_FAILURE", "RUN_SUCCESS", "RUN_CANCELED")
JOBS = ("batch", "lane", "results", "other")
DAEMON_SECONDS = 100.0


@campaign("others", share=1)
def others(task: Task) -> Sequence[Row]:
    """Once, with the daemon."""
    return others_points(task, daemon_seconds=DAEMON_SECONDS)


def others_points(task: Task, *, daemon_seconds: float) -> Sequence[Row]:
    """The campaign; the daemon works beside the other project's runs for so long, which may be 0."""
    began, row = time.monotonic(), Row("another project on the instance")
    site = undisturbed(task.folder / "undisturbed")
    _wait_long_for_runs(site)
    with _instance(site) as instance:
        before = _create(instance)
    row.points = len(before)
    for words in (
        ("predict", *_predict(site), "--fresh"),
        ("samples",),
        ("metrics",),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "virnucpro_assets.cli.main", *words],
            env=site.platform.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        row.tracebacks += "Traceback" in done.stderr
        if done.returncode:
            row.wrong += 1
            row.findings.append(f"{words[0]}: exit {done.returncode}, {done.stderr[-300:]}")
    if daemon_seconds:
        with web_ui(site.platform):
            time.sleep(daemon_seconds)
    with _instance(site) as instance:
        after = {run: _seen(instance, run) for run in before}
    changed = [f"{before[run]} became {after[run]}" for run in before if before[run] != after[run]]
    row.wrong += len(changed)
    row.findings += changed
    row.seconds = time.monotonic() - began
    row.note = f"{len(before)} runs of {len(JOBS)} jobs, {len(STATUSES)} statuses"
    return (row,)


def _wait_long_for_runs(site: Site) -> None:
    """Dagster itself ends any project's run that does not start or end in time, which a busy machine reaches here."""
    file = site.home / "dagster" / "dagster.yaml"
    text = file.read_text()
    longer = re.sub(r"(start|cancel)_timeout_seconds: \d+", r"\1_timeout_seconds: 86400", text)
    if longer == text:
        raise RuntimeError(f"{file} has no time limits for runs")
    file.write_text(longer)


def _predict(site: Site) -> tuple[str, ...]:
    words = (
        f"{site.folder}/{SAMPLE}.fa",
        "--profile",
        "demo",
        "--chunk-size",
        "300",
        "--shard-rows",
        str(SHARD_ROWS),
    )
    return (*words, "--out", str(site.out))


def _create(instance: Any) -> dict[str, Any]:
    """Runs of another project that began an hour ago, and how they look."""
    import dagster as dg  # noqa: PLC0415 - slow
    from dagster._core.code_pointer import ModuleCodePointer  # noqa: PLC0415
    from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin  # noqa: PLC0415

    pointer = ModuleCodePointer("other_project.definitions", "defs", None)
    origin = RepositoryPythonOrigin("python", pointer, None, None, None)
    made = []
    for name in JOBS:
        job = dg.job(name=name)(lambda: None)
        for status in STATUSES:
            for launched in (True, False):
                run = instance.create_run_for_job(
                    job,
                    tags={"dagster/partition": SAMPLE, "dagster/partition/sample": SAMPLE},
                    job_code_origin=JobPythonOrigin(name, origin) if launched else None,
                )
                with mock.patch("time.time", return_value=time.time() - 3600):
                    event = dg.DagsterEvent(dg.DagsterEventType[status].value, job_name=name)
                    instance.report_dagster_event(event, run_id=run.run_id)
                made.append(run.run_id)
    return {run: _seen(instance, run) for run in made}


def _seen(instance: Any, run_id: str) -> tuple[str, dict[str, str]]:
    run = instance.get_run_by_id(run_id)
    return f"{run.job_name} {run.status.value}", dict(run.tags)


@contextlib.contextmanager
def _instance(site: Site) -> Iterator[Any]:
    import dagster as dg  # noqa: PLC0415 - slow

    home = str(site.home / "dagster")
    with (
        mock.patch.dict(os.environ, site.platform.environment),
        dg.DagsterInstance.from_config(home) as instance,
    ):
        yield instance
