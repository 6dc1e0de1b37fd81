"""What the benchmarks of the platform share: reads of the demo genome, and a prediction and what it cost."""

import os
import random
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.record import ROOT
from virnucpro_core.profiles import DEMO

READ_BASES = 150


def write_reads(path: Path, reads: int, seed: int) -> None:
    """FASTA of `reads` random pieces of the demo genomes."""
    genome = "".join(
        line for line in (DEMO / "viral.fa").read_text().split("\n") if line[:1] not in (">", "")
    )
    draw = random.Random(seed)
    with path.open("w") as stream:
        for number in range(reads):
            start = draw.randrange(len(genome) - READ_BASES)
            stream.write(f">read{number}\n{genome[start : start + READ_BASES]}\n")


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds by the clock, and of all processors together; peak memory of the largest process in MB."""

    wall: float
    cpu: float
    peak_mb: float


def predict(home: Path, *words: object) -> Cost:
    """`virnucpro predict` in the demo profile, with a home of its own; raises where it fails."""
    environment = os.environ | {
        "VIRNUCPRO_HOME": str(home),
        "DAGSTER_HOME": "",
        "VIRNUCPRO_GPUS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-W", "ignore", "-m", "virnucpro_assets.cli", "predict", *map(str, words)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [*command, "--profile", "demo", "--chunk-size", "300"],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, after.ru_maxrss / 1e3)
