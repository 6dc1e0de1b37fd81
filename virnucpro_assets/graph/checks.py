"""Blocking asset checks: they verify what is on disk for each partition and report the findings to Dagster."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import dagster as dg

from virnucpro_assets.graph.each import compute_of, each_checked
from virnucpro_assets.graph.engines import DEVICE_STEP, HOST_STEP, LOST_WORKER
from virnucpro_assets.graph.partitions import LANES, SAMPLES, keys_of, lane_of, sample_of
from virnucpro_assets.graph.records import WORLD_SIZE
from virnucpro_assets.platform.resource import Platform
from virnucpro_core.devices.compute import Compute
from virnucpro_core.engine.shards import Entry
from virnucpro_core.errors import SequenceError, StoreError, VirnucproError
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
from virnucpro_core.pipeline.precision import Audited, audit_precision, audit_together, rows_to_audit
from virnucpro_core.pipeline.retention import released_entries, was_released
from virnucpro_core.samples.products import EMBEDDINGS, Embedding
from virnucpro_core.samples.sample import Sample

EMBEDDED: dict[str, Embedding] = {name: name for name in EMBEDDINGS}
SAMPLE_NAMES = ("digests_verify", "ids_conserved")

AGREE = "records_agree"
WORDS = {
    "digests_verify": "the bytes on disk have the recorded sha256",
    "ids_conserved": "the ids that go in are the ids that come out",
    "values_finite": "no NaN or infinity",
    "row_order_equal": "the rows of both encoders are in the same order",
    PRECISION: "a few rows, computed again in float32, agree with the stored ones",
    AGREE: "Dagster's record and the manifest list the same shards with the same sha256",
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
    def verify(context: dg.AssetCheckExecutionContext, platform: Platform) -> Iterator[Any]:
        yield from each_checked(
            context, asset, lambda key: sample_findings(platform.sample(sample_of(key)), asset)
        )

    return verify


def sample_findings(sample: Sample, asset: str) -> list[Finding]:
    """Verify `chunks` or `translations` of a sample. Of released data, only the recorded digests are left to report."""
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
    def verify(context: dg.AssetCheckExecutionContext, platform: Platform) -> Iterator[Any]:
        found = Recorded(context.instance, platform, asset)
        audits = PrecisionAudits(found, keys_of(context), partial(compute_of, context, platform))
        yield from each_checked(
            context, asset, lambda key: lane_findings(found, key, audits), device=asset in EMBEDDED
        )

    return verify


@dataclass(frozen=True)
class Recorded:
    """What Dagster has recorded of a sharded asset, lane by lane."""

    instance: dg.DagsterInstance
    platform: Platform
    asset: str
    _known: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def metadata(self, key: str) -> Mapping[str, Any]:
        """Metadata of the latest materialization; empty if there is none. Read once."""
        if key not in self._known:
            self._known[key] = recorded_metadata(self.instance, key, self.asset)
        return self._known[key]

    def world_size(self, metadata: Mapping[str, Any]) -> int:
        """The number of lanes, as it was recorded: the platform may have another number of GPUs by now."""
        return _number(metadata.get(WORLD_SIZE)) or self.platform.gpus

    def lane(self, key: str, metadata: Mapping[str, Any]) -> Lane:
        return replace(self.platform.lane(*lane_of(key)), world_size=self.world_size(metadata))


class PrecisionAudits:
    """Compares the embeddings of a run's lanes with float32. The lanes share one pass, because it is slow to begin.

    keys: all keys of the run. compute: how a lane computes in this run.
    """

    def __init__(self, found: Recorded, keys: Sequence[str], compute: Callable[[Lane], Compute]) -> None:
        self.found, self.keys, self.compute = found, keys, compute

    def finding(self, key: str, lane: Lane) -> Finding:
        """The finding of one lane. Raises VirnucproError, OSError."""
        return self._together.get(key) or audit_precision(lane, self._product, self.compute(lane))

    @property
    def _product(self) -> Embedding:
        return EMBEDDED[self.found.asset]

    @cached_property
    def _together(self) -> dict[str, Finding]:
        """Findings by key. Lanes that cannot be read are left out; their own audit says why."""
        audited: dict[str, Audited] = {}
        for key in self.keys if len(self.keys) > 1 else ():
            with contextlib.suppress(VirnucproError, OSError):
                lane = self.found.lane(key, self.found.metadata(key))
                if lane.shards:
                    audited[key] = rows_to_audit(lane, self._product)
        if not audited:
            return {}
        rows = list(audited.values())
        try:
            findings = audit_together(rows, self._product, self.compute(rows[0].lane))
        except (StoreError, SequenceError):  # of one lane: each is compared alone, and only that one fails
            return {}
        return dict(zip(audited, findings, strict=True))


def lane_findings(found: Recorded, key: str, audits: PrecisionAudits) -> list[Finding]:
    """Verify a sharded asset on one rank. No findings if the rank has no shards.

    Of released shards, only the digests are left to compare.
    """
    (name, rank), asset = lane_of(key), found.asset
    recorded = found.metadata(key)
    released = released_entries(found.platform.sample(name), asset, rank, found.world_size(recorded))
    if released:
        return [*released_findings(_lane_names(asset), len(released)), records_agree(recorded, released)]
    lane = found.lane(key, recorded)
    if not lane.shards:
        return []
    findings = audit_lane(lane, asset)
    if asset in EMBEDDED:
        findings.append(audits.finding(key, lane))
    return [*findings, records_agree(recorded, manifest_of(lane, asset))]


def _lane_names(asset: str) -> tuple[str, ...]:
    return (*LANE_FINDINGS[asset], *((PRECISION,) if asset in EMBEDDED else ()))


def manifest_of(lane: Lane, asset: str) -> dict[int, Entry]:
    """The lane's entries by shard."""
    entries = {k: lane.store(asset).entry(k) for k in lane.shards}
    return {k: entry for k, entry in entries.items() if entry is not None}


def recorded_metadata(instance: dg.DagsterInstance, key: str, asset: str) -> Mapping[str, Any]:
    """Metadata of the partition's latest materialization; empty if there is none."""
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[key]), limit=1
    ).records
    record = found[0].asset_materialization if found else None
    return record.metadata if record else {}


def records_agree(metadata: Mapping[str, Any], manifest: Mapping[int, Entry]) -> Finding:
    """Check that a materialization's metadata lists exactly the shards of the manifest."""
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
            description="each table has all its rows: records, chunks, frames, scores and regions",
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
