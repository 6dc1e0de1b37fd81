"""Nightly schedules: start runs for samples that failed or were never started.

They skip samples that are in flight or were cancelled, and partitions whose last TRIES nightly runs all failed.
"""

import itertools

import dagster as dg

from virnucpro_assets.graph.partitions import RANKS, SAMPLES, lane_key
from virnucpro_assets.platform.environment import time_zone
from virnucpro_assets.platform.history import samples_under_way, was_cancelled
from virnucpro_assets.platform.ownership import own_records
from virnucpro_assets.platform.resource import Platform
from virnucpro_core.errors import VirnucproError
from virnucpro_core.samples.occupancy import workers
from virnucpro_core.samples.sample import open_sample

TRIES = 3
SCHEDULE_TAG, PARENT_TAG, PARTITION_TAG = (
    "dagster/schedule_name",
    "dagster/parent_run_id",
    "dagster/partition",
)


def missing_partitions(instance: dg.DagsterInstance, platform: Platform) -> dict[str, list[str]]:
    """Job -> partitions that it has to run now: for each sample, the first layer that is missing.

    Skips samples whose input was refused, samples that a user cancelled, and samples that a run or another process
    is working on. The automation starts the layers after that one.
    """
    busy = samples_under_way(instance)
    done = {
        name: instance.get_materialized_partitions(dg.AssetKey(name))
        for name in ("translations", "predictions", "consensus")
    }
    missing: dict[str, list[str]] = {"sequences": [], "lane": [], "results": []}
    for name in sorted(instance.get_dynamic_partitions(str(SAMPLES.name))):
        try:
            sample = open_sample(platform.folder, name)
        except VirnucproError:
            continue  # its folder is gone or damaged; the other samples still run
        if name in done["consensus"] or sample.rejected.exists() or was_cancelled(instance, name):
            continue
        if name in busy or workers(sample.folder):
            continue
        lanes = [lane_key(name, int(rank)) for rank in RANKS.get_partition_keys()]
        open_lanes = [key for key in lanes if key not in done["predictions"]]
        if name not in done["translations"]:
            missing["sequences"].append(name)
        elif open_lanes:
            missing["lane"] += open_lanes
        else:
            missing["results"].append(name)
    return {job: [key for key in keys if not _is_hopeless(instance, key)] for job, keys in missing.items()}


def _is_hopeless(instance: dg.DagsterInstance, key: str) -> bool:
    """Whether the latest TRIES runs of this partition were all started by a nightly schedule and all failed.

    A run that a user starts resets the count.
    """
    runs = (r.dagster_run for r in own_records(instance, dg.RunsFilter(tags={PARTITION_TAG: key})))
    tried = list(itertools.islice((run for run in runs if PARENT_TAG not in run.tags), TRIES))
    failed = [run.status is dg.DagsterRunStatus.FAILURE and SCHEDULE_TAG in run.tags for run in tried]
    return len(failed) == TRIES and all(failed)


def _nightly(job: str) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"nightly_{job}",
        job_name=job,
        cron_schedule="0 2 * * *",
        execution_timezone=time_zone(),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Runs `{job}` for every sample that needs it next: its run failed or was never started.",
    )
    def request(context: dg.ScheduleEvaluationContext, platform: Platform) -> list[dg.RunRequest]:
        keys = missing_partitions(context.instance, platform)[job]
        return [dg.RunRequest(partition_key=key) for key in keys]

    return request


# A schedule runs one job, and a job has one kind of partition. So each layer has its own schedule.
NIGHTLY = [_nightly(job) for job in ("sequences", "lane", "results")]
