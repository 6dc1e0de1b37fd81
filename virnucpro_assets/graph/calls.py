"""The assets `predictions` (the classifier's scores, one partition per lane) and `consensus` (the results folder)."""

import re
from collections.abc import Iterator
from typing import Any

import dagster as dg

from virnucpro_assets.graph.conditions import FOLLOW, FOLLOW_CHECKED
from virnucpro_assets.graph.each import compute_of, each, on_shard
from virnucpro_assets.graph.embeddings import merged_features, shard_schema
from virnucpro_assets.graph.engines import DEVICE_STEP, HOST_STEP, LOST_WORKER
from virnucpro_assets.graph.partitions import LANES, SAMPLES, TOGETHER, lane_of, sample_of
from virnucpro_assets.graph.records import lane_materialization
from virnucpro_assets.graph.sequences import OWNERS
from virnucpro_assets.platform.resource import Platform
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.score import score_lane
from virnucpro_core.pipeline.steps import call_sample
from virnucpro_core.results.folder import REPORT, results_digest
from virnucpro_core.results.summary import ResultSummary
from virnucpro_core.samples.products import CONSENSUS, PREDICTIONS, PRODUCTS

TOP_ROWS = 20
# Markdown renderers turn these into links. An invisible character after the match prevents that.
_ADDRESS = re.compile(r"[a-z]+:(?=//)|www(?=\.)|@", re.IGNORECASE)


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
    yield from each(context, lambda key: _call(platform.lane(sample_of(key), 0)))


def _call(lane: Lane) -> dg.MaterializeResult[Any]:
    made = call_sample(lane)
    counts = made.counts
    report = made.files[REPORT].path
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": counts.records,
            **{f"records_{call}": number for call, number in counts.calls.items()},
            "chunks_virus": counts.chunks_virus,
            "frames": counts.frames,
            "reasons": dg.MetadataValue.json(counts.reasons),
            "report": dg.MetadataValue.path(report),
            "calls": dg.MetadataValue.md(calls_table(made)),
            **({"note": made.note} if made.note else {}),
        },
        data_version=dg.DataVersion(results_digest(lane.sample.results)),
    )


def calls_table(made: ResultSummary) -> str:
    """The first TOP_ROWS records of the report as a markdown table. Ids are escaped."""
    lines = ["| record | length | call | score | chunks scored |", "|---|---|---|---|---|"]
    for record in made.top[:TOP_ROWS]:
        score = "" if record.score is None else f"{record.score:.3f}"
        chunks = f"{record.chunks_scored}/{record.chunks}"
        lines.append(f"| {as_text(record.id)} | {record.length:,} | {record.call} | {score} | {chunks} |")
    return "\n".join(lines)


def as_text(name: str) -> str:
    """Escape an id for markdown: markup becomes character references, and addresses do not become links."""
    parted = _ADDRESS.sub(lambda match: f"{match[0]}\u200b", name[:80])
    return "".join(c if c.isalnum() or c in " -." else f"&#{ord(c)};" for c in parted)
