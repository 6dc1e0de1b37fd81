"""Blocking checks of every partition: core looks at the disk again, this module tells Dagster what it found."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import dagster as dg

from virnucpro_assets.graph.each import compute_of, each_checked
from virnucpro_assets.graph.engines import DEVICE_STEP, HOST_STEP, LOST_WORKER
from virnucpro_assets.graph.partitions import LANES, SAMPLES, lane_of, sample_of
from virnucpro_assets.graph.records import WORLD_SIZE
from virnucpro_assets.platform.resource import Platform
from virnucpro_core.devices.compute import Compute
from virnucpro_core.engine.shards import Entry
from virnucpro_core.pipeline.audit import (
    LANE_FINDINGS,
    SAMPLE_AUDITS,
    Finding,
    audit_lane,
    audit_results,
    released_findings,
)
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.precision import NAME as PRECISION
from virnucpro_core.pipeline.precision import audit_precision
from virnucpro_core.pipeline.retention import released_entries, was_released
from virnucpro_core.samples.products import EMBEDDINGS, Embedding
from virnucpro_core.samples.sample import Sample

EMBEDDED: dict[str, Embedding] = {name: name for name in EMBEDDINGS}
SAMPLE_NAMES = ("digests_verify", "ids_conserved")

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


def _sample_checks(asset: str) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(
        name=f"{asset}_checks",
        specs=_specs(asset, SAMPLE_NAMES, SAMPLES),
        op_tags=HOST_STEP,
        retry_policy=LOST_WORKER,
    )
    def look(context: dg.AssetCheckExecutionContext, platform: Platform) -> Iterator[Any]:
        yield from each_checked(
            context, asset, lambda key: sample_findings(platform.sample(sample_of(key)), asset)
        )

    return look


def sample_findings(sample: Sample, asset: str) -> list[Finding]:
    """What is found of `chunks` or `translations`."""
    if was_released(sample, asset):
        return released_findings(SAMPLE_NAMES, 1)
    return SAMPLE_AUDITS[asset](sample)


def _lane_checks(asset: str) -> dg.AssetChecksDefinition:
    names = (*_lane_names(asset), AGREE)

    @dg.multi_asset_check(
        name=f"{asset}_checks",
        specs=_specs(asset, names, LANES),
        op_tags=DEVICE_STEP if asset in EMBEDDED else HOST_STEP,
        retry_policy=LOST_WORKER,
    )
    def look(context: dg.AssetCheckExecutionContext, platform: Platform) -> Iterator[Any]:
        compute = partial(compute_of, context, platform)
        yield from each_checked(
            context,
            asset,
            lambda key: lane_findings(context.instance, platform, key, asset, compute),
            device=asset in EMBEDDED,
        )

    return look


def lane_findings(
    instance: dg.DagsterInstance,
    platform: Platform,
    key: str,
    asset: str,
    compute: Callable[[Lane], Compute],
) -> list[Finding]:
    """What is found of a sharded asset on one rank: nothing where no shard falls to it.

    Of shards that were let go only their digests are left. The lane is the one that was recorded: the platform may
    have another number of GPUs by now.
    """
    name, rank = lane_of(key)
    recorded = recorded_metadata(instance, key, asset)
    world_size = _number(recorded.get(WORLD_SIZE)) or platform.gpus
    released = released_entries(platform.sample(name), asset, rank, world_size)
    if released:
        return [*released_findings(_lane_names(asset), len(released)), records_agree(recorded, released)]
    lane = replace(platform.lane(name, rank), world_size=world_size)
    if not lane.shards:
        return []
    findings = audit_lane(lane, asset)
    if asset in EMBEDDED:
        findings.append(audit_precision(lane, EMBEDDED[asset], compute(lane)))
    return [*findings, records_agree(recorded, manifest_of(lane, asset))]


def _lane_names(asset: str) -> tuple[str, ...]:
    return (*LANE_FINDINGS[asset], *((PRECISION,) if asset in EMBEDDED else ()))


def manifest_of(lane: Lane, asset: str) -> dict[int, Entry]:
    """The lane's entries by shard."""
    entries = {k: lane.store(asset).entry(k) for k in lane.shards}
    return {k: entry for k, entry in entries.items() if entry is not None}


def recorded_metadata(instance: dg.DagsterInstance, key: str, asset: str) -> Mapping[str, Any]:
    """The metadata of the partition's latest materialization; empty where there is none."""
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[key]), limit=1
    ).records
    record = found[0].asset_materialization if found else None
    return record.metadata if record else {}


def records_agree(metadata: Mapping[str, Any], manifest: Mapping[int, Entry]) -> Finding:
    """A materialization's metadata lists exactly what the manifest holds."""
    value = metadata.get("manifest")
    recorded = value.value if isinstance(value, dg.JsonMetadataValue) else {}
    return Finding(
        AGREE,
        recorded == {str(k): entry.sha256 for k, entry in manifest.items()},
        WORDS[AGREE],
        {"recorded": len(recorded or {}), "manifest": len(manifest)},
    )


def _number(value: Any) -> int:
    return int(value.value) if isinstance(value, dg.IntMetadataValue) and value.value else 0


@dg.multi_asset_check(
    name="consensus_checks",
    specs=[
        dg.AssetCheckSpec(
            "ids_conserved",
            asset="consensus",
            blocking=True,
            partitions_def=SAMPLES,
            description="one row a record in contigs.tsv, one row a frame in prediction_results.txt",
        )
    ],
    op_tags=HOST_STEP,
    retry_policy=LOST_WORKER,
)
def consensus_ids_conserved(context: dg.AssetCheckExecutionContext, platform: Platform) -> Iterator[Any]:
    yield from each_checked(
        context, "consensus", lambda key: [audit_results(platform.sample(sample_of(key)))]
    )


CHECKS: list[dg.AssetChecksDefinition] = [
    *(_sample_checks(asset) for asset in SAMPLE_AUDITS),
    *(_lane_checks(asset) for asset in LANE_FINDINGS),
    consensus_ids_conserved,
]
