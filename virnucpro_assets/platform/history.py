"""What a sample's runs tell of it: which was the last, and whether somebody stopped it."""

import dagster as dg

from virnucpro_assets.platform.ownership import own_records, own_runs
from virnucpro_assets.platform.tags import SAMPLE_TAGS, batch_samples

BATCH_RUNS = 100
UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def latest_run(instance: dg.DagsterInstance, sample: str) -> dg.RunRecord | None:
    """The latest run of a sample or of one of its lanes, batches aside."""
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
    stopped = dg.RunsFilter(job_name="batch", statuses=[dg.DagsterRunStatus.CANCELED])
    batches = own_runs(instance, stopped, limit=BATCH_RUNS)
    return any(sample in batch_samples(run.run_config) for run in batches)


def samples_under_way(instance: dg.DagsterInstance) -> set[str]:
    """Samples of which a run waits or works, alone or in a batch."""
    found: set[str] = set()
    for run in own_runs(instance, dg.RunsFilter(statuses=UNDER_WAY)):
        found |= {run.tags[tag] for tag in SAMPLE_TAGS if tag in run.tags}
        if run.job_name == "batch":
            found |= set(batch_samples(run.run_config))
    return found
