"""The asset `retention` and the job `clean_up`: delete intermediate data of samples with complete results."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from virnucpro_assets.graph.calls import consensus
from virnucpro_assets.graph.each import each
from virnucpro_assets.graph.engines import HOST_STEP, LOST_WORKER
from virnucpro_assets.graph.partitions import SAMPLES, TOGETHER, sample_of
from virnucpro_assets.graph.records import one_line_failures
from virnucpro_assets.graph.sequences import OWNERS
from virnucpro_assets.platform.environment import time_zone
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.platform.tags import OWN_TAGS
from virnucpro_core.errors import VirnucproError
from virnucpro_core.pipeline.retention import Keep, Released, is_due, release
from virnucpro_core.samples.sample import list_samples


@dg.asset(
    deps=[consensus],
    partitions_def=SAMPLES,
    backfill_policy=TOGETHER,
    group_name="storage",
    kinds={"python"},
    owners=OWNERS,
    code_version="1",
    op_tags=HOST_STEP,
    retry_policy=LOST_WORKER,
    description="Deletes intermediate data of a finished sample, as VIRNUCPRO_KEEP says. The digests stay.",
)
def retention(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[Any]:
    def release_one(key: str) -> dg.MaterializeResult[Any]:
        keep = platform.retention
        released = release(platform.sample(sample_of(key)), keep)
        return dg.MaterializeResult(metadata=retention_metadata(keep, released))

    yield from each(context, release_one)


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
