"""`dnabert_embeddings`, `esm_embeddings`, `merged_features`: one partition a sample and GPU rank."""

from typing import Any

import dagster as dg

from virnucpro_assets.graph.conditions import FOLLOW, FOLLOW_CHECKED
from virnucpro_assets.graph.engines import DEVICE_STEP, HOST_STEP, LOST_WORKER
from virnucpro_assets.graph.partitions import LANES, lane_of
from virnucpro_assets.graph.records import lane_materialization, observe_shard, one_line_failures, tried_again
from virnucpro_assets.graph.sequences import OWNERS, translations
from virnucpro_assets.platform.resource import Platform
from virnucpro_core.devices.compute import Compute
from virnucpro_core.pipeline.embed import embed_lane
from virnucpro_core.pipeline.lane import Lane, OnShard
from virnucpro_core.pipeline.score import merge_lane
from virnucpro_core.samples.products import DNABERT, ESM, MERGED, PRODUCTS, Embedding


def shard_schema(dataset: str, width: str, description: str) -> dict[str, dg.TableSchema]:
    """Column schema of a sharded product, as its HDF5 files hold it."""
    return {
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn("frame", "int64", description="unique frame of the row"),
                dg.TableColumn("digest", "uint8[16]", description="blake2b of the frame"),
                dg.TableColumn(dataset, f"float32[{width}]", description=description),
            ]
        )
    }


@dg.asset(
    name=DNABERT,
    deps=[translations],
    partitions_def=LANES,
    group_name="embeddings",
    kinds={"torch", "hdf5"},
    owners=OWNERS,
    code_version=PRODUCTS[DNABERT].version,
    op_tags=DEVICE_STEP,
    retry_policy=LOST_WORKER,
    automation_condition=FOLLOW_CHECKED,
    description="DNABERT-S: mean over all tokens of each unique frame's nucleotide slice.",
    metadata=shard_schema("embeddings", "768", "mean of the last hidden state"),
)
def dnabert_embeddings(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    return _embed(context, platform, DNABERT)


@dg.asset(
    name=ESM,
    deps=[translations],
    partitions_def=LANES,
    group_name="embeddings",
    kinds={"torch", "hdf5"},
    owners=OWNERS,
    code_version=PRODUCTS[ESM].version,
    op_tags=DEVICE_STEP,
    retry_policy=LOST_WORKER,
    automation_condition=FOLLOW_CHECKED,
    description="ESM-2: mean over the residues of each unique frame's protein, after the final layer norm.",
    metadata=shard_schema("embeddings", "2560", "mean of the last representation (3B: 2,560 columns)"),
)
def esm_embeddings(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    return _embed(context, platform, ESM)


@dg.asset(
    deps=[dnabert_embeddings, esm_embeddings],
    partitions_def=LANES,
    group_name="embeddings",
    kinds={"hdf5"},
    owners=OWNERS,
    code_version=PRODUCTS[MERGED].version,
    op_tags=HOST_STEP,
    retry_policy=LOST_WORKER,
    automation_condition=FOLLOW,
    description="DNABERT-S columns, then ESM-2 columns, as virtual datasets over verified shards: nothing is copied.",
    metadata=shard_schema("features", "3328", "both encoders side by side"),
)
def merged_features(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    with one_line_failures(context):
        return merged_of(platform.lane(*lane_of(context)), lambda entry: observe_shard(context, entry))


def _embed(
    context: dg.AssetExecutionContext, platform: Platform, product: Embedding
) -> dg.MaterializeResult[Any]:
    with tried_again(context), one_line_failures(context):
        lane = platform.lane(*lane_of(context))
        return embeddings_of(
            lane, product, platform.compute(lane), lambda entry: observe_shard(context, entry)
        )


def embeddings_of(
    lane: Lane, product: Embedding, compute: Compute, on_shard: OnShard
) -> dg.MaterializeResult[Any]:
    """What either embedding's asset does, without a run around it."""
    result = embed_lane(lane, product, compute, on_shard=on_shard)
    return lane_materialization(result, lane.sample.telemetry(product, lane.rank))


def merged_of(lane: Lane, on_shard: OnShard) -> dg.MaterializeResult[Any]:
    """What the asset does, without a run around it."""
    return lane_materialization(merge_lane(lane, on_shard=on_shard))
