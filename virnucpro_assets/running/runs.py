"""Runs a job in this process and records it on the Dagster instance. The web UI shows it; no daemon is needed."""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

import dagster as dg

from virnucpro_assets.definitions import defs
from virnucpro_assets.graph.each import shared_compute
from virnucpro_assets.graph.embeddings import ahead_key
from virnucpro_assets.graph.partitions import SAMPLES, lane_key, lane_of
from virnucpro_assets.graph.records import EXIT_CODE
from virnucpro_assets.platform.environment import home_folder
from virnucpro_assets.platform.history import latest_run
from virnucpro_assets.platform.instance import database_errors, open_instance, quick_event_log
from virnucpro_assets.platform.ownership import own_records
from virnucpro_assets.platform.resource import platform_from_environment
from virnucpro_assets.platform.tags import (
    DEFERRED_TAG,
    DEVICE_TAG,
    HOME_TAG,
    MAX_RETRIES_TAG,
    OWN_TAGS,
    driver_tags,
    failed_in,
    keys_tags,
    samples_in,
)
from virnucpro_assets.running.tasks import Outcome, Task
from virnucpro_core.errors import VirnucproError
from virnucpro_core.pipeline.ahead import Ahead, Embedded
from virnucpro_core.pipeline.embed import embed_lane, load_encoders
from virnucpro_core.samples.products import EMBEDDINGS, Embedding

RESUMABLE = VirnucproError.exit_code
FAILURES = 500

QUIET: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run_task(task: Task) -> Outcome:
    """Execute a task's job for its keys. Raises VirnucproError; KeyboardInterrupt after SIGINT or SIGTERM.

    Two of the tags prevent double work: with the driver's tag the automation ignores the run, and with
    MAX_RETRIES_TAG the daemon does not retry it.
    """
    keys = [lane_key(*lane_of(key)) if task.job == "lane" else key for key in task.keys]
    tags = driver_tags(task.driver) | OWN_TAGS | {MAX_RETRIES_TAG: "0", HOME_TAG: str(home_folder())}
    with database_errors(), open_instance() as instance, quick_event_log(instance):
        if len(keys) > 1:
            order = instance.get_dynamic_partitions(str(SAMPLES.name))
            tags |= keys_tags(keys, order) | {DEFERRED_TAG: "true", DEVICE_TAG: str(task.rank)}
        try:
            result = defs.resolve_job_def(task.job).execute_in_process(
                partition_key=keys[0] if len(keys) == 1 else None,
                instance=instance,
                tags=tags,
                run_config=QUIET,
                raise_on_error=False,
            )
        except dg.DagsterExecutionInterruptedError as interrupt:
            raise KeyboardInterrupt from interrupt
        if any(_interrupted(event) for event in result.all_events):
            raise KeyboardInterrupt
        if not result.success:
            return Outcome(*_why(result.all_events))
        run = instance.get_run_by_id(result.run_id)
        return Outcome(failed=failed_in(run.tags) if run is not None else {})


def prepare(task: Task) -> None:
    """Load the models of the task's lane, if its device is free. Errors are left to the lane, which reports them."""
    with contextlib.suppress(VirnucproError):
        platform = platform_from_environment()
        lane = platform.lane(*lane_of(task.keys[0]))
        load_encoders(lane, platform.compute(lane))


def embed_ahead(ahead: Ahead, task: Task) -> None:
    """Begin to embed the lanes of a task that has several: all of them with one encoder, then with the other."""

    def embed(key: str, product: Embedding) -> Embedded:
        platform = platform_from_environment()
        lane = platform.lane(*lane_of(key))
        compute = shared_compute(platform.compute(lane), task.rank)
        return lane.sample, embed_lane(lane, product, compute, on_shard=lambda _: None)

    for product in EMBEDDINGS:
        for key in task.keys:
            ahead.begin(ahead_key(key, product), partial(embed, key, product))


@contextlib.contextmanager
def embedding_ahead(ahead: Ahead, task: Task) -> Iterator[None]:
    """Embed the task's lanes while its run is in the block. Then drop those not taken, of samples that failed."""
    embed_ahead(ahead, task)
    try:
        yield
    finally:
        for product in EMBEDDINGS:
            for key in task.keys:
                ahead.forget(ahead_key(key, product))


def latest_failures(instance: dg.DagsterInstance, samples: Collection[str]) -> dict[str, str]:
    """Sample -> why its latest run failed, for samples whose latest run failed.

    Reads only the newest FAILURES failed runs, so the cost does not grow with the number of samples.
    """
    failed = list(
        own_records(instance, dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=FAILURES)
    )
    tags = [record.dagster_run.tags for record in failed]
    named = {t.get("dagster/partition/sample") or t.get("dagster/partition", "") for t in tags}
    lines = {name: latest_failure(instance, name) for name in samples if name in named}
    together = latest_failures_together(instance, [name for name in samples if not lines.get(name)])
    return together | {name: line for name, line in lines.items() if line}


def latest_failures_together(instance: dg.DagsterInstance, samples: Collection[str]) -> dict[str, str]:
    """Sample -> why it failed in its latest run, if that was a run of several samples, such as a backfill."""
    found: dict[str, str] = {}
    wanted = set(samples)
    for record in own_records(instance, dg.RunsFilter(), limit=FAILURES if wanted else 0):
        tags = record.dagster_run.tags
        failed = failed_in(tags)
        in_run = wanted & {*samples_in(tags), *failed}
        found |= {name: failed[name] for name in in_run & failed.keys()}
        wanted -= in_run
        if not wanted:
            break
    return found


def latest_failure(instance: dg.DagsterInstance, sample: str) -> str:
    """Why the latest run of a sample, or of one of its lanes, failed; "" if it did not fail."""
    latest = latest_run(instance, sample)
    if latest is None or latest.dagster_run.status is not dg.DagsterRunStatus.FAILURE:
        return ""
    logs = instance.all_logs(latest.dagster_run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    return _why([entry.dagster_event for entry in logs if entry.dagster_event is not None])[0]


def _why(events: Sequence[dg.DagsterEvent]) -> tuple[str, int]:
    """The line and exit code of the first failed step: 2 for refused input, 3 if the same command resumes."""
    for failure in _failures(events):
        if _interrupted(failure):
            return "interrupted; the same command resumes", RESUMABLE
        data = failure.step_failure_data
        ours = data.user_failure_data
        if ours is not None:
            return str(ours.description), int(str(ours.metadata[EXIT_CODE].value))
        if data.error is not None:
            error = data.error
            while error.cause is not None:
                error = error.cause
            return f"{failure.step_key}: {error.message.strip().splitlines()[0]}", RESUMABLE
    return "the run failed outside its steps; open it in the web UI to see why", RESUMABLE


def _interrupted(event: dg.DagsterEvent) -> bool:
    """Whether the event shows that a signal ended the run: within a step, between two, or before the first one."""
    if event.event_type is dg.DagsterEventType.RUN_CANCELED:
        return True
    error = None
    if event.is_step_failure:
        error = event.step_failure_data.error
    elif event.event_type is dg.DagsterEventType.RUN_FAILURE:
        error = event.job_failure_data.error
    while error is not None and error.cls_name != dg.DagsterExecutionInterruptedError.__name__:
        error = error.cause  # of an error that a library made of the interrupt
    return error is not None


def _failures(events: Sequence[dg.DagsterEvent]) -> Iterator[dg.DagsterEvent]:
    return (event for event in events if event.is_step_failure)
