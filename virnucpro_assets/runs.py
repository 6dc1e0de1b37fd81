"""Run one of the jobs in this process, on the instance, so that the web UI shows it; no daemon is needed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from virnucpro_assets.automation import DRIVER_TAG
from virnucpro_assets.definitions import defs
from virnucpro_assets.instance import database_errors, open_instance
from virnucpro_assets.metadata import EXIT_CODE
from virnucpro_core.errors import VirnucproError

RESUMABLE = VirnucproError.exit_code

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: its id, and the one line that says why it failed, or nothing."""

    run_id: str
    failure: str
    exit_code: int


def run_job(job: str, partition: str) -> Outcome:
    """Execute a job for a partition. The driver's tag keeps the automation from doing the same work."""
    with database_errors(), open_instance() as instance:
        result = defs.resolve_job_def(job).execute_in_process(
            partition_key=partition,
            instance=instance,
            tags={DRIVER_TAG: "predict"},
            run_config=QUIET,
            raise_on_error=False,
        )
        if result.success:
            return Outcome(result.run_id, "", 0)
        return Outcome(result.run_id, *_why(result.all_events))


def _why(events: Sequence[dg.DagsterEvent]) -> tuple[str, int]:
    """The first failure's line and exit code: 2 for refused input, 3 for what the same command resumes."""
    for failure in _failures(events):
        data = failure.step_failure_data
        told = data.user_failure_data
        if told is not None:
            return str(told.description), int(str(told.metadata[EXIT_CODE].value))
        if data.error is not None:
            error = data.error
            while error.cause is not None:
                error = error.cause
            return f"{failure.step_key}: {error.message.strip().splitlines()[0]}", RESUMABLE
    return "the run failed outside its steps; see it in the web UI", RESUMABLE


def _failures(events: Sequence[dg.DagsterEvent]) -> Iterator[dg.DagsterEvent]:
    return (event for event in events if event.is_step_failure)
