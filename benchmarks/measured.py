"""What every benchmark of the platform shares: reads of the demo genome, a process and what it cost, the versions."""

import os
import platform
import random
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from virnucpro_core.profiles import DEMO

ROOT = Path(__file__).resolve().parents[1]
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


def machine() -> dict[str, Any]:
    """The processor, how busy it was with other work, and the versions that matter."""
    model = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    packages = {name: version(name) for name in ("torch", "dagster", "numpy")}
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=ROOT
    ).stdout.strip()
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "versions": {"python": platform.python_version()} | packages,
        "commit": commit,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows under their column names, right-aligned."""
    columns = list(rows[0])
    cells = [columns] + [
        [f"{row[c]:,.2f}" if isinstance(row[c], float) else str(row[c]) for c in columns] for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells
    )
