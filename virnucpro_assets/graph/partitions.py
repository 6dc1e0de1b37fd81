"""The partition keys: a sample, and a sample's lane on one GPU rank."""

import dagster as dg

from virnucpro_assets.platform.resource import platform_from_environment
from virnucpro_core.errors import UsageError
from virnucpro_core.samples.sample import check_key

SAMPLES = dg.DynamicPartitionsDefinition(name="sample")
RANKS = dg.StaticPartitionsDefinition([str(rank) for rank in range(platform_from_environment().gpus)])
LANES = dg.MultiPartitionsDefinition({"gpu_rank": RANKS, "sample": SAMPLES})


def lane_key(sample: str, rank: int) -> dg.MultiPartitionKey:
    """`0|sample`: Dagster writes the dimensions in alphabetical order."""
    return dg.MultiPartitionKey({"gpu_rank": str(rank), "sample": sample})


def sample_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> str:
    """The run's sample, validated: a key can reach an asset from anywhere."""
    return check_key(context.partition_key)


def lane_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> tuple[str, int]:
    """The run's (sample, rank), validated."""
    key = context.partition_key
    if not isinstance(key, dg.MultiPartitionKey):
        raise UsageError(f"partition {key!r} is no lane", remedy="give 'RANK|SAMPLE', such as '0|sampleA'")
    rank = key.keys_by_dimension["gpu_rank"]
    if not (rank.isascii() and rank.isdecimal()):
        raise UsageError(f"{rank[:80]!r} is no GPU rank", remedy="give 0, 1, ...")
    return check_key(key.keys_by_dimension["sample"]), int(rank)
