"""Compare many small samples (`virnucpro predict FOLDER`) with one sample of as many reads (`virnucpro predict FILE`).

    python -m benchmarks.small_samples --samples 500 --reads 1000 --out benchmarks/results
    python -m benchmarks.small_samples --samples 200 --profile esm2-3b --tokenizer FILE --out benchmarks/results

Uses the demo profile on the CPU, or the published profile on GPUs with random weights of the published shapes, in one
lane or `--gpus` lanes. Each command has an empty home, so both start Dagster, make the instance and load the models.
GPU kernels are compiled in a small run before. busy_s: seconds of the encoders' batches; esm_s: seconds of the ESM-2
lanes, with loading the model; seconds_a_sample: seconds from one sample's results to the next sample's results. Run
it on a quiet machine: other work changes both ratios.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measured import Cost, predict, write_reads
from benchmarks.record import finish, print_table, provenance
from benchmarks.seeded import write_models
from virnucpro_core.engine.telemetry import read_lines
from virnucpro_core.results.folder import RUN
from virnucpro_core.samples.products import ESM
from virnucpro_core.sequences.frames import Frames


def main() -> None:
    """Measure both, print a table and a JSON line, and write the results file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--reads", type=int, default=1000)
    parser.add_argument("--profile", choices=["demo", "esm2-3b"], default="demo")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json of DNABERT-S, for profile esm2-3b")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    on_gpu = options.profile != "demo"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "in").mkdir()
        for number in range(options.samples):
            write_reads(folder / "in" / f"s{number:04}.fa", options.reads, seed=number)
        texts = [file.read_text() for file in sorted((folder / "in").iterdir())]
        (folder / "one.fa").write_text(
            "".join(text.replace(">", f">{number}_") for number, text in enumerate(texts))
        )
        if on_gpu:
            write_models(folder / "models", options.tokenizer, torch.device("cuda"))
            torch.cuda.empty_cache()
            (folder / "warm.fa").write_text(texts[0])
            measure(folder, "warm", folder / "warm.fa", options)
        rows: list[dict[str, Any]] = []
        named = (("one sample", folder / "one.fa"), (f"{options.samples} samples", folder / "in"))
        for what, given in named:
            measured = measure(folder, what.replace(" ", "-"), given, options)
            rows.append({"what": what, "reads": options.samples * options.reads} | measured)
            print_table(rows)
    one, many = rows
    result = provenance() | {
        "profile": options.profile,
        "gpus": options.gpus,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "rows": rows,
        "ratio_wall": many["wall_s"] / one["wall_s"],
        "ratio_cpu": many["cpu_s"] / one["cpu_s"],
        "cpu_seconds_a_sample_more": (many["cpu_s"] - one["cpu_s"]) / max(1, options.samples - 1),
    }
    print(
        f"many / one: {result['ratio_wall']:.2f} in wall-clock time, {result['ratio_cpu']:.2f} in CPU time;"
        f" {result['cpu_seconds_a_sample_more']:.2f} more CPU seconds per sample"
    )
    many_gpus = [f"{options.gpus}-gpus"] if options.gpus > 1 else []
    words = (f"{options.samples}x{options.reads}", *many_gpus, *([result["device"]] if on_gpu else []))
    finish(result, options.out, "small-samples", *words)


def measure(folder: Path, name: str, given: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Predict `given` in a new home `name`. Returns its cost and the figures from its samples' telemetry."""
    home = folder / name
    home.mkdir()
    if (folder / "models").exists():
        (home / "models").symlink_to(folder / "models")
    cost: Cost = predict(
        home, given, "--out", folder / f"{name}-out", profile=options.profile, gpus=options.gpus
    )
    made = sorted(file.stat().st_mtime for file in home.glob(f"samples/*/results/{RUN}"))
    frames = [Frames.open(path).n_unique for path in home.glob("samples/*/translations")]
    lines = [line for file in home.glob("samples/*/telemetry/*") for line in read_lines(file)]
    ends = [line for line in lines if line["event"] == "end"]
    return {
        "unique_frames": sum(frames),
        "busy_s": sum(end["device_busy_seconds"] for end in ends),
        "esm_s": sum(end["seconds"] for end in ends if end["product"] == ESM),
        "wall_s": cost.wall,
        "cpu_s": cost.cpu,
        "seconds_a_sample": float(np.mean(np.diff(made))) if len(made) > 1 else None,
    }


if __name__ == "__main__":
    main()
