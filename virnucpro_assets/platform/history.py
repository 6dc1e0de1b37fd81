"""Finds the latest run of a sample, samples that were cancelled, and samples that are in flight."""

import dagster as dg

from virnucpro_assets.platform.ownership import own_records, own_runs
from virnucpro_assets.platform.tags import SAMPLE_TAGS, samples_in

STOPPED_RUNS = 100
UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def latest_run(instance: dg.DagsterInstance, sample: str) -> dg.RunRecord | None:
    """The latest run of a sample or of one of its lanes. Ignores runs of several samples."""
    records = [
        record
        for tag in SAMPLE_TAGS
        for record in own_records(instance, dg.RunsFilter(tags={tag: sample}), limit=1)
    ]
    return max(records, key=lambda record: record.storage_id, default=None)


def was_cancelled(instance: dg.DagsterInstance, sample: str) -> bool:
    """Whether a user cancelled the sample's latest run. Such a sample only runs again when a user starts it."""
    latest = latest_run(instance, sample)
    if latest is not None:
        return latest.dagster_run.status is dg.DagsterRunStatus.CANCELED
    stopped = dg.RunsFilter(statuses=[dg.DagsterRunStatus.CANCELED])
    return any(sample in samples_in(run.tags) for run in own_runs(instance, stopped, limit=STOPPED_RUNS))


def samples_under_way(instance: dg.DagsterInstance) -> set[str]:
    """Samples that have a queued or running run, alone or together with others."""
    found: set[str] = set()
    for run in own_runs(instance, dg.RunsFilter(statuses=UNDER_WAY)):
        found |= set(samples_in(run.tags))
    return found
