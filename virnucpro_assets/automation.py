"""What runs by itself: the inbox sensor brings samples in, a condition follows them down, a schedule mends at night."""

import json
import time
from collections.abc import Sequence

import dagster as dg

from virnucpro_assets.history import was_cancelled
from virnucpro_assets.metadata import arrived
from virnucpro_assets.partitions import RANKS, SAMPLES, lane_key
from virnucpro_assets.presence import mark_dead_runs
from virnucpro_assets.resources import IN_PROCESS, Platform
from virnucpro_assets.tags import DRIVER_TAG, batch_config, batch_rank, batch_samples, batch_tags
from virnucpro_core.errors import VirnucproError, printable
from virnucpro_core.inbox import Arrival, scan
from virnucpro_core.inputs import content_digest, digest_inputs
from virnucpro_core.registry import (
    Sample,
    is_registered,
    open_sample,
    register,
    same_content,
)

# Few enough that a run of them ends soon and others get their turn.
BATCH_SAMPLES = 50
UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]

AC = dg.AutomationCondition
# `virnucpro predict` and batches drive their samples themselves; their news starts nothing here. `executed_with_tags`
# knows the run of an asset's latest partition alone; the other one knows each partition's, from the second event on.
_DRIVEN = AC.any_new_update_has_run_tags(tag_keys={DRIVER_TAG}) | AC.executed_with_tags(tag_keys={DRIVER_TAG})
_NEWS = AC.newly_updated() & ~AC.executed_with_root_target() & ~_DRIVEN
# Follows within one run, whose blocking checks stop it in time.
FOLLOW = (
    AC.any_deps_match(_NEWS | AC.will_be_requested()).since_last_handled()
    & ~AC.any_deps_missing()
    & ~AC.any_deps_in_progress()
    & ~AC.in_progress()
).with_label("follow upstream")
# The first layer also looks at what is there, not only at news: a sample's report and its partition key become
# visible one after the other, and a tick between the two sees news of a partition that does not exist yet. What is
# there of a driven sample is no cause: a tick may fall between two of its products.
BEGIN = (
    (
        AC.any_deps_match(_NEWS | AC.will_be_requested())
        | (AC.missing() & ~AC.any_deps_missing() & ~AC.any_deps_match(_DRIVEN)).newly_true()
    ).since_last_handled()
    & ~AC.any_deps_missing()
    & ~AC.in_progress()
).with_label("begin what has arrived")
# Begins a run of its own on what another run made, once that has passed its blocking checks.
FOLLOW_CHECKED = (FOLLOW & AC.all_deps_blocking_checks_passed()).with_label("follow checked upstream")

follow = dg.AutomationConditionSensorDefinition(
    "follow",
    target=dg.AssetSelection.all(),
    minimum_interval_seconds=1,
    emit_backfills=False,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Materializes each asset of a sample once what it depends on is there and has passed its checks.",
)


