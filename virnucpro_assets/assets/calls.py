"""`predictions` per lane, `consensus` per sample: the classifier's scores and the results folder."""

from typing import Any

import dagster as dg

from virnucpro_assets.assets.embeddings import merged_features, shard_schema
from virnucpro_assets.assets.sequences import OWNERS
from virnucpro_assets.automation import FOLLOW
from virnucpro_assets.metadata import lane_materialization, observe_shard, one_line_failures
from virnucpro_assets.partitions import LANES, SAMPLES, lane_of, sample_of
from virnucpro_assets.resources import Platform
from virnucpro_core.lanes import score_lane


@dg.asset(
    deps=[merged_features],
    partitions_def=LANES,
    group_name="calls",
    kinds={"torch", "hdf5"},
    owners=OWNERS,
    code_version="1",
    automation_condition=FOLLOW,
    description="Scores of every unique frame: others, virus (they sum to 1).",
    metadata=shard_schema("scores", "2", "softmax: others, virus"),
)
def predictions(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    with one_line_failures():
        lane = platform.lane(*lane_of(context))
        result = score_lane(lane, platform.compute(lane), on_shard=lambda entry: observe_shard(context, entry))
    return lane_materialization(result)
