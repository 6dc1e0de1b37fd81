"""Two lanes of one sample as processes: what one leaves the other takes, whoever is slow or killed."""

import gc
import multiprocessing
import os
import signal
import weakref
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from torture.pipeline import Pipeline, write_reads
from virnucpro_core.devices.compute import Compute, LoaderSettings
from virnucpro_core.devices.leases import Leases, ProcessDevice
from virnucpro_core.devices.visible import Device
from virnucpro_core.encoders import loaded as encoder_cache
from virnucpro_core.encoders.encoder import Encoder, load_encoder
from virnucpro_core.encoders.loaded import kept_encoders
from virnucpro_core.encoders.packing import PackedBatch
from virnucpro_core.engine.shards import Entry
from virnucpro_core.engine.telemetry import read_progress
from virnucpro_core.errors import StoreError
from virnucpro_core.files.locks import locked
from virnucpro_core.pipeline.embed import embed_lane, lanes_beside, load_encoders
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.samples.products import DNABERT, ESM

SPAWN = multiprocessing.get_context("spawn")
COMPUTE = Compute("cpu", loader=LoaderSettings(workers=0))


def slow_lane(lane: Lane, began: Event, go_on: Event) -> None:
    """A process of its own: lane 0, which stops in its second shard until it may go on."""
    forwards = 0

    def load(*arguments: object, **options: object) -> Encoder:
        encoder = load_encoder(*arguments, **options)  # type: ignore[arg-type]
        forward = encoder.forward

        def slow(batch: PackedBatch) -> torch.Tensor:
            nonlocal forwards
            forwards += 1
            if forwards == 2:
                began.set()
                assert go_on.wait(120)
            return forward(batch)

        encoder.forward = slow  # type: ignore[method-assign]
        return encoder

    with mock.patch.object(encoder_cache, "load_encoder", load):
        embed_lane(lane, ESM, COMPUTE, on_shard=lambda _: None)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path / "home", write_reads(tmp_path / "reads.fa", records=300))


def _lanes(pipeline: Pipeline) -> tuple[Lane, Lane]:
    sample = pipeline.prepared(pipeline.register())
    return pipeline.lane(sample, 0), pipeline.lane(sample, 1)


def _started(lane: Lane) -> tuple[Any, Event]:
    began, go_on = SPAWN.Event(), SPAWN.Event()
    process = SPAWN.Process(target=slow_lane, args=(lane, began, go_on))
    process.start()
    while not began.wait(0.1):
        assert process.exitcode is None
    return process, go_on


def _makers(lane: Lane) -> dict[int, int]:
    """Shard -> the rank that computed it."""
    store = lane.store(ESM)
    return {k: store.require(k, lane.ids(k)).maker["rank"] for k in range(lane.n_shards)}


def test_the_quick_lane_takes_the_slow_one_s_shards_and_both_know(pipeline: Pipeline) -> None:
    slow, quick = _lanes(pipeline)
    assert slow.n_shards >= 8
    process, go_on = _started(slow)
    result = embed_lane(
        quick, ESM, COMPUTE, on_shard=lambda entry: go_on.set() if entry.shard in slow.shards else None
    )
    process.join(120)
    assert process.exitcode == 0
    makers = _makers(quick)
    taken = [k for k in slow.shards if makers[k] == 1]
    assert taken
    assert slow.shards[0] not in taken
    assert slow.shards[1] not in taken
    assert all(makers[k] == 1 for k in quick.shards)
    assert result.summary is not None
    assert result.summary.shards_taken == len(taken)
    assert result.summary.shards == len(taken) + len(quick.shards)
    progress = [read_progress(lane.sample.telemetry(ESM, lane.rank)) for lane in (slow, quick)]
    assert all(p is not None and p.ended and p.done == p.total for p in progress)
    again = embed_lane(slow, ESM, COMPUTE, on_shard=lambda _: None)  # the owner's table is whole
    assert again.resumed == len(slow.shards)
    assert {e.maker["rank"] for e in again.entries} == {0, 1}


def test_what_a_killed_lane_had_claimed_is_computed_by_another(pipeline: Pipeline) -> None:
    slow, quick = _lanes(pipeline)
    process, _ = _started(slow)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    with locked(slow.sample.lock(f"{DNABERT}-0"), busy="lane 0 is at work, with the other encoder"):
        assert lanes_beside(quick) == [slow.shards]
        embed_lane(quick, ESM, COMPUTE, on_shard=lambda _: None)
    assert set(_makers(quick)) == set(range(quick.n_shards))


def test_lanes_that_nobody_works_on_are_left_alone(pipeline: Pipeline) -> None:
    other, lane = _lanes(pipeline)
    assert lanes_beside(lane) == []
    embed_lane(lane, ESM, COMPUTE, on_shard=lambda _: None)
    assert {other.store(ESM).state(k, other.ids(k)) for k in other.shards} == {"missing"}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("letter", [b"\x00", b"\xff"])
