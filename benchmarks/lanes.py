"""The lanes of the scaling benchmark: one process per GPU runs what a lane of `virnucpro predict` runs.

They have a module of their own because every loader worker imports the main module again: the main module must import
little, like that of a real lane.
"""

import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from virnucpro_core.devices.compute import Compute, LoaderSettings
from virnucpro_core.devices.cuda import usable_device
from virnucpro_core.devices.leases import FOLDER, Leases, ProcessDevice
from virnucpro_core.devices.visible import boards, choose
from virnucpro_core.encoders import loaded
from virnucpro_core.encoders.encoder import Encoder, load_encoder
from virnucpro_core.encoders.packing import PackedBatch
from virnucpro_core.engine.loading import start_worker_server
from virnucpro_core.engine.telemetry import read_lines
from virnucpro_core.files.publish import publish_json
from virnucpro_core.models.profiles import ResolvedProfile
from virnucpro_core.pipeline.embed import embed_lane
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.samples.products import DNABERT, ESM, Embedding
from virnucpro_core.samples.sample import Sample

PRODUCTS: dict[str, Embedding] = {"dnabert-s": DNABERT, "esm2": ESM}
MEETING_SECONDS = 300.0
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Setting:
    """The settings that all lanes of a run share."""

    sample: Sample
    profile: ResolvedProfile
    gpus: int
    device: str
    loader: LoaderSettings
    threads: int
    slow_lane: float
    products: tuple[Embedding, ...]

    def lane(self, rank: int) -> Lane:
        return Lane(self.sample, self.profile, rank, self.gpus)

    def compute(self, rank: int) -> Compute:
        """The compute device as in a lane of `virnucpro predict`: the rank's visible GPU with a lease, or the CPU."""
        if self.device == "cpu":
            return Compute("cpu", loader=self.loader)
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        visible = choose(os.environ.get("CUDA_VISIBLE_DEVICES"), boards())
        process = ProcessDevice(lambda uuid: os.environ.update(CUDA_VISIBLE_DEVICES=uuid))
        return Compute("cuda", loader=self.loader, leases=Leases(FOLDER, visible, process), rank=rank)


def slowed(factor: float) -> Any:
    """A `load_encoder` whose encoder takes `factor` times as long for each batch."""

    def load(*arguments: Any, **options: Any) -> Encoder:
        encoder = load_encoder(*arguments, **options)
        forward = encoder.forward

        def slow(batch: PackedBatch) -> torch.Tensor:
            began = time.perf_counter()
            rows_BD = forward(batch)
            if rows_BD.is_cuda:
                torch.cuda.synchronize()
            time.sleep((factor - 1) * (time.perf_counter() - began))
            return rows_BD

        encoder.forward = slow  # type: ignore[method-assign]
        return encoder

    return load


def work(setting: Setting, rank: int, meeting: Barrier, out: Path) -> None:
    """One lane's process: run both encoders and write the measurements to `out`."""
    torch.set_num_threads(setting.threads)
    compute, lane = setting.compute(rank), setting.lane(rank)
    with compute.held() as name:  # CUDA starts here, before time is measured
        torch.zeros(1, device=usable_device(name, lane.precision(ESM)))
    start_worker_server()
    server_is_up = multiprocessing.get_context("forkserver").Process(target=os.getpid)
    server_is_up.start()
    server_is_up.join()
    measured: dict[str, dict[str, Any]] = {}
    factor = setting.slow_lane if rank == 0 else 1.0
    with mock.patch.object(loaded, "load_encoder", slowed(factor) if factor > 1 else load_encoder):
        for product in setting.products:
            meeting.wait(MEETING_SECONDS)
            began = time.monotonic()  # the same clock in all processes of a machine
            summary = embed_lane(lane, product, compute, on_shard=lambda _: None).summary
            ended = time.monotonic()
            assert summary is not None
            lines = list(read_lines(setting.sample.telemetry(product, rank)))
            first = min((line["t"] for line in lines if line["event"] == "batch"), default=0.0)
            last = max((line["t"] for line in lines if line["event"] == "shard"), default=0.0)
            measured[product] = {
                "rank": rank,
                "began": began,
                "ended": ended,
                "load_seconds": summary.load_seconds,
                "first_batch_seconds": first - summary.load_seconds,
                "around_seconds": ended - began - last,
                "computing_seconds": max(0.0, last - summary.load_seconds),
                "tokens": summary.tokens,
                "shards": summary.shards,
                "shards_taken": summary.shards_taken,
                "shards_given": summary.shards_given,
                "device": summary.device,
                "device_idle": 1 - summary.device_utilisation,
            }
    publish_json(out / f"{rank}.json", measured)


def run(setting: Setting, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Run all lanes at once, without earlier shards. Returns product -> measurements per lane. Verifies the shards."""
    for product in setting.products:
        shutil.rmtree(setting.sample.product(product), ignore_errors=True)
    meeting, out = SPAWN.Barrier(setting.gpus), folder / "measured"
    shutil.rmtree(out, ignore_errors=True)
    lanes = [SPAWN.Process(target=work, args=(setting, rank, meeting, out)) for rank in range(setting.gpus)]
    for lane in lanes:
        lane.start()
    while running := [lane for lane in lanes if lane.exitcode is None]:
        multiprocessing.connection.wait([lane.sentinel for lane in running])
        if any(lane.exitcode for lane in lanes):
            meeting.abort()  # so that the others do not wait
    if any(lane.exitcode for lane in lanes):
        raise SystemExit(f"lanes ended with {[lane.exitcode for lane in lanes]}")
    whole = setting.lane(0)
    for product in setting.products:
        for shard in range(whole.n_shards):
            whole.store(product).require(shard, whole.ids(shard))
    found = [json.loads((out / f"{rank}.json").read_bytes()) for rank in range(setting.gpus)]
    return {product: [lane[product] for lane in found] for product in setting.products}
