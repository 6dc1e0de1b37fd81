"""Measure the memory of every process of one `virnucpro predict` of a large sample, from the file to the results.

    python -m benchmarks.memory --reads 1000000 --out benchmarks/results
    python -m benchmarks.memory --reads 10000000 --device cuda --precision float16 --out benchmarks/results

Reads are random bases, so hardly any two frames are identical: the worst case for the memory of deduplication. Uses the
demo profile. rss_mb: the most that one process of this kind had in memory, with the files that it has mapped, which the
system can drop at any time. private_mb: the most that belonged to one process alone (USS), sampled twice a second.
"""

import argparse
import collections
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.measured import BASES, READ_BASES
from benchmarks.record import ROOT, finish, print_table, provenance
from virnucpro_core.sequences.frames import Frames

PERIOD_SECONDS = 0.5
BLOCK = 100_000
WORKER = "virnucpro_assets.running.worker"


def write_reads(path: Path, reads: int) -> None:
    """Write random reads of READ_BASES bases."""
    draw = np.random.default_rng(3)
    with path.open("wb") as stream:
        for first in range(0, reads, BLOCK):
            rows = draw.choice(BASES, (min(BLOCK, reads - first), READ_BASES))
            stream.write(
                b"".join(b">read%d\n%b\n" % (first + i, row.tobytes()) for i, row in enumerate(rows))
            )


def kind(process: psutil.Process, driver: int) -> str:
    """What the process does: driver, worker, or a process that a worker has started."""
    if process.pid == driver:
        return "driver"
    words = process.cmdline()
    if WORKER in words:
        return f"worker {words[-1]}"
    parents = [parent.cmdline() for parent in process.parents()]
    of = next((words[-1] for words in parents if WORKER in words), "driver")
    return f"process of {of}"


def watch(command: list[str], environment: dict[str, str]) -> tuple[float, list[dict[str, Any]], float]:
    """Run the command. Returns its seconds, a row for each kind of process, and the most private memory of all (MB)."""
    rss: collections.Counter[str] = collections.Counter()
    private: collections.Counter[str] = collections.Counter()
    seen: dict[str, set[int]] = collections.defaultdict(set)
    most, started = 0.0, time.perf_counter()
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    tree = psutil.Process(driver.pid)
    while driver.poll() is None:
        together = 0.0
        for process in [tree, *tree.children(recursive=True)]:
            try:
                name, memory = kind(process, driver.pid), process.memory_full_info()
            except psutil.Error:
                continue  # it has just ended
            seen[name].add(process.pid)
            rss[name] = max(rss[name], memory.rss)
            private[name] = max(private[name], memory.uss)
            together += memory.uss
        most = max(most, together)
        time.sleep(PERIOD_SECONDS)
    seconds = time.perf_counter() - started
    if driver.returncode:
        raise SystemExit(f"the command ended with {driver.returncode}")
    rows = [
        {
            "process": name,
            "number": len(seen[name]),
            "rss_mb": rss[name] / 1e6,
            "private_mb": private[name] / 1e6,
        }
        for name in sorted(seen)
    ]
    return seconds, rows, most / 1e6


def main() -> None:
    """Run the prediction, print a table and a JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reads", type=int, default=1_000_000)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["float32", "float16"], default="float32")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_reads(folder / "reads.fa", options.reads)
        environment = os.environ | {
            "VIRNUCPRO_HOME": str(folder / "home"),
            "DAGSTER_HOME": "",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        words = [
            "predict",
            str(folder / "reads.fa"),
            "--profile",
            "demo",
            "--chunk-size",
            "300",
            "--gpus",
            "1",
        ]
        words += ["--device", options.device, "--precision", options.precision, "-o", str(folder / "out")]
        command = [sys.executable, "-m", "virnucpro_assets.cli.main", *words]
        seconds, rows, together = watch(command, environment)
        frames = Frames.open(next((folder / "home" / "samples").glob("*/translations"))).n_unique
        results = sum(file.stat().st_size for file in (folder / "out").iterdir()) / 1e6
    print_table(rows)
    print(f"{seconds:.0f} s; all processes together at most {together:,.0f} MB of their own")
    device = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    found = {"reads": options.reads, "unique_frames": frames, "seconds": seconds, "results_mb": results}
    found |= {"device": device, "precision": options.precision, "private_mb_together": together, "rows": rows}
    finish(provenance() | found, options.out, "memory", options.reads, device)


if __name__ == "__main__":
    main()