def test_a_damaged_frame_store_is_told_by_its_column_and_nothing_is_made_from_it(
    pipeline: Pipeline, letter: bytes, workers: int
) -> None:
    """Its bytes are held against their digests while the lane goes on, whatever they make of that."""
    lane, _ = _lanes(pipeline)
    columns = sorted(lane.sample.translations.glob("*.bin"))
    assert len(columns) == 10
    for column in columns:
        sound = column.read_bytes()
        column.write_bytes(letter * len(sound))
        damaged = pipeline.lane(lane.sample, 0)
        with pytest.raises(StoreError, match=rf"column {column.stem} is damaged"):
            embed_lane(
                damaged, ESM, Compute("cpu", loader=LoaderSettings(workers=workers)), on_shard=lambda _: None
            )
        assert not list(damaged.sample.product(ESM).glob("*.h5"))
        column.write_bytes(sound)
    embed_lane(pipeline.lane(lane.sample, 0), ESM, COMPUTE, on_shard=lambda _: None)


def test_frames_are_verified_even_where_nothing_is_left_to_compute(pipeline: Pipeline) -> None:
    lane, _ = _lanes(pipeline)
    embed_lane(lane, ESM, COMPUTE, on_shard=lambda _: None)
    letters = lane.sample.translations / "nucleotides.bin"
    letters.write_bytes(b"A" * letters.stat().st_size)
    with pytest.raises(StoreError, match="column nucleotides is damaged"):
        embed_lane(pipeline.lane(lane.sample, 0), ESM, COMPUTE, on_shard=lambda _: None)


def test_no_exception_that_holds_the_lane_s_frames_keeps_its_encoder(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Dagster's event log leaves one with every shard that is recorded: it refers to itself."""
    loaded: list[weakref.ref[Encoder]] = []

    def load(*arguments: Any, **options: Any) -> Encoder:
        encoder = load_encoder(*arguments, **options)
        loaded.append(weakref.ref(encoder))
        return encoder

    def record(_: Entry) -> None:
        try:
            raise ValueError
        except ValueError as error:
            error.args = (error,)

    monkeypatch.setattr(encoder_cache, "load_encoder", load)
    lane, _ = _lanes(pipeline)
    gc.disable()
    try:
        embed_lane(lane, ESM, COMPUTE, on_shard=record)
        assert [encoder() for encoder in loaded] == [None]
    finally:
        gc.enable()


def test_models_that_were_loaded_before_the_sample_was_read_serve_its_lane(pipeline: Pipeline) -> None:
    sample = pipeline.register()
    loads: list[str] = []

    def load(kind: Any, *arguments: Any, **options: Any) -> Encoder:
        loads.append(kind)
        return load_encoder(kind, *arguments, **options)

    with mock.patch.object(encoder_cache, "load_encoder", load), kept_encoders():
        load_encoders(pipeline.lane(sample, 0), COMPUTE)
        assert sorted(loads) == ["dnabert-s", "esm2"]
        lane = pipeline.lane(pipeline.prepared(sample), 0)
        for product in (DNABERT, ESM):
            assert embed_lane(lane, product, COMPUTE, on_shard=lambda _: None).entries
        assert len(loads) == 2


def test_a_batch_before_the_first_one_has_all_lengths_and_fits_the_budget(pipeline: Pipeline) -> None:
    lane, seen = pipeline.lane(pipeline.register(), 0), []
    for product in (DNABERT, ESM):
        files = lane.encoder(product)
        encoder = load_encoder(files.kind, files.folder)
        forward = encoder.forward

        def kept(batch: PackedBatch, forward: Any = forward) -> torch.Tensor:
            seen.append(
                (batch.n_tokens, *(len(t) > 0 for t in (batch.short_N2, batch.middle_N2, batch.long_N4)))
            )
            return forward(batch)

        with mock.patch.object(encoder, "forward", kept):
            encoder.warm_up(102)
            encoder.warm_up(168)
    budget = encoder.input.budget_on(torch.device("cpu"))
    assert [one[1:] for one in seen] == [(True, True, False), (True, True, True)] * 2
    assert all(budget // 2 < one[0] <= budget for one in seen)


def test_models_are_not_loaded_onto_a_device_that_another_process_holds(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    card = Device("GPU-a", "a card")
    holder = Leases(tmp_path / "leases", [card], ProcessDevice(lambda _: None))
    other = Leases(tmp_path / "leases", [card], ProcessDevice(lambda _: None))
    with (
        holder.held(0, needed=lambda: True),
        mock.patch.object(encoder_cache, "load_encoder") as load,
    ):
        load_encoders(pipeline.lane(pipeline.register(), 0), Compute("cuda", leases=other))
    load.assert_not_called()
