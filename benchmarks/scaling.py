"""Measure scaling over 1, 2, 4, 8 GPUs, from frame store to verified shards: speed-up, balance, cost of a slow lane.

    python -m benchmarks.scaling --gpus 1 2 --out benchmarks/results
    python -m benchmarks.scaling --gpus 1 2 --precision fp8 --out benchmarks/results
    python -m benchmarks.scaling --gpus 1 2 4 --slow-lane 3 --out benchmarks/results

Strong scaling: the same sample for every number of GPUs. One process per GPU runs what a lane of `virnucpro predict`
runs, both encoders one after another. All lanes start each encoder at the same moment, with torch, CUDA and the worker
server already running. Weights are random with the published shapes. A run on a small sample comes first, so that no
kernel is compiled during the measurement.
Lanes can differ by up to one shard at the end. So give each lane many shards (--records, --shard-rows): 50 for 2 %.

wall: seconds from the common start to the end of the last lane. work: wall without one model load (that of the fastest
lane). speed-up and share of linear are computed from work. ideal: seconds for all tokens at the sum of the lanes'
speeds while they computed. slowest_shard: seconds per shard of the slowest lane. --slow-lane F: one more run on the
last number of GPUs, in which every batch of rank 0 takes F times as long. For each lane the results also have the
seconds from the model's load to the first batch, before its telemetry starts, and after its last shard.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.lanes import Setting

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
ENCODERS = ("dnabert-s", "esm2")


def figures(product: str, setting: "Setting", lanes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row of the table, without the comparison with one GPU."""
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
    """One row with the sums over both encoders."""
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
    """Add speed-up and share of linear relative to one GPU; None if that was not run, or if a lane was slowed."""
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
    parser.add_argument("--products", nargs="+", default=ENCODERS, choices=ENCODERS)
    parser.add_argument("--esm2", default="esm2-3b")
    parser.add_argument("--dnabert", default="dnabert-s")
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json of DNABERT-S; default: the demo's")
    parser.add_argument("--token-budget", type=int, default=0)
    parser.add_argument("--workers", type=int, default=8, help="loader processes per lane")
    parser.add_argument("--threads", type=int, default=1, help="torch threads per lane")
    parser.add_argument(
        "--slow-lane",
        type=float,
        default=1.0,
        help="add a run in which batches of rank 0 take so many times as long",
    )
    parser.add_argument(
        "--folder", type=Path, help="folder for the sample and its shards; default: temporary"
    )
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    import torch  # noqa: PLC0415 - see lanes.py

    from benchmarks.lanes import PRODUCTS, Setting, run  # noqa: PLC0415
    from benchmarks.record import keep, print_table, provenance  # noqa: PLC0415
    from benchmarks.seeded import write_profile, write_sample  # noqa: PLC0415
    from virnucpro_core.devices.compute import LoaderSettings  # noqa: PLC0415
    from virnucpro_core.models.profiles import DEMO  # noqa: PLC0415
    from virnucpro_core.samples.settings import SampleSettings  # noqa: PLC0415

    options, began = arguments(), time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        device = torch.device("cuda:0" if options.device == "cuda" else "cpu")
        models = {"dnabert-s": options.dnabert, "esm2": options.esm2}
        tokenizer = options.tokenizer or DEMO / "dnabert_s" / "tokenizer.json"
        profile = write_profile(folder, models, tokenizer, device, options.precision)
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
            # Saved after every number of GPUs, so that an interrupted run keeps its results so far.
            what = (*options.gpus, *options.products, options.precision, result["device"])
            keep(result, options.out, "scaling", *what)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
