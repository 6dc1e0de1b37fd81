"""Measure one sample from the command to its results, second by second: `virnucpro predict FILE`, then the same again.

    python -m benchmarks.end_to_end --records 20000 --out benchmarks/results
    python -m benchmarks.end_to_end --profile esm2-3b --precision fp8 --records 560000 --gpus 1 2 4 --tokenizer FILE \\
        --out benchmarks/results

Uses the demo profile on the CPU, or the published profile on GPUs with random weights of the published shapes. The
bare time of the encoders comes from the same run: the seconds in which the busiest GPU computed, by CUDA events.
whole_over_bare: the whole command divided by it. again_s: the same command once more, which computes nothing. The
timeline has the start and end of every step from Dagster's records, and twice a second the GPUs' utilisation, the
cores in use and the bytes written to disk. `--out` also gets a picture of it. GPU kernels are compiled in a small run
before.
"""

import argparse
import os
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import dagster as dg
import psutil
import pynvml
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.measured import predict
from benchmarks.record import finish, print_table, provenance
from benchmarks.seeded import write_models, write_reads
from virnucpro_core.engine.telemetry import LaneSummary, read_summary
from virnucpro_core.sequences.frames import Frames

PERIOD_SECONDS = 0.5
PHASES = {
    "chunks": "read",
    "translations": "translate",
    "dnabert_embeddings": "DNABERT-S",
    "esm_embeddings": "ESM-2",
    "merged_features": "merge",
    "predictions": "score",
    "consensus": "results",
}


@dataclass(slots=True)
class Watcher:
    """Samples the machine on a thread during the block. Times are seconds since the block began.

    samples: (time, cores in use, bytes written per second, utilisation of each GPU in percent).
    """

    samples: list[tuple[float, float, float, list[int]]] = field(default_factory=list)
    began: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.began = time.time()
        psutil.cpu_percent()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()

    def _watch(self) -> None:
        handles = []
        if torch.cuda.is_available():
            pynvml.nvmlInit()
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        written, cores = _written(), psutil.cpu_count() or 1
        while not self._stop.wait(PERIOD_SECONDS):
            now = _written()
            gpus = [int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu) for handle in handles]
            rate = (now - written) / PERIOD_SECONDS
            self.samples.append((time.time() - self.began, psutil.cpu_percent() * cores / 100, rate, gpus))
            written = now


def _written() -> int:
    counters = psutil.disk_io_counters()
    return counters.write_bytes if counters else 0


def steps(home: Path, began: float) -> list[dict[str, Any]]:
    """Start and end of every step of every run, in seconds since `began`, by Dagster's records."""
    found = []
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        for record in instance.get_run_records():
            run, starts = record.dagster_run, {}
            for entry in instance.all_logs(run.run_id):
                event = entry.dagster_event
                if event is None or event.step_key is None:
                    continue
                if event.is_step_start:
                    starts[event.step_key] = entry.timestamp - began
                elif event.is_step_success:
                    lane = run.tags.get("dagster/partition/gpu_rank", "")
                    end = entry.timestamp - began
                    found.append(
                        {"step": event.step_key, "rank": lane, "start": starts[event.step_key], "end": end}
                    )
    return sorted(found, key=lambda step: float(step["start"]))


def summaries(home: Path) -> list[LaneSummary]:
    """The telemetry of every lane and encoder of the home's only sample."""
    return [s for file in sorted(home.glob("samples/*/telemetry/*")) if (s := read_summary(file)) is not None]


def measure(folder: Path, reads: Path, gpus: int, options: argparse.Namespace) -> dict[str, Any]:
    """Predict `reads` in a new home, and again. Returns the row of the table, the steps and the samples."""
    home = folder / f"home-{gpus}"
    home.mkdir()
    if (folder / "models").exists():
        (home / "models").symlink_to(folder / "models")
    words = [reads, "--out", folder / f"out-{reads.stem}-{gpus}", "--precision", options.precision]
    os.sync()  # what was written before, such as the models, is not to be written in the time measured
    with Watcher() as watcher:
        cost = predict(home, *words, profile=options.profile, gpus=gpus)
    again = predict(home, *words, profile=options.profile, gpus=gpus)
    done, lanes = steps(home, watcher.began), summaries(home)
    busy: dict[int, float] = {}
    for lane in lanes:
        busy[lane.rank] = busy.get(lane.rank, 0.0) + lane.device_busy_seconds
    bare = max(busy.values())
    [frames] = home.glob("samples/*/translations")
    row = {
        "gpus": gpus,
        "records": options.records,
        "unique_frames": Frames.open(frames).n_unique,
        "whole_s": cost.wall,
        "bare_s": bare,
        "whole_over_bare": cost.wall / bare,
        "start_s": min(step["start"] for step in done),
        **{f"{phase}_s": _span(done, asset) for asset, phase in PHASES.items()},
        "checks_s": sum(step["end"] - step["start"] for step in done if step["step"].endswith("_checks"))
        / gpus,
        "load_s": max(lane.load_seconds for lane in lanes),
        "again_s": again.wall,
        "peak_mb": cost.peak_mb,
    }
    return {"row": row, "steps": done, "samples": watcher.samples}


