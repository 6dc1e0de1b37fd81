"""What runs by itself: the inbox sensor brings samples in, a condition follows them down, a schedule mends at night."""

import json
import time
from collections.abc import Sequence

import dagster as dg

from virnucpro_assets.graph.partitions import SAMPLES
from virnucpro_assets.graph.records import arrived
from virnucpro_assets.platform.environment import IN_PROCESS
from virnucpro_assets.platform.ownership import own_runs
from virnucpro_assets.platform.presence import mark_dead_runs
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.platform.tags import OWN_TAGS, batch_config, batch_rank, batch_samples, batch_tags
from virnucpro_core.errors import VirnucproError, printable
from virnucpro_core.samples.inbox import Arrival, scan
from virnucpro_core.samples.inputs import content_digest, digest_inputs
from virnucpro_core.samples.sample import Sample, is_registered, register, same_content

# Few enough that a run of them ends soon and others get their turn.
BATCH_SAMPLES = 50
UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


follow = dg.AutomationConditionSensorDefinition(
    "follow",
    target=dg.AssetSelection.all(),
    minimum_interval_seconds=1,
    emit_backfills=False,
    run_tags=OWN_TAGS,
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
    for run in own_runs(instance, dg.RunsFilter(job_name="batch", statuses=UNDER_WAY)):
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
