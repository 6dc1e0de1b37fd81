"""What runs by itself: the inbox sensor brings samples in, a condition follows them down, a schedule mends at night."""

import json
import time

import dagster as dg

from virnucpro_assets.automation.groups import backlog, group_request, groups
from virnucpro_assets.graph.partitions import SAMPLES
from virnucpro_assets.graph.records import arrived
from virnucpro_assets.platform.environment import IN_PROCESS
from virnucpro_assets.platform.presence import mark_dead_runs
from virnucpro_assets.platform.resource import Platform
from virnucpro_core.errors import VirnucproError, printable
from virnucpro_core.samples.inbox import Arrival, scan
from virnucpro_core.samples.inputs import content_digest, digest_inputs
from virnucpro_core.samples.sample import is_registered, register, same_content

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
    job_name="sequences",
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
    together = groups([platform.sample(name) for name in names], backlog(context.instance, platform.gpus))
    grouped = {name for _, share in together for name in share}
    events += [arrived(platform.sample(name)) for name in names if name not in grouped]
    order = [*context.instance.get_dynamic_partitions(str(SAMPLES.name)), *names]
    idle = f"{len(seen.waiting)} files still arriving" if seen.waiting else "nothing new"
    return dg.SensorResult(
        skip_reason=None if events or together else idle,
        cursor=json.dumps(seen.memory),
        dynamic_partitions_requests=[SAMPLES.build_add_request(names)] if names else [],
        asset_events=events,
        run_requests=[group_request("sequences", share, rank, order) for rank, share in together],
    )


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
