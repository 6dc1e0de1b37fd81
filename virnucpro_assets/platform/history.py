"""Finds what Dagster has recorded of a sample: its latest run, its results, and whether it is in flight."""

import dagster as dg

from virnucpro_assets.platform.ownership import own_records, own_runs
from virnucpro_assets.platform.tags import DATA_VERSION_TAG, SAMPLE_TAGS, failed_in, samples_in
from virnucpro_core.errors import StoreError
from virnucpro_core.results.finished import results_digest
from virnucpro_core.samples.products import CONSENSUS
from virnucpro_core.samples.sample import Sample

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


def results_are_recorded(instance: dg.DagsterInstance, sample: Sample) -> bool:
    """Whether the latest materialization of `consensus` is of the results on disk, in a run that ended well.

    The run includes the checks. Verifies no result file.
    """
    try:
        digest = results_digest(sample.results)
    except StoreError:
        return False
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey(CONSENSUS), asset_partitions=[sample.name]), limit=1
    ).records
    record = found[0].asset_materialization if found else None
    if record is None or (record.tags or {}).get(DATA_VERSION_TAG) != digest:
        return False
    run = instance.get_run_by_id(found[0].run_id)
    ended_well = run is not None and run.status is dg.DagsterRunStatus.SUCCESS
    return ended_well and run is not None and sample.name not in failed_in(run.tags)


def samples_under_way(instance: dg.DagsterInstance) -> set[str]:
    """Samples that have a queued or running run, alone or together with others."""
    found: set[str] = set()
    for run in own_runs(instance, dg.RunsFilter(statuses=UNDER_WAY)):
        found |= set(samples_in(run.tags))
    return found
