"""The assets `predictions` (the classifier's scores, one partition per lane) and `consensus` (the results folder)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from virnucpro_assets.graph.conditions import FOLLOW, FOLLOW_CHECKED
from virnucpro_assets.graph.each import compute_of, each, on_shard
from virnucpro_assets.graph.embeddings import merged_features, shard_schema
from virnucpro_assets.graph.engines import DEVICE_STEP, HOST_STEP, LOST_WORKER
from virnucpro_assets.graph.partitions import LANES, SAMPLES, TOGETHER, lane_of, sample_of
from virnucpro_assets.graph.records import lane_materialization
from virnucpro_assets.graph.sequences import OWNERS
from virnucpro_assets.platform.environment import usable_cores
from virnucpro_assets.platform.resource import Platform
from virnucpro_core.errors import printable
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.score import score_lane
from virnucpro_core.pipeline.steps import call_sample
from virnucpro_core.results.finished import first_calls, results_digest
from virnucpro_core.results.record_calls import shown_score
from virnucpro_core.samples.asked import made_by
from virnucpro_core.samples.products import CONSENSUS, PREDICTIONS, PRODUCTS

TOP_ROWS = 20
CALLS_SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn("record", "string", description="id of the record"),
        dg.TableColumn("length", "int", description="bases"),
        dg.TableColumn("call", "string", description="virus, others or no_call"),
        dg.TableColumn("score", "string", description="cut to 4 decimals"),
        dg.TableColumn("scored_chunks", "string", description="chunks that have a score"),
        dg.TableColumn("reason", "string", description="why no call could be made, or empty"),
    ]
)


@dg.asset(
    deps=[merged_features],
    partitions_def=LANES,
    backfill_policy=TOGETHER,
    group_name="calls",
    kinds={"torch", "hdf5"},
    owners=OWNERS,
    code_version=PRODUCTS[PREDICTIONS].version,
    op_tags=DEVICE_STEP,
    retry_policy=LOST_WORKER,
    automation_condition=FOLLOW,
    description="Two scores for every unique frame: others and virus. They sum to 1.",
    metadata=shard_schema("scores", "2", "softmax: others, virus"),
)
def predictions(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[Any]:
    def score(key: str) -> dg.MaterializeResult[Any]:
        lane = platform.lane(*lane_of(key))
        compute = compute_of(context, platform, lane)
        return lane_materialization(lane, score_lane(lane, compute, on_shard=on_shard(context, key)))

    yield from each(context, score, device=True)


@dg.asset(
    deps=[predictions],
    partitions_def=SAMPLES,
    backfill_policy=TOGETHER,
    group_name="calls",
    kinds={"python", "tsv"},
    owners=OWNERS,
    code_version=PRODUCTS[CONSENSUS].version,
    op_tags=HOST_STEP,
    retry_policy=LOST_WORKER,
    automation_condition=FOLLOW_CHECKED,
    description="Joins all lanes: one call per record, the two tables of the published tool, and the report.",
    metadata={
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(
                    "record_id", "string", description="every record of the sample, in input order"
                ),
                dg.TableColumn("call", "string", description="virus, others or no_call"),
                dg.TableColumn("score", "float", description="mean over the record's scored chunks, 0 to 1"),
                dg.TableColumn("reason", "string", description="why no call could be made, or empty"),
            ]
        )
    },
)
def consensus(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[Any]:
    yield from each(context, lambda key: _call(platform, platform.lane(sample_of(key), 0)))


def _call(platform: Platform, lane: Lane) -> dg.MaterializeResult[Any]:
    made = call_sample(lane, made_by(lane.sample), cores=usable_cores())
    counts = made.counts
    results = lane.sample.results
    return dg.MaterializeResult(
        metadata={
            "calls": calls_table(results),
            "calls_shown": f"the first {min(TOP_ROWS, counts.records):,} of {counts.records:,} records",
            "folder": dg.MetadataValue.path(results),
            "results": dg.MetadataValue.url(platform.results_url(made.sample)),
            **{n: dg.MetadataValue.url(platform.results_url(made.sample, n)) for n in made.files},
            "dagster/row_count": counts.records,
            **{f"records_{call}": number for call, number in counts.calls.items()},
            "chunks_virus": counts.chunks_virus,
            "frames": counts.frames,
            "regions": counts.regions,
            "provirus_candidates": counts.provirus_candidates,
            "reasons": dg.MetadataValue.json(counts.reasons),
            **({"open_frames": dg.MetadataValue.json(dict(made.open_frames))} if made.open_frames else {}),
            **({"frames_note": made.frames_note} if made.frames_note else {}),
            **({"note": made.note} if made.note else {}),
        },
        data_version=dg.DataVersion(results_digest(results)),
    )


def calls_table(results: Path) -> dg.TableMetadataValue:
    """The first TOP_ROWS records of `contigs.tsv`, in input order."""
    records = [
        dg.TableRecord(
            {
                "record": printable(row["record_id"]),
                "length": int(row["length"]),
                "call": row["call"],
                "score": shown_score(float(row["score"])) if row["score"] else "",
                "scored_chunks": f"{row['chunks_scored']} of {row['chunks']}",
                "reason": row["reason"],
            }
        )
        for row in first_calls(results, TOP_ROWS)
    ]
    return dg.MetadataValue.table(records, schema=CALLS_SCHEMA)
