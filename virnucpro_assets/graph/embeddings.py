"""The assets `dnabert_embeddings`, `esm_embeddings` and `merged_features`: one partition per sample and GPU rank."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from virnucpro_assets.graph.conditions import FOLLOW, FOLLOW_CHECKED
from virnucpro_assets.graph.each import compute_of, each, is_shared, on_shard
from virnucpro_assets.graph.engines import DEVICE_STEP, HOST_STEP, LOST_WORKER
from virnucpro_assets.graph.partitions import LANES, TOGETHER, lane_of
from virnucpro_assets.graph.records import lane_materialization
from virnucpro_assets.graph.sequences import OWNERS, translations
from virnucpro_assets.platform.resource import Platform
from virnucpro_core.pipeline.ahead import take_ahead
from virnucpro_core.pipeline.embed import embed_lane
from virnucpro_core.pipeline.score import merge_lane
from virnucpro_core.samples.products import DNABERT, ESM, MERGED, PRODUCTS, Embedding


def shard_schema(dataset: str, width: str, description: str) -> dict[str, dg.TableSchema]:
    """Column schema of a sharded product: the datasets of its HDF5 files."""
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
    backfill_policy=TOGETHER,
    group_name="embeddings",
    kinds={"torch", "hdf5"},
    owners=OWNERS,
    code_version=PRODUCTS[DNABERT].version,
    op_tags=DEVICE_STEP,
    retry_policy=LOST_WORKER,
    automation_condition=FOLLOW_CHECKED,
    description="DNABERT-S embedding of each unique frame: the mean over all tokens of its nucleotides.",
    metadata=shard_schema("embeddings", "768", "mean of the last hidden state"),
)
def dnabert_embeddings(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[Any]:
    yield from _embed(context, platform, DNABERT)


@dg.asset(
    name=ESM,
    deps=[translations],
    partitions_def=LANES,
    backfill_policy=TOGETHER,
    group_name="embeddings",
    kinds={"torch", "hdf5"},
    owners=OWNERS,
    code_version=PRODUCTS[ESM].version,
    op_tags=DEVICE_STEP,
    retry_policy=LOST_WORKER,
    automation_condition=FOLLOW_CHECKED,
    description="ESM-2 embedding of each unique frame: the mean over its protein's residues after the last layer norm.",
    metadata=shard_schema("embeddings", "2560", "mean of the last representation (3B: 2,560 columns)"),
)
def esm_embeddings(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[Any]:
    yield from _embed(context, platform, ESM)


@dg.asset(
    deps=[dnabert_embeddings, esm_embeddings],
    partitions_def=LANES,
    backfill_policy=TOGETHER,
    group_name="embeddings",
    kinds={"hdf5"},
    owners=OWNERS,
    code_version=PRODUCTS[MERGED].version,
    op_tags=HOST_STEP,
    retry_policy=LOST_WORKER,
    automation_condition=FOLLOW,
    description="DNABERT-S columns, then ESM-2 columns. Virtual datasets over verified shards: nothing is copied.",
    metadata=shard_schema("features", "3328", "both encoders side by side"),
)
def merged_features(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[Any]:
    def merge(key: str) -> dg.MaterializeResult[Any]:
        lane = platform.lane(*lane_of(key))
        return lane_materialization(lane, merge_lane(lane, on_shard=on_shard(context, key)))

    yield from each(context, merge)


def ahead_key(key: str, product: str) -> tuple[str, int, str]:
    """The name of a lane that is embedded ahead (see pipeline/ahead.py)."""
    return (*lane_of(key), product)


def _embed(context: dg.AssetExecutionContext, platform: Platform, product: Embedding) -> Iterator[Any]:
    def embed(key: str) -> dg.MaterializeResult[Any]:
        lane = platform.lane(*lane_of(key))
        made = take_ahead(ahead_key(key, product), lane.sample) if is_shared(context) else None
        if made is None:
            compute = compute_of(context, platform, lane)
            made = embed_lane(lane, product, compute, on_shard=on_shard(context, key))
        telemetry = None if is_shared(context) else lane.sample.telemetry(product, lane.rank)
        return lane_materialization(lane, made, telemetry)

    yield from each(context, embed, device=True, retried=True)
