"""Partition keys: `SAMPLE` for a sample, `RANK|SAMPLE` for a lane. Also finds the keys of a run."""

import dagster as dg

from virnucpro_assets.platform.resource import platform_from_environment
from virnucpro_assets.platform.tags import keys_in
from virnucpro_core.errors import UsageError
from virnucpro_core.samples.sample import check_key

SAMPLES = dg.DynamicPartitionsDefinition(name="sample")
RANKS = dg.StaticPartitionsDefinition([str(rank) for rank in range(platform_from_environment().gpus)])
LANES = dg.MultiPartitionsDefinition({"gpu_rank": RANKS, "sample": SAMPLES})

# A backfill in the web UI makes runs of at most 50 partitions, so that each run ends soon.
TOGETHER = dg.BackfillPolicy.multi_run(max_partitions_per_run=50)

Context = dg.AssetExecutionContext | dg.AssetCheckExecutionContext


def lane_key(sample: str, rank: int) -> dg.MultiPartitionKey:
    """The key of a lane, such as `0|sample`. Dagster writes the dimensions in alphabetical order."""
    return dg.MultiPartitionKey({"gpu_rank": str(rank), "sample": sample})


def keys_of(context: Context) -> list[str]:
    """The run's partition keys: those that its tags list; otherwise those of Dagster's range."""
    named = keys_in(context.run.tags)
    if named:
        return [lane_key(*lane_of(key)) if "|" in key else check_key(key) for key in named]
    step = context if isinstance(context, dg.AssetExecutionContext) else context.op_execution_context
    return [step.partition_key] if step.has_partition_key else list(step.partition_keys)


def sample_of(key: str) -> str:
    """The sample of the key. The name is checked, because anyone who can launch a run chooses the key."""
    return check_key(key)


def lane_of(key: str) -> tuple[str, int]:
    """The lane's (sample, rank), both checked. Raises UsageError for a key that is not a lane."""
    rank, bar, sample = key.partition("|")
    if not bar:
        raise UsageError(
            f"partition {key[:80]!r} is not a lane", remedy="give 'RANK|SAMPLE', such as '0|sampleA'"
        )
    if not (rank.isascii() and rank.isdecimal()):
        raise UsageError(f"{rank[:80]!r} is not a GPU rank", remedy="give 0, 1, ...")
    return check_key(sample), int(rank)
