"""Blocking checks of every partition: core looks at the disk again, this module tells Dagster what it found."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from virnucpro_assets.engines import DEVICE_STEP, HOST_STEP, LOST_WORKER
from virnucpro_assets.metadata import one_line_failures
from virnucpro_assets.partitions import LANES, SAMPLES, lane_of, sample_of
from virnucpro_assets.resources import Platform
from virnucpro_core.audit import LANE_FINDINGS, SAMPLE_AUDITS, Finding, audit_lane, audit_results
from virnucpro_core.devices import Compute
from virnucpro_core.lanes import DNABERT, ESM, Embedding, Lane
from virnucpro_core.precision import NAME as PRECISION
from virnucpro_core.precision import audit_precision

EMBEDDINGS: dict[str, Embedding] = {DNABERT: DNABERT, ESM: ESM}

AGREE = "records_agree"
WORDS = {
    "digests_verify": "bytes on disk equal their recorded sha256",
    "ids_conserved": "ids in = ids out",
    "values_finite": "no NaN or infinity",
    "row_order_equal": "both encoders' rows stand in the same order",
    PRECISION: "a few rows computed again in float32 agree with what is stored",
    AGREE: "materialization record and manifest name the same shards with the same sha256",
}


def _specs(
    asset: str, names: tuple[str, ...], partitions: dg.PartitionsDefinition
) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            name, asset=asset, blocking=True, partitions_def=partitions, description=WORDS[name]
        )
        for name in names
    ]


def _results(asset: str, findings: list[Finding]) -> Iterator[dg.AssetCheckResult]:
    for finding in findings:
        yield dg.AssetCheckResult(
            asset_key=asset,
            check_name=finding.name,
            passed=finding.passed,
            description=finding.what,
            metadata=finding.facts,
        )


def _sample_checks(asset: str) -> dg.AssetChecksDefinition:
    names = ("digests_verify", "ids_conserved")

    @dg.multi_asset_check(
        name=f"{asset}_checks",
        specs=_specs(asset, names, SAMPLES),
        op_tags=HOST_STEP,
        retry_policy=LOST_WORKER,
    )
    def look(context: dg.AssetCheckExecutionContext, platform: Platform) -> Iterator[dg.AssetCheckResult]:
        with one_line_failures(context):
            findings = SAMPLE_AUDITS[asset](platform.sample(sample_of(context)))
        yield from _results(asset, findings)

    return look


def _lane_checks(asset: str) -> dg.AssetChecksDefinition:
    names = (*LANE_FINDINGS[asset], *((PRECISION,) if asset in EMBEDDINGS else ()))

    @dg.multi_asset_check(
        name=f"{asset}_checks",
        specs=_specs(asset, (*names, AGREE), LANES),
        op_tags=DEVICE_STEP if asset in EMBEDDINGS else HOST_STEP,
        retry_policy=LOST_WORKER,
    )
    def look(context: dg.AssetCheckExecutionContext, platform: Platform) -> Iterator[dg.AssetCheckResult]:
        with one_line_failures(context):
            lane = platform.lane(*lane_of(context))
            findings = lane_findings(lane, asset, platform.compute(lane))
        yield from _results(asset, [*findings, records_agree(context, lane, asset)])

    return look


def lane_findings(lane: Lane, asset: str, compute: Compute) -> list[Finding]:
    """What a look at the lane's product on disk finds."""
    embedding = EMBEDDINGS.get(asset)
    findings = audit_lane(lane, asset)
    return [*findings, audit_precision(lane, embedding, compute)] if embedding else findings


def records_agree(
    context: dg.AssetCheckExecutionContext | dg.OpExecutionContext, lane: Lane, asset: str
) -> Finding:
    """The latest materialization of the partition lists exactly what the manifest holds."""
    found = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[context.partition_key]), limit=1
    ).records
    record = found[0].asset_materialization if found else None
    return record_agrees(record.metadata if record else {}, lane, asset)


def record_agrees(metadata: Mapping[str, Any], lane: Lane, asset: str) -> Finding:
    """A materialization's metadata lists exactly what the manifest holds."""
    value = metadata.get("manifest")
    recorded = value.value if isinstance(value, dg.JsonMetadataValue) else {}
    entries = {str(k): lane.store(asset).entry(k) for k in lane.shards}
    manifest = {k: e.sha256 for k, e in entries.items() if e is not None}
    return Finding(
        AGREE,
        recorded == manifest,
        WORDS[AGREE],
        {"recorded": len(recorded or {}), "manifest": len(manifest)},
    )


@dg.asset_check(
    asset="consensus",
    name="ids_conserved",
    blocking=True,
    partitions_def=SAMPLES,
    description="one row a record in contigs.tsv, one row a frame in prediction_results.txt",
    op_tags=HOST_STEP,
    retry_policy=LOST_WORKER,
)
def consensus_ids_conserved(
    context: dg.AssetCheckExecutionContext, platform: Platform
) -> dg.AssetCheckResult:
    with one_line_failures(context):
        finding = audit_results(platform.sample(sample_of(context)))
    return dg.AssetCheckResult(passed=finding.passed, description=finding.what, metadata=finding.facts)


CHECKS: list[dg.AssetChecksDefinition] = [
    *(_sample_checks(asset) for asset in SAMPLE_AUDITS),
    *(_lane_checks(asset) for asset in LANE_FINDINGS),
    consensus_ids_conserved,
]