def _span(done: list[dict[str, Any]], asset: str) -> float:
    """Seconds from the first start to the last end of the asset's step over all lanes."""
    own = [step for step in done if step["step"] == asset]
    return max(step["end"] for step in own) - min(step["start"] for step in own)


def picture(found: dict[str, Any], title: str) -> Figure:
    """The timeline: steps as bars, utilisation of the GPUs, cores in use, bytes written."""
    done, samples = found["steps"], found["samples"]
    figure = Figure(figsize=(11, 7), layout="constrained")
    bars, gpu, cores, disk = figure.subplots(4, 1, sharex=True, height_ratios=[4, 1.2, 1.2, 1.2])
    names = list(dict.fromkeys(f"{step['step']} {step['rank']}".strip() for step in done))
    for step in done:
        place = names.index(f"{step['step']} {step['rank']}".strip())
        colour = "#b9b9b9" if step["step"].endswith("_checks") else "#2f6f8f"
        bars.barh(place, step["end"] - step["start"], left=step["start"], color=colour)
    bars.set_yticks(range(len(names)), names, fontsize=7)
    bars.invert_yaxis()
    bars.set_title(title, fontsize=10)
    times = [sample[0] for sample in samples]
    for index in range(len(samples[0][3]) if samples else 0):
        gpu.plot(times, [sample[3][index] for sample in samples], linewidth=0.8, label=f"GPU {index}")
    gpu.set(ylabel="GPU, %", ylim=(0, 105))
    cores.fill_between(times, [sample[1] for sample in samples], color="#c0562f")
    cores.set(ylabel="cores")
    disk.fill_between(times, [sample[2] / 1e6 for sample in samples], color="#5b8f2f")
    disk.set(ylabel="disk, MB/s", xlabel="seconds since the command began")
    for axes in (bars, gpu, cores, disk):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Measure with each number of GPUs; print a table and a JSON line, write the result and the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--profile", choices=["demo", "esm2-3b"], default="demo")
    parser.add_argument("--precision", choices=["float32", "float16", "fp8"], default="float32")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1])
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json of DNABERT-S, for profile esm2-3b")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    on_gpu = options.profile != "demo"
    device = torch.cuda.get_device_name() if on_gpu else "cpu"
    words = (options.profile, options.precision, *options.gpus, device)
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_reads(folder / "reads.fa", options.records)
        if on_gpu:
            write_models(folder / "models", options.tokenizer, torch.device("cuda"))
            torch.cuda.empty_cache()
            write_reads(folder / "warm.fa", 2_000)
            warm = argparse.Namespace(**vars(options) | {"records": 2_000})
            measure(folder, folder / "warm.fa", 1, warm)
            (folder / "home-1").rename(folder / "warm")
        for gpus in options.gpus:
            found.append(measure(folder, folder / "reads.fa", gpus, options))
            print_table([found[-1]["row"]])
    result = provenance() | {
        "profile": options.profile,
        "precision": options.precision,
        "device": device,
        "rows": [one["row"] for one in found],
        "timelines": [{"gpus": one["row"]["gpus"], "steps": one["steps"]} for one in found],
    }
    if options.out:
        for one in found:
            name = f"end-to-end-{options.precision}-{one['row']['gpus']}-{device}".lower().replace(" ", "-")
            title = f"{options.records:,} records, {options.precision}, {one['row']['gpus']} x {device}"
            with (options.out / f"{name}.png").open("wb") as stream:
                FigureCanvasAgg(picture(one, title)).print_png(stream)
    finish(result, options.out, "end-to-end", *words)


if __name__ == "__main__":
    main()
