"""Every night: ask again for what failed or was never asked for."""

import dagster as dg

from virnucpro_assets.graph.partitions import RANKS, SAMPLES, lane_key
from virnucpro_assets.platform.history import was_cancelled
from virnucpro_assets.platform.resource import Platform
from virnucpro_core.errors import VirnucproError
from virnucpro_core.samples.sample import open_sample


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
