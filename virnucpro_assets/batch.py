"""`batch`: many small samples in one run, one after another through the whole graph, with one model load for all.

Records for every partition what the assets' own runs record: its materialization and what its checks found. A
sample that fails is left to a run of its own, which says why; the others of the batch go on. Shards are not
observed one by one and throughput is not drawn: a small sample has few of them. While one sample is recorded, which
takes Dagster half a second, the next one is computed.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import dagster as dg

from virnucpro_assets.ahead import Ahead
from virnucpro_assets.assets import calls, embeddings, sequences
from virnucpro_assets.checks import lane_findings, manifest_of, record_agrees
from virnucpro_assets.engines import DEVICE_STEP
from virnucpro_assets.metadata import arrived, lane_materialization, one_line_failures
from virnucpro_assets.partitions import lane_key
from virnucpro_assets.resources import Platform
from virnucpro_core.audit import SAMPLE_AUDITS, Finding, audit_results
from virnucpro_core.devices import Compute
from virnucpro_core.embedding import embed_lane
from virnucpro_core.encoder_cache import kept_encoders
from virnucpro_core.errors import DeviceLostError, StoreError, VirnucproError
from virnucpro_core.lanes import (
    DNABERT,
    ESM,
    MERGED,
    PREDICTIONS,
    Lane,
    LaneResult,
    OnShard,
    merge_lane,
    score_lane,
)

log = logging.getLogger(__name__)
ASSETS = {
    "chunks": sequences.chunks,
    "translations": sequences.translations,
    DNABERT: embeddings.dnabert_embeddings,
    ESM: embeddings.esm_embeddings,
    MERGED: embeddings.merged_features,
    PREDICTIONS: calls.predictions,
    "consensus": calls.consensus,
}
Recorded = dg.AssetMaterialization | dg.AssetCheckEvaluation


class Batch(dg.Config):
    """Names of registered samples, the rank whose device computes all their lanes, and who runs what fails."""

    samples: list[str]
    rank: int = 0
    hand_over: bool = True


@dg.op(
    out=dg.Out(dg.Nothing),
    tags=DEVICE_STEP,
    description="Every sample of the batch through the whole graph.",
)
def every_sample(
    context: dg.OpExecutionContext, config: Batch, platform: Platform
) -> Iterator[Recorded | dg.Output[None]]:
    failed = []
    with (
        one_line_failures(context),
        Devices(platform, config.rank) as devices,
        kept_encoders(),
        Ahead(partial(sample_events, platform, devices)) as ahead,
    ):
        for sample in ahead.each(config.samples):
            yield from sample.events
            if isinstance(sample.error, DeviceLostError):
                raise sample.error
            if sample.error is not None:
                failed.append(sample.name)
                log.error("failed %s: %s", sample.name, sample.error)
            else:
                log.info("done %s", sample.name)
    for name in failed if config.hand_over else ():
        with contextlib.suppress(
            VirnucproError
        ):  # news without a run: the automation gives it one of its own
            context.instance.report_runless_asset_event(arrived(platform.sample(name)))
    yield dg.Output(None, metadata={"samples": len(config.samples), "left to runs of their own": failed})


@dg.job(description="Many small samples in one run, with one model load for all of them.")
def batch() -> None:
    every_sample()


@dataclass
class Devices:
    """The rank's device, held from its first use to the end of the block: what stays loaded stays ours."""

    platform: Platform
    rank: int
    _held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _known: dict[str, Compute] = field(default_factory=dict)

    def __enter__(self) -> "Devices":
        return self

    def __exit__(self, *ended: Any) -> bool:
        return bool(self._held.__exit__(*ended))  # it tells a device that broke from other errors

    def compute(self, lane: Lane) -> Compute:
        """How the lane computes on this rank's device, which need not be its own rank's."""
        asked = self.platform.compute(replace(lane, rank=self.rank))
        if asked.device not in self._known:
            name = self._held.enter_context(asked.held())
            # A small sample has a shard or two: a loader process for each would overlap nothing.
            loader = replace(asked.loader, workers=0)
            self._known[asked.device] = replace(asked, device=name, leases=None, loader=loader)
        return self._known[asked.device]


def sample_events(
    platform: Platform, devices: Devices, name: str, look: Callable[[], None]
) -> Iterator[Recorded]:
    """The sample through the graph; after each product what is to be recorded of it. `look` is called at each shard.

    Raises what the products raise, and StoreError when a check fails.
    """
    sample = platform.sample(name)
    for asset, make in (("chunks", sequences.chunks_of), ("translations", sequences.translations_of)):
        made = make(sample)
        yield materialization(asset, name, made)
        yield from checked(asset, name, SAMPLE_AUDITS[asset](sample))
    yield arrived(sample)  # after the chunks: before them the automation would begin the sample itself
    for rank in range(platform.gpus):
        lane = platform.lane(name, rank)
        yield from lane_events(lane, devices.compute(lane), lambda _: look())
    yield materialization("consensus", name, calls.calls_of(platform.lane(name, 0)))
    yield from checked("consensus", name, [audit_results(sample)])


def lane_events(lane: Lane, compute: Compute, on_shard: OnShard) -> Iterator[Recorded]:
    """One lane's four products. A lane without shards has nothing that could be checked."""
    key = lane_key(lane.sample.name, lane.rank)
    results: tuple[tuple[str, Callable[[], LaneResult]], ...] = (
        (DNABERT, lambda: embed_lane(lane, DNABERT, compute, on_shard=on_shard)),
        (ESM, lambda: embed_lane(lane, ESM, compute, on_shard=on_shard)),
        (MERGED, lambda: merge_lane(lane, on_shard=on_shard)),
        (PREDICTIONS, lambda: score_lane(lane, compute, on_shard=on_shard)),
    )
    for asset, make in results:
        made = lane_materialization(make())
        yield materialization(asset, key, made)
        if len(lane.shards):
            metadata: Mapping[str, Any] = made.metadata or {}
            yield from checked(
                asset,
                key,
                [*lane_findings(lane, asset, compute), record_agrees(metadata, manifest_of(lane, asset))],
            )


def materialization(asset: str, key: str, made: dg.MaterializeResult[Any]) -> dg.AssetMaterialization:
    """What Dagster records when the asset's own run materializes the partition."""
    tags = {"dagster/code_version": str(ASSETS[asset].get_asset_spec().code_version)}
    if made.data_version is not None:
        tags |= {"dagster/data_version": made.data_version.value}
    if isinstance(key, dg.MultiPartitionKey):
        tags |= {f"dagster/partition/{name}": value for name, value in key.keys_by_dimension.items()}
    return dg.AssetMaterialization(asset, metadata=made.metadata, partition=key, tags=tags)


def checked(asset: str, key: str, findings: list[Finding]) -> Iterator[dg.AssetCheckEvaluation]:
    """What Dagster records of the checks. Raises StoreError after them if one failed: all of them block."""
    for finding in findings:
        yield dg.AssetCheckEvaluation(
            dg.AssetKey(asset),
            finding.name,
            finding.passed,
            metadata=finding.facts,
            description=finding.what,
            blocking=True,
            partition=key,
        )
    failed = [f.name for f in findings if not f.passed]
    if failed:
        raise StoreError(f"check {', '.join(failed)} of {asset} failed", where=key)
