"""The jobs `clean_up` and `clean_up_sample` delete intermediate data of finished samples; `retention` records it."""

from typing import Any

import dagster as dg

from virnucpro_assets.graph.calls import consensus
from virnucpro_assets.graph.engines import HOST_STEP
from virnucpro_assets.graph.partitions import SAMPLES, sample_of
from virnucpro_assets.graph.records import one_line_failures
from virnucpro_assets.graph.sequences import OWNERS
from virnucpro_assets.platform.environment import time_zone
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.platform.tags import OWN_TAGS
from virnucpro_core.errors import UsageError, VirnucproError
from virnucpro_core.pipeline.retention import Keep, Released, is_due, release
from virnucpro_core.samples.sample import list_samples

# Not materialized by Dagster, so "Materialize all" deletes nothing: the two jobs below record what they deleted.
retention = dg.AssetSpec(
    "retention",
    deps=[consensus],
    partitions_def=SAMPLES,
    group_name="storage",
    kinds={"python"},
    owners=OWNERS,
    description="What was deleted of a finished sample, as VIRNUCPRO_KEEP says. The digests stay. "
    "The job `clean_up_sample` does it for one sample.",
)


@dg.op(tags=HOST_STEP)
def release_one(context: dg.OpExecutionContext, platform: Platform) -> None:
    """Clean the sample of the run's partition. Fails if VIRNUCPRO_KEEP is `all`."""
    name = sample_of(context.partition_key)
    with one_line_failures(context):
        keep = platform.retention
        if keep == "all":
            raise UsageError(
                "VIRNUCPRO_KEEP is all: nothing may be deleted", remedy="set it to scores or results"
            )
        released = release(platform.sample(name), keep)
    context.log_event(retained(name, keep, released))


@dg.job(
    description="Deletes intermediate data of one finished sample, as VIRNUCPRO_KEEP says. The digests stay.",
    partitions_def=SAMPLES,
    tags=OWN_TAGS,
)
def clean_up_sample() -> None:
    release_one()


@dg.op(tags=HOST_STEP)
def release_what_is_due(context: dg.OpExecutionContext, platform: Platform) -> None:
    """Clean every sample whose results are old enough. If one fails, log it; the next night tries again."""
    with one_line_failures(context):
        keep = platform.retention
    for name in list_samples(platform.folder):
        try:
            sample = platform.sample(name)
            if not is_due(sample, keep, platform.keep_days):
                continue
            released = release(sample, keep)
        except VirnucproError as error:
            context.log.warning("%s", error)
            continue
        context.log_event(retained(name, keep, released))


@dg.job(
    description="Deletes intermediate data of all samples whose results are older than VIRNUCPRO_KEEP_DAYS.",
    tags=OWN_TAGS,
)
def clean_up() -> None:
    release_what_is_due()


@dg.schedule(
    job=clean_up,
    cron_schedule="0 3 * * *",
    execution_timezone=time_zone(),
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Runs `clean_up` every night, unless VIRNUCPRO_KEEP is `all`.",
)
def nightly_clean_up(platform: Platform) -> dg.RunRequest | dg.SkipReason:
    if platform.retention == "all":
        return dg.SkipReason("VIRNUCPRO_KEEP is all: nothing is deleted")
    return dg.RunRequest()


def retained(name: str, keep: Keep, released: Released) -> dg.AssetMaterialization:
    """A record for the web UI that a sample was cleaned outside a run of `retention`."""
    return dg.AssetMaterialization("retention", partition=name, metadata=retention_metadata(keep, released))


def retention_metadata(keep: Keep, released: Released) -> dict[str, Any]:
    """Metadata: what was kept, and what was deleted of each product."""
    return {
        "kept": keep,
        "bytes_released": released.total,
        "files_released": sum(released.files.values()),
        "products": dg.MetadataValue.json(released.bytes),
    }
