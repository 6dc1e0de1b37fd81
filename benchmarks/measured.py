"""Shared code of the platform benchmarks: write reads of the demo's genomes, run a prediction and measure its cost."""

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
    """Write a FASTA file of `reads` random pieces of the demo's viral genomes.

    A share CHANGED of the bases is replaced at random. The genomes are so short that many reads would be identical
    otherwise, and identical frames are computed only once per sample.
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
    """Wall-clock seconds, CPU seconds of all processors together, and peak memory of the largest process in MB."""

    wall: float
    cpu: float
    peak_mb: float


def predict(home: Path, *words: object, profile: str = "demo", gpus: int = 1) -> Cost:
    """Run `virnucpro predict` with its own home, in `gpus` lanes (demo profile: on the CPU). Raises if it fails."""
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