@dg.sensor(
    name="inbox",
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Registers whole files in $VIRNUCPRO_HOME/inbox as samples; sets aside what cannot be one.",
    job_name="batch",
)
def inbox_sensor(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    seen = scan(
        platform.inbox,
        json.loads(context.cursor or "{}"),
        now=time.time(),
        stable_seconds=platform.inbox_stable_seconds,
    )
    events: list[dg.AssetMaterialization | dg.AssetObservation] = []
    names: list[str] = []
    for refusal in seen.refusals:
        file = printable(refusal.entry.name)  # a file's name may hold line breaks and worse
        context.log.warning("set aside %s: %s", file, refusal.reason)
        events.append(
            dg.AssetObservation(
                "inbox",
                description=f"set aside: {refusal.reason}",
                metadata={
                    "file": file,
                    "moved_to": dg.MetadataValue.path(printable(str(refusal.moved_to))),
                },
            )
        )
    for arrival in seen.arrivals:
        try:
            name = _register(context, platform, arrival)
        except VirnucproError as error:  # one bad arrival must not keep the others out
            context.log.error("%s: %s", arrival.name, error)
            continue
        if name:
            names.append(name)
    together = batches([platform.sample(name) for name in names], backlog(context.instance, platform.gpus))
    batched = {name for _, share in together for name in share}
    events += [arrived(platform.sample(name)) for name in names if name not in batched]
    idle = f"{len(seen.waiting)} files still arriving" if seen.waiting else "nothing new"
    return dg.SensorResult(
        skip_reason=None if events or together else idle,
        cursor=json.dumps(seen.memory),
        dynamic_partitions_requests=[SAMPLES.build_add_request(names)] if names else [],
        asset_events=events,
        run_requests=[
            dg.RunRequest(
                run_config=batch_config(share, rank, hand_over=True),
                tags=batch_tags(rank),
            )
            for rank, share in together
        ],
    )


def backlog(instance: dg.DagsterInstance, gpus: int) -> list[int]:
    """Samples of batches that wait or run, by rank."""
    samples = [0] * gpus
    for run in instance.get_runs(dg.RunsFilter(job_name="batch", statuses=UNDER_WAY)):
        rank = batch_rank(run.run_config)
        if rank < gpus:
            samples[rank] += len(batch_samples(run.run_config))
    return samples


def batches(samples: Sequence[Sample], backlog: Sequence[int]) -> list[tuple[int, list[str]]]:
    """(rank, samples) of the batches that small samples make when more of them arrive than there are GPUs.

    A sample goes to the rank with the smallest backlog: a slower card is behind sooner, and so is given less.
    """
    small = [s.name for s in sorted(samples, key=lambda s: -s.bytes) if s.is_small]
    if len(small) <= len(backlog):
        return []
    shares: list[list[str]] = [[] for _ in backlog]
    for name in small:
        rank = min(range(len(backlog)), key=lambda r: backlog[r] + len(shares[r]))
        shares[rank].append(name)
    return [
        (rank, share[start : start + BATCH_SAMPLES])
        for rank, share in enumerate(shares)
        for start in range(0, len(share), BATCH_SAMPLES)
    ]


def _register(context: dg.SensorEvaluationContext, platform: Platform, arrival: Arrival) -> str:
    """The new sample's name; "" when the same data is known already, which is said once."""
    content = content_digest(digest_inputs(arrival.paths))
    same = same_content(platform.folder, content)
    for name in same:
        if context.instance.has_dynamic_partition(str(SAMPLES.name), name):
            context.log.info("%s holds the same data as sample %s: not run again", arrival.name, name)
            return ""
    taken = is_registered(platform.folder, arrival.name) and arrival.name not in same
    name = f"{arrival.name[:55]}-{content[:8]}" if taken else arrival.name
    return register(platform.folder, name, arrival.paths, platform.sample_settings()).name


@dg.sensor(
    name="dead_runs",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Marks runs as failed whose process is gone, so that they keep no place in the queue.",
)
def dead_runs(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
    if platform.executor != IN_PROCESS:
        return dg.SkipReason("runs of a cluster are watched by their launcher")
    return dg.SkipReason(f"{len(mark_dead_runs(context.instance, platform.folder))} runs were dead")


def missing_partitions(instance: dg.DagsterInstance, platform: Platform) -> dict[str, list[str]]:
    """Job -> partitions that it has to run now: of each sample the first layer that is missing.

    Samples whose input was refused are left alone, and those that somebody stopped; what follows a layer, follows
    by itself.
    """
    done = {
        name: instance.get_materialized_partitions(dg.AssetKey(name))
        for name in ("translations", "predictions", "consensus")
    }
    missing: dict[str, list[str]] = {"sequences": [], "lane": [], "results": []}
    for name in sorted(instance.get_dynamic_partitions(str(SAMPLES.name))):
        try:
            refused = open_sample(platform.folder, name).rejected.exists()
        except VirnucproError:
            continue  # its folder was discarded or is damaged: the other samples are asked for all the same
        if name in done["consensus"] or refused or was_cancelled(instance, name):
            continue
        lanes = [lane_key(name, int(rank)) for rank in RANKS.get_partition_keys()]
        open_lanes = [key for key in lanes if key not in done["predictions"]]
        if name not in done["translations"]:
            missing["sequences"].append(name)
        elif open_lanes:
            missing["lane"] += open_lanes
        else:
            missing["results"].append(name)
    return missing


def _nightly(job: str) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"nightly_{job}",
        job_name=job,
        cron_schedule="0 2 * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Runs `{job}` for every sample that lacks it next, because it failed or was never asked for.",
    )
    def request(context: dg.ScheduleEvaluationContext, platform: Platform) -> list[dg.RunRequest]:
        keys = missing_partitions(context.instance, platform)[job]
        return [dg.RunRequest(partition_key=key) for key in keys]

    return request


# A schedule has one job, and a job one kind of partition: hence one schedule a layer.
NIGHTLY = [_nightly(job) for job in ("sequences", "lane", "results")]
