"""`batch`: many small samples in one run, each through the whole graph, with one model load for all.

Records for every partition what the assets' own runs record: its materialization and what its checks found. A
sample that fails is left to a run of its own, which says why; the others of the batch go on. Shards are not
observed one by one and throughput is not drawn: a small sample has few of them. A sample passes through stages, each
a thread: while one is embedded, the next is translated, and the ones before are called, and recorded, which takes
Dagster a third of a second.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import dagster as dg

from virnucpro_assets.graph import calls, embeddings, sequences
from virnucpro_assets.graph.checks import lane_findings, manifest_of, record_agrees
from virnucpro_assets.graph.engines import DEVICE_STEP
from virnucpro_assets.graph.flow import Flow
from virnucpro_assets.graph.partitions import lane_key
from virnucpro_assets.graph.records import arrived, lane_materialization, one_line_failures
from virnucpro_assets.graph.turns import turns
from virnucpro_assets.platform.instance import quick_event_log
from virnucpro_assets.platform.resource import Platform
from virnucpro_core.devices.compute import Compute
from virnucpro_core.encoders.loaded import kept_encoders
from virnucpro_core.errors import DeviceLostError, StoreError, VirnucproError
from virnucpro_core.pipeline.audit import SAMPLE_AUDITS, Finding, audit_results
from virnucpro_core.pipeline.embed import embed_lane
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.score import merge_lane, score_lane
from virnucpro_core.samples.products import DNABERT, ESM, MERGED, PREDICTIONS, Embedding
from virnucpro_core.samples.sample import Sample

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
Made = dg.MaterializeResult[Any]
Look = Callable[[], None]


class Batch(dg.Config):
    """Names of registered samples, the rank whose device computes all their lanes, and who runs what fails.

    turns: where other ranks' batches work on the same samples, the file that tells who has which (turns.py). When it is
    gone, so is the command that shared them out, and they are all this run's.
    """

    samples: list[str]
    rank: int = 0
    turns: str = ""
    hand_over: bool = True


@dg.op(
    out=dg.Out(dg.Nothing),
    tags=DEVICE_STEP,
    description="Every sample of the batch through the whole graph.",
)
def every_sample(
    context: dg.OpExecutionContext, config: Batch, platform: Platform
) -> Iterator[Recorded | dg.Output[None]]:
    failed, shared, begun, ended = [], Path(config.turns), 0, 0

    def works() -> Iterator[Work | None]:
        """Two under way keep the device busy: what is another rank's is not begun here before there are fewer."""
        nonlocal begun
        names: Iterable[str | None] = config.samples
        if shared.is_file():
            names = turns(shared, config.samples, config.rank, platform.gpus, idle=lambda: begun - ended < 2)
        for name in names:
            begun += name is not None
            yield None if name is None else Work(platform, device, name)

    with (
        one_line_failures(context),
        quick_event_log(context.instance, context.run.run_id),
        Device(platform, config.rank) as device,
        kept_encoders(),
        Flow(
            (1, sequence_events),
            (1, partial(embedding_events, DNABERT)),
            (2, partial(embedding_events, ESM)),  # while one is written, the device has the other
            (1, call_events),
        ) as flow,
    ):
        for passed in flow.each(works()):
            name, ended = passed.item.name, ended + 1
            yield from passed.events
            if isinstance(passed.error, DeviceLostError):
                raise passed.error
            if passed.error is not None:
                failed.append(name)
                log.error("failed %s: %s", name, passed.error)
            else:
                log.info("done %s", name)
    for name in failed if config.hand_over else ():
        with contextlib.suppress(
            VirnucproError
        ):  # news without a run: the automation gives it one of its own
            context.instance.report_runless_asset_event(arrived(platform.sample(name)))
    yield dg.Output(None, metadata={"samples": ended, "left to runs of their own": failed})


@dg.job(description="Many small samples in one run, with one model load for all of them.")
def batch() -> None:
    every_sample()


