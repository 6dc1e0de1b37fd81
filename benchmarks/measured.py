"""What the benchmarks of the platform share: reads of the demo genome, and a prediction and what it cost."""

import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.record import ROOT
from virnucpro_core.models.profiles import DEMO

READ_BASES = 150
CHANGED = 0.05
BASES = np.frombuffer(b"ACGT", np.uint8)


def write_reads(path: Path, reads: int, seed: int) -> None:
    """FASTA of `reads` random pieces of the demo's viral genomes.

    A share CHANGED of the bases is drawn anew: the genomes are so short that many reads would else be the same, and
    identical frames are computed once a sample.
    """
    genome = np.frombuffer(
        "".join(
            line for line in (DEMO / "viral.fa").read_text().split("\n") if line[:1] not in (">", "")
        ).encode(),
        np.uint8,
    )
    draw = np.random.default_rng(seed)
    starts = draw.integers(0, len(genome) - READ_BASES, reads)
    with path.open("wb") as stream:
        for number, start in enumerate(starts.tolist()):
            read = genome[start : start + READ_BASES].copy()
            changed = draw.random(READ_BASES) < CHANGED
            read[changed] = draw.choice(BASES, int(changed.sum()))
            stream.write(b">read%d\n%b\n" % (number, read.tobytes()))


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds by the clock, and of all processors together; peak memory of the largest process in MB."""

    wall: float
    cpu: float
    peak_mb: float


def predict(home: Path, *words: object, profile: str = "demo", gpus: int = 1) -> Cost:
    """`virnucpro predict` with a home of its own, in `gpus` lanes: the demo's on the CPU. Raises where it fails."""
    environment = os.environ | {
        "VIRNUCPRO_HOME": str(home),
        "DAGSTER_HOME": "",
        "VIRNUCPRO_GPUS": str(gpus),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    if profile == "demo":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-W", "ignore", "-m", "virnucpro_assets.cli.main", "predict", *map(str, words)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [*command, "--profile", profile, "--chunk-size", "300"],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, after.ru_maxrss / 1e3)
