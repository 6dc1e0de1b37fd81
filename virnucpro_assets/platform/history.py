"""What a sample's runs tell of it: which was the last, and whether somebody stopped it."""

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
    """The latest run of a sample or of one of its lanes, runs of several samples aside."""
    records = [
        record
        for tag in SAMPLE_TAGS
        for record in own_records(instance, dg.RunsFilter(tags={tag: sample}), limit=1)
    ]
    return max(records, key=lambda record: record.storage_id, default=None)


def was_cancelled(instance: dg.DagsterInstance, sample: str) -> bool:
    """Whether somebody stopped the sample's latest run: nothing runs it again until it is asked for."""
    latest = latest_run(instance, sample)
    if latest is not None:
        return latest.dagster_run.status is dg.DagsterRunStatus.CANCELED
    stopped = dg.RunsFilter(statuses=[dg.DagsterRunStatus.CANCELED])
    return any(sample in samples_in(run.tags) for run in own_runs(instance, stopped, limit=STOPPED_RUNS))


def samples_under_way(instance: dg.DagsterInstance) -> set[str]:
    """Samples of which a run waits or works, alone or with others."""
    found: set[str] = set()
    for run in own_runs(instance, dg.RunsFilter(statuses=UNDER_WAY)):
        found |= set(samples_in(run.tags))
    return found
