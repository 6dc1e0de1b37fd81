"""From the frame store to verified shards on 1, 2, 4, 8 GPUs: how near to linear, how even, what a slow lane costs.

    python -m benchmarks.scaling --gpus 1 2 --out benchmarks/results
    python -m benchmarks.scaling --gpus 1 2 --precision fp8 --out benchmarks/results
    python -m benchmarks.scaling --gpus 1 2 4 --slow-lane 3 --out benchmarks/results

Strong scaling: the same sample for every number of GPUs, in enough shards. One process a GPU runs what `virnucpro
predict` runs in a lane, both encoders one after another; all begin each encoder at the same moment, with torch, CUDA
and the server of the loader's workers up. Weights are random
with the published shapes. A run on a small sample comes first, so that no kernel is compiled while time is taken.
Lanes end together only within a shard: give many shards a lane (--records, --shard-rows), 50 for 2 %.

wall: from that moment to the end of the last lane. work: wall without one model load, the quickest lane's. speed-up
and share of linear compare work. ideal: all tokens at the sum of the speeds that the lanes had while they computed.
slowest_shard: seconds a shard of the slowest lane. --slow-lane F: once more on the last number of GPUs, every batch of
rank 0 taking F times as long.
"""

import argparse
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.record import keep, print_table, provenance
from benchmarks.seeded import write_profile, write_sample
from virnucpro_core import encoder_cache
from virnucpro_core.devices import Compute, usable_device
from virnucpro_core.durable import publish_json
from virnucpro_core.embedding import embed_lane
from virnucpro_core.encoders import Encoder, load_encoder
from virnucpro_core.lanes import DNABERT, ESM, Embedding, Lane
from virnucpro_core.leases import FOLDER, Leases, ProcessDevice
from virnucpro_core.loading import LoaderSettings, start_worker_server
from virnucpro_core.packing import PackedBatch
from virnucpro_core.profiles import DEMO, ResolvedProfile
from virnucpro_core.registry import Sample, SampleSettings
from virnucpro_core.telemetry import read_lines
from virnucpro_core.visible import boards, choose

PRODUCTS: dict[str, Embedding] = {"dnabert-s": DNABERT, "esm2": ESM}
MEETING_SECONDS = 300.0
COLUMNS = (
    "gpus",
    "slow_lane",
    "product",
    "precision",
    "shards",
    "shards_taken",
    "wall_seconds",
    "load_seconds",
    "work_seconds",
    "tokens_per_second",
    "speed_up",
    "share_of_linear",
    "work_max_to_mean",
    "work_to_ideal",
    "slowest_shard",
)
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Setting:
    """What all lanes of a run share."""

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
        """As a lane of `virnucpro predict` has it: the rank's visible GPU, leased; or the CPU."""
        if self.device == "cpu":
            return Compute("cpu", loader=self.loader)
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        visible = choose(os.environ.get("CUDA_VISIBLE_DEVICES"), boards())
        process = ProcessDevice(lambda uuid: os.environ.update(CUDA_VISIBLE_DEVICES=uuid))
        return Compute("cuda", loader=self.loader, leases=Leases(FOLDER, visible, process), rank=rank)


