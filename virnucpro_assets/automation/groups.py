"""Groups small samples that arrive together, so that they share runs and a model load.

A group passes through the jobs `sequences`, `lane` and `results`, one run each. The run's tags name the samples and the
GPU rank that computes them. When a run ends, a sensor requests the next job's run for the samples that have not failed.
A failed sample is reported as newly arrived: the automation then gives it a run of its own, and that run's page shows
the error. A group that a user cancels is not started again.
"""

from collections.abc import Sequence

import dagster as dg

from virnucpro_assets.graph.jobs import LANE, RESULTS
from virnucpro_assets.graph.partitions import RANKS, SAMPLES, lane_key
from virnucpro_assets.graph.records import arrived
from virnucpro_assets.platform.ownership import own_runs
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.platform.tags import (
    DEFERRED_TAG,
    DEVICE_TAG,
    DRIVER_TAG,
    driver_tags,
    failed_in,
    keys_tags,
    samples_in,
)
from virnucpro_core.errors import VirnucproError
from virnucpro_core.samples.sample import Sample

# Small enough that a run ends soon and other runs need not wait long.
GROUP_SAMPLES = 50
GROUP = "inbox group"
NEXT = {"sequences": "lane", "lane": "results"}
UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]
WILL_RETRY = "dagster/will_retry"


def backlog(instance: dg.DagsterInstance, gpus: int) -> list[int]:
    """How many samples are in queued and running groups, for each GPU rank."""
    samples = [0] * gpus
    for run in own_runs(instance, dg.RunsFilter(tags=driver_tags(GROUP), statuses=UNDER_WAY)):
        rank = int(run.tags.get(DEVICE_TAG, gpus))
        if rank < gpus:
            samples[rank] += len(samples_in(run.tags))
    return samples


def groups(samples: Sequence[Sample], backlog: Sequence[int]) -> list[tuple[int, list[str]]]:
    """Divide small samples into groups of (rank, samples). No groups if there are not more of them than GPUs.

    Each sample goes to the rank with the smallest backlog. A slower GPU has a larger backlog, so it gets fewer samples.
    """
    small = [s.name for s in sorted(samples, key=lambda s: -s.bytes) if s.is_small]
    if len(small) <= len(backlog):
        return []
    shares: list[list[str]] = [[] for _ in backlog]
    for name in small:
        rank = min(range(len(backlog)), key=lambda r: backlog[r] + len(shares[r]))
        shares[rank].append(name)
    return [
        (rank, share[start : start + GROUP_SAMPLES])
        for rank, share in enumerate(shares)
        for start in range(0, len(share), GROUP_SAMPLES)
    ]


def group_request(
    job: str, samples: Sequence[str], rank: int, order: Sequence[str], run_key: str | None = None
) -> dg.RunRequest:
    """A request for one run of a job for several samples. The GPU of `rank` computes all their lanes."""
    keys: Sequence[str] = samples
    if job == "lane":
        keys = [lane_key(name, int(rank)) for name in samples for rank in RANKS.get_partition_keys()]
    tags = keys_tags(keys, order) | driver_tags(GROUP) | {DEVICE_TAG: str(rank), DEFERRED_TAG: "true"}
    return dg.RunRequest(run_key=run_key, job_name=job, tags=tags)


def follow_group(
    instance: dg.DagsterInstance, platform: Platform, run: dg.DagsterRun
) -> dg.RunRequest | None:
    """The request for the run after a group's run, or None. Failed samples start again, each in a run of its own."""
    if run.tags.get(DRIVER_TAG) != GROUP or run.tags.get(WILL_RETRY) == "true":
        return None
    samples, lost = samples_in(run.tags), set(failed_in(run.tags))
    if run.status is dg.DagsterRunStatus.FAILURE:
        lost = set(samples)
    order = instance.get_dynamic_partitions(str(SAMPLES.name))
    for name in samples:
        if name in lost and name in order:
            try:
                instance.report_runless_asset_event(arrived(platform.sample(name)))
            except VirnucproError:
                continue  # the sample was removed in the meantime
    left = [name for name in samples if name not in lost and name in order]
    job = NEXT.get(run.job_name)
    if job is None or not left:
        return None
    return group_request(job, left, int(run.tags[DEVICE_TAG]), order, run_key=f"{run.run_id} {job}")


def _follower(name: str, status: dg.DagsterRunStatus) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        run_status=status,
        name=name,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        request_jobs=[LANE, RESULTS],  # Dagster refuses the request of a sensor that does not name its jobs
        description="Requests the next run of a group of small samples from the inbox.",
    )
    def follower(context: dg.RunStatusSensorContext, platform: Platform) -> dg.RunRequest | dg.SkipReason:
        request = follow_group(context.instance, platform, context.dagster_run)
        return request or dg.SkipReason(f"no further run is needed after run {context.dagster_run.run_id}")

    return follower


FOLLOWERS = [
    _follower("group_done", dg.DagsterRunStatus.SUCCESS),
    _follower("group_failed", dg.DagsterRunStatus.FAILURE),
]
