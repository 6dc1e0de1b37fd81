"""Run one of the jobs in this process, on the instance, so that the web UI shows it; no daemon is needed."""

from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg

from virnucpro_assets.automation import DRIVER_TAG
from virnucpro_assets.definitions import defs
from virnucpro_assets.instance import open_instance

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: its id, and the one line that says why it failed, or nothing."""

    run_id: str
    failure: str
    exit_code: int


def run_job(job: str, partition: str) -> Outcome:
    """Execute a job for a partition. The driver's tag keeps the automation from doing the same work."""
    with open_instance() as instance:
        result = defs.resolve_job_def(job).execute_in_process(
            partition_key=partition,
            instance=instance,
            tags={DRIVER_TAG: "predict"},
            run_config=QUIET,
            raise_on_error=False,
        )
        if result.success:
            return Outcome(result.run_id, "", 0)
        line, refused = _why(result.all_events)
        return Outcome(result.run_id, line, 2 if refused else 3)


def _why(events: list[dg.DagsterEvent]) -> tuple[str, bool]:
    """The first failure's line, and whether it was refused input rather than something to resume."""
    for failure in _failures(events):
        data = failure.step_failure_data
        told = data.user_failure_data
        if told is not None:
            return str(told.description), not told.allow_retries
        if data.error is not None:
            error = data.error
            while error.cause is not None:
                error = error.cause
            return f"{failure.step_key}: {error.message.strip().splitlines()[0]}", False
    return "the run failed outside its steps; see it in the web UI", False


def _failures(events: list[dg.DagsterEvent]) -> Iterator[dg.DagsterEvent]:
    return (event for event in events if event.is_step_failure)