def slowed(factor: float) -> Any:
    """`load_encoder` whose encoder takes `factor` times as long for each batch."""

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
    """One lane's process: both encoders; what it measured goes to `out`."""
    torch.set_num_threads(setting.threads)
    compute, lane = setting.compute(rank), setting.lane(rank)
    with compute.held() as name:  # CUDA starts here, before the clock does
        torch.zeros(1, device=usable_device(name, lane.precision(ESM)))
    start_worker_server()
    first = multiprocessing.get_context("forkserver").Process(target=os.getpid)
    first.start()
    first.join()
    measured: dict[str, dict[str, Any]] = {}
    factor = setting.slow_lane if rank == 0 else 1.0
    with mock.patch.object(encoder_cache, "load_encoder", slowed(factor) if factor > 1 else load_encoder):
        for product in setting.products:
            meeting.wait(MEETING_SECONDS)
            began = time.monotonic()  # one clock for all processes of a machine
            summary = embed_lane(lane, product, compute, on_shard=lambda _: None).summary
            ended = time.monotonic()
            assert summary is not None
            lines = list(read_lines(setting.sample.telemetry(product, rank)))
            last = max((line["t"] for line in lines if line["event"] == "shard"), default=0.0)
            measured[product] = {
                "rank": rank,
                "began": began,
                "ended": ended,
                "load_seconds": summary.load_seconds,
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
    """All lanes at once, from nothing: product -> what each lane measured. The shards are verified."""
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
            meeting.abort()  # the others need not wait
    if any(lane.exitcode for lane in lanes):
        raise SystemExit(f"lanes ended with {[lane.exitcode for lane in lanes]}")
    whole = setting.lane(0)
    for product in setting.products:
        for shard in range(whole.n_shards):
            whole.store(product).require(shard, whole.ids(shard))
    found = [json.loads((out / f"{rank}.json").read_bytes()) for rank in range(setting.gpus)]
    return {product: [lane[product] for lane in found] for product in setting.products}


def figures(product: str, setting: Setting, lanes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row of the table, without what it is compared with."""
    wall = max(lane["ended"] for lane in lanes) - min(lane["began"] for lane in lanes)
    load = min(lane["load_seconds"] for lane in lanes)
    tokens = sum(lane["tokens"] for lane in lanes)
    computing = [lane["computing_seconds"] for lane in lanes]
    speeds = sum(lane["tokens"] / max(lane["computing_seconds"], 1e-9) for lane in lanes)
    return {
        "gpus": setting.gpus,
        "slow_lane": setting.slow_lane,
        "product": product.removesuffix("_embeddings"),
        "precision": setting.lane(0).precision(product),
        "shards": sum(lane["shards"] for lane in lanes),
        "shards_taken": sum(lane["shards_taken"] for lane in lanes),
        "tokens": tokens,
        "wall_seconds": wall,
        "load_seconds": load,
        "work_seconds": wall - load,
        "tokens_per_second": tokens / (wall - load),
        "work_max_to_mean": max(computing) / (sum(computing) / len(lanes)),
        "ideal_seconds": tokens / speeds,
        "work_to_ideal": (wall - load) / (tokens / speeds),
        "slowest_shard": max(lane["computing_seconds"] / max(lane["shards"], 1) for lane in lanes),
        "lanes": [{k: v for k, v in lane.items() if k not in ("began", "ended")} for lane in lanes],
    }


def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Both encoders as one row."""
    sums = (
        "shards",
        "shards_taken",
        "tokens",
        "wall_seconds",
        "load_seconds",
        "work_seconds",
        "ideal_seconds",
    )
    total: dict[str, Any] = {name: sum(row[name] for row in rows) for name in sums}
    computing = [
        sum(lane["computing_seconds"] for lane in pair)
        for pair in zip(*(r["lanes"] for r in rows), strict=True)
    ]
    return total | {
        "gpus": rows[0]["gpus"],
        "slow_lane": rows[0]["slow_lane"],
        "product": "both",
        "precision": rows[-1]["precision"],
        "tokens_per_second": total["tokens"] / total["work_seconds"],
        "work_max_to_mean": max(computing) / (sum(computing) / len(computing)),
        "work_to_ideal": total["work_seconds"] / total["ideal_seconds"],
        "slowest_shard": max(row["slowest_shard"] for row in rows),
    }


def compared(rows: list[dict[str, Any]]) -> None:
    """Add speed-up and share of linear over one GPU; None where that was not run, or a lane was slowed."""
    even = [row for row in rows if row["slow_lane"] == 1]
    alone = {row["product"]: row["work_seconds"] for row in even if row["gpus"] == 1}
    for row in rows:
        known = alone and row in even
        speed_up = alone[row["product"]] / row["work_seconds"] if known else None
        row |= {"speed_up": speed_up, "share_of_linear": speed_up and speed_up / row["gpus"]}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--precision", default="float16", choices=["float32", "float16", "fp8"])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--shard-rows", type=int, default=1_000)
    parser.add_argument("--products", nargs="+", default=list(PRODUCTS), choices=list(PRODUCTS))
    parser.add_argument("--esm2", default="esm2-3b")
    parser.add_argument("--dnabert", default="dnabert-s")
    parser.add_argument("--tokenizer", type=Path, default=DEMO / "dnabert_s" / "tokenizer.json")
    parser.add_argument("--token-budget", type=int, default=0)
    parser.add_argument("--workers", type=int, default=8, help="loader processes a lane")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch a lane")
    parser.add_argument(
        "--slow-lane", type=float, default=1.0, help="then a batch of rank 0 takes so many times as long"
    )
    parser.add_argument("--folder", type=Path, help="where the sample and its shards lie; default: temporary")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    options, began = arguments(), time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        device = torch.device("cuda:0" if options.device == "cuda" else "cpu")
        models = {"dnabert-s": options.dnabert, "esm2": options.esm2}
        profile = write_profile(folder, models, options.tokenizer, device, options.precision)
        settings = SampleSettings(chunk_size=300, precision=options.precision, shard_rows=options.shard_rows)
        samples = {
            name: write_sample(folder, name, records, settings)
            for name, records in (("warm", max(1, options.shard_rows // 2)), ("sample", options.records))
        }
        loader = LoaderSettings(options.token_budget, options.workers)
        chosen = tuple(PRODUCTS[name] for name in options.products)
        fixed = {"profile": profile, "device": options.device, "loader": loader, "threads": options.threads}
        warm = Setting(samples["warm"], gpus=1, slow_lane=1.0, products=chosen, **fixed)
        run(warm, folder)
        print(f"models, sample and kernels are ready after {time.monotonic() - began:.0f} s", flush=True)
        rows: list[dict[str, Any]] = []
        plan = [(gpus, 1.0) for gpus in options.gpus]
        plan += [(options.gpus[-1], options.slow_lane)] if options.slow_lane > 1 else []
        for gpus, slow_lane in plan:
            setting = replace(warm, sample=samples["sample"], gpus=gpus, slow_lane=slow_lane)
            measured = run(setting, folder)
            found = [figures(product, setting, measured[product]) for product in chosen]
            rows += [*found, together(found)] if len(found) > 1 else found
            compared(rows)
            print_table(rows, COLUMNS)
            result = provenance() | {
                "device": rows[0]["lanes"][0]["device"],
                "models": [options.dnabert, options.esm2],
                "records": options.records,
                "unique_frames": setting.lane(0).frames.n_unique,
                "shard_rows": options.shard_rows,
                "workers": options.workers,
                "rows": rows,
            }
            # After every number of GPUs: a run that is cut short keeps what it has.
            what = (*options.gpus, *options.products, options.precision, result["device"])
            keep(result, options.out, "scaling", *what)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
