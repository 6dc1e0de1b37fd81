"""Compute one lane's share of the embeddings, in cooperation with the sample's other lanes.

A lane first computes its own missing shards. Then it steals open shards of lanes that are still running. Then it waits
for those of its own shards that other lanes have claimed. The manifests say which shards are done; claims decide which
lane computes a shard. Its bytes are the same whichever lane computes it.
"""

import functools
from pathlib import Path

import torch

from virnucpro_core.devices.compute import Compute, LoaderSettings
from virnucpro_core.devices.cuda import DTYPES, device_name, usable_device
from virnucpro_core.encoders.encoder import Encoder, encoder_input
from virnucpro_core.encoders.loaded import cached_encoder, free_encoders
from virnucpro_core.engine.inference import embed_shards
from virnucpro_core.engine.loading import Feed, ShardDataset, start_worker_server, token_budget_of
from virnucpro_core.engine.shards import lane_shards
from virnucpro_core.engine.sharing import Share
from virnucpro_core.engine.telemetry import LaneSummary, Recorder, read_summary
from virnucpro_core.errors import StoreError
from virnucpro_core.files.disk import make_sure_of_room
from virnucpro_core.files.locks import Claims, is_locked
from virnucpro_core.files.verification import Verification
from virnucpro_core.pipeline.adopt import adopt_shards
from virnucpro_core.pipeline.at_hand import AtHand
from virnucpro_core.pipeline.lane import Lane, LaneResult, OnShard, collected, lane_lock, survey
from virnucpro_core.samples.products import EMBEDDINGS, Embedding


def embed_lane(lane: Lane, product: Embedding, compute: Compute, *, on_shard: OnShard) -> LaneResult:
    """Return when all shards of the lane are embedded, by this process or by other lanes. Loads the model if needed.

    `on_shard` is called with each shard that this process computed. Raises DeviceError, DeviceLostError (a new
    process can continue), WeightsError, StoreError; shards that were published before remain.
    """
    with lane_lock(lane, product), Verification() as verification:
        lane.open_frames(verification)
        store, telemetry = lane.store(product), lane.sample.telemetry(product, lane.rank)
        if not lane.shards:
            return collected(lane, store, 0, {}, None)
        if compute.loader.workers and lane.n_shards > 1:
            start_worker_server()
        todo, states = survey(lane, store)
        if not todo:  # the summary of the run that computed the lane is kept
            return collected(lane, store, len(lane.shards), states, _measured(lane, telemetry))
        if taken := adopt_shards(lane, product, todo):
            todo = [shard for shard in todo if shard not in taken]
            states["done"] = states.get("done", 0) + len(taken)
        if not todo:
            return collected(lane, store, len(lane.shards), states, None)
        if lane.profile.imported:
            raise StoreError(
                f"{len(todo)} of {len(lane.shards)} shards of the imported {product} are missing or damaged",
                where=store.folder,
                remedy="run `virnucpro import-features` again; or predict with --fresh to compute them here",
            )
        summary = LaneSummary(
            product=product,
            rank=lane.rank,
            world_size=lane.world_size,
            device=compute.device,
            precision=lane.precision(product),
            attention=lane.kernel(product),
            shards_resumed=len(lane.shards) - len(todo),
            sequences_resumed=lane.rows(set(lane.shards) - set(todo)),
            sequences_total=lane.rows(lane.shards),
        )
        with Recorder(telemetry, summary) as recorder:
            make_sure_of_room(lane.sample.folder, lane.bytes_to_come(), "for the sample's shards and results")
            _embed(lane, product, todo, compute, recorder, on_shard, verification)
            free_encoders()
        return collected(lane, store, len(lane.shards) - len(todo), states, summary)


def load_encoders(lane: Lane, compute: Compute) -> None:
    """Load both encoders of the lane, if its device is free now; inside `kept_encoders` they stay. Needs no frames.

    On a GPU the kernels for the sample's chunks are compiled and loaded too. Does nothing if the embeddings are
    imported. Raises DeviceError, DeviceLostError, WeightsError, UsageError.
    """
    if lane.profile.imported:
        return
    tries = iter((True, False))
    with compute.held_while(lambda: next(tries)) as name, Verification() as verification:
        if name is None:
            return
        device = usable_device(name, lane.sample.settings.precision)
        if device.type == "cuda" and compute.loader.workers:
            start_worker_server()  # it imports torch while the models load
        for product in EMBEDDINGS:
            encoder = _loaded(lane, product, device, verification)
            if device.type == "cuda":
                encoder.warm_up(lane.sample.settings.chunk_size // 3 + 2)


def _measured(lane: Lane, telemetry: Path) -> LaneSummary | None:
    found = read_summary(telemetry)
    return found if found and (found.rank, found.world_size) == (lane.rank, lane.world_size) else None


def _embed(
    lane: Lane,
    product: Embedding,
    todo: list[int],
    compute: Compute,
    recorder: Recorder,
    on_shard: OnShard,
    verification: Verification,
) -> None:
    store, ids = lane.store(product), functools.cache(lane.ids)
    with Claims(lane.sample.claims(product)) as claims:
        share = Share(
            todo,
            claims,
            others=lambda: lanes_beside(lane),
            looks_done=store.looks_done,
            is_done=lambda shard: store.state(shard, ids(shard)) == "done",
        )
        with compute.held_while(share.needed) as name:
            if name is not None:
                device = usable_device(name, lane.sample.settings.precision)
                with _feed(lane, product, share, compute.loader, device) as feed:
                    encoder = _encoder(lane, product, device, recorder, verification)
                    embed_shards(
                        encoder,
                        feed,
                        store,
                        recorder,
                        on_shard=on_shard,
                        on_rows=AtHand(lane, product, device),
                        verification=verification,
                    )
    recorder.given(len(share.given), lane.rows(share.given))


def lanes_beside(lane: Lane) -> list[range]:
    """Shards of the sample's other lanes that are running now, with either encoder."""
    return [
        lane_shards(lane.n_shards, rank, lane.world_size)
        for rank in range(lane.world_size)
        if rank != lane.rank and any(is_locked(lane.sample.lock(f"{p}-{rank}")) for p in EMBEDDINGS)
    ]


def _feed(
    lane: Lane, product: Embedding, share: Share, settings: LoaderSettings, device: torch.device
) -> Feed:
    files = lane.encoder(product)
    taken = encoder_input(files.kind, files.folder, DTYPES[lane.precision(product)])
    dataset = ShardDataset(
        lane.sample.translations,
        taken,
        range(lane.n_shards),
        n_shards=lane.n_shards,
        token_budget=token_budget_of(taken, settings, device),
    )
    return Feed(dataset, settings, device, share)


def _encoder(
    lane: Lane, product: Embedding, device: torch.device, recorder: Recorder, verification: Verification
) -> Encoder:
    """The product's encoder on the device. Records the loading time and the device in the summary."""
    summary, started = recorder.summary, recorder.elapsed()
    encoder = _loaded(lane, product, device, verification)
    summary.load_seconds, summary.device = recorder.elapsed() - started, device_name(device)
    return encoder


def _loaded(lane: Lane, product: Embedding, device: torch.device, verification: Verification) -> Encoder:
    files = lane.encoder(product)
    return cached_encoder(
        files.kind,
        files.folder,
        device=device,
        dtype=DTYPES[lane.precision(product)],
        attention=lane.kernel(product),
        overlong=lane.sample.settings.overlong,
        verification=verification,
    )