class Device:
    """The rank's device, held from its first use to the end of the block: what stays loaded stays ours."""

    def __init__(self, platform: Platform, rank: int) -> None:
        self.platform, self.rank = platform, rank
        self._held = contextlib.ExitStack()
        self._known: dict[str, Compute] = {}
        self._one_stage = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: Any) -> bool:
        return bool(self._held.__exit__(*ended))  # it tells a device that broke from other errors

    def compute(self, lane: Lane) -> Compute:
        """How the lane computes on this rank's device, which need not be its own rank's."""
        asked = self.platform.compute(replace(lane, rank=self.rank))
        with self._one_stage:
            if asked.device not in self._known:
                name = self._held.enter_context(asked.held())
                # A small sample has a shard or two: a loader process for each would overlap nothing.
                loader = replace(asked.loader, workers=0)
                self._known[asked.device] = replace(asked, device=name, leases=None, loader=loader)
            return self._known[asked.device]


@dataclass
class Work:
    """A sample on its way through the stages, and what one of them leaves for the next."""

    platform: Platform
    device: Device
    name: str
    embedded: list[tuple[Lane, Embedding, Made]] = field(default_factory=list)

    @property
    def sample(self) -> Sample:
        """As it is registered now: `chunks` notes what its files hold."""
        return self.platform.sample(self.name)

    @cached_property
    def lanes(self) -> list[Lane]:
        return [self.platform.lane(self.name, rank) for rank in range(self.platform.gpus)]


# The stages. Each yields what is to be recorded, and raises what its products raise, and StoreError if a check fails.


def sequence_events(work: Work, look: Look) -> Iterator[Recorded]:
    for asset, make in (("chunks", sequences.chunks_of), ("translations", sequences.translations_of)):
        yield materialization(asset, work.name, make(work.sample))
        yield from checked(asset, work.name, SAMPLE_AUDITS[asset](work.sample))
        look()
    yield arrived(work.sample)  # after the chunks: before them the automation would begin the sample itself


def embedding_events(product: Embedding, work: Work, look: Look) -> Iterator[Recorded]:
    """One encoder's embeddings. They are checked in a later stage: the device need not wait for that."""
    for lane in work.lanes:
        made = lane_materialization(
            embed_lane(lane, product, work.device.compute(lane), on_shard=lambda _: look())
        )
        work.embedded.append((lane, product, made))
        yield materialization(product, key_of(lane), made)


def call_events(work: Work, look: Look) -> Iterator[Recorded]:
    for lane, product, made in work.embedded:
        yield from lane_checked(work, lane, product, made)
    for lane in work.lanes:
        made = lane_materialization(merge_lane(lane, on_shard=lambda _: look()))
        yield materialization(MERGED, key_of(lane), made)
        yield from lane_checked(work, lane, MERGED, made)
        compute = work.device.compute(lane)
        made = lane_materialization(score_lane(lane, compute, on_shard=lambda _: look()))
        yield materialization(PREDICTIONS, key_of(lane), made)
        yield from lane_checked(work, lane, PREDICTIONS, made)
    yield materialization("consensus", work.name, calls.calls_of(work.lanes[0]))
    yield from checked("consensus", work.name, [audit_results(work.sample)])


def lane_checked(work: Work, lane: Lane, asset: str, made: Made) -> Iterator[dg.AssetCheckEvaluation]:
    """A lane without shards has nothing that could be checked."""
    if len(lane.shards):
        findings = lane_findings(lane, asset, work.device.compute(lane))
        agrees = record_agrees(made.metadata or {}, manifest_of(lane, asset))
        yield from checked(asset, key_of(lane), [*findings, agrees])


def key_of(lane: Lane) -> dg.MultiPartitionKey:
    return lane_key(lane.sample.name, lane.rank)


def materialization(asset: str, key: str, made: Made) -> dg.AssetMaterialization:
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
