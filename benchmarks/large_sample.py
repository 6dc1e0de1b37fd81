"""Measure peak memory of a large sample, step by step: reading, translating, writing the results, delivering them.

Reads are random bases, so hardly any two frames are identical: the worst case for the memory of deduplication. Scores
are random. Each step of each number of reads runs in its own process. What the encoders take is in end_to_end.py.

python -m benchmarks.large_sample --reads 100000 300000 --out benchmarks/results
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measured import BASES, READ_BASES
from benchmarks.record import ROOT, finish, print_table, provenance
from virnucpro_core.results.blocks import Stores
from virnucpro_core.results.delivery import deliver
from virnucpro_core.results.folder import Calling, write_results
from virnucpro_core.results.summary import RunInfo
from virnucpro_core.sequences.chunks import Chunks, write_chunks
from virnucpro_core.sequences.frames import Frames, write_frames


def read(folder: Path) -> int:
    """Cut the reads into chunks. Returns their number."""
    return write_chunks([folder / "reads.fa"], folder / "chunks", chunk_size=300).n_chunks


def translate(folder: Path) -> int:
    """Translate the chunks. Returns the number of unique frames."""
    return write_frames(Chunks.open(folder / "chunks"), folder / "frames").n_unique


def results(folder: Path) -> int:
    """Write the results for random scores. Returns the number of records called virus."""
    stores = Stores(Chunks.open(folder / "chunks"), Frames.open(folder / "frames"))
    virus = np.random.default_rng(4).random(stores.frames.n_unique, dtype=np.float32)
    scores_U2 = np.stack([1 - virus, virus], axis=1)
    run = RunInfo("reads", "demo", digests={"sample": "0" * 64})
    summary = write_results(stores, scores_U2, folder / "results", calling=Calling(), run=run)
    return summary.counts.calls["virus"]


def copies(folder: Path) -> int:
    """Deliver the results. Returns their bytes."""
    deliver(folder / "results", folder / "out")
    return sum(file.stat().st_size for file in (folder / "out").iterdir())


STEPS: dict[str, Callable[[Path], int]] = {
    "read": read,
    "translate": translate,
    "results": results,
    "deliver": copies,
}


def write_reads(path: Path, reads: int) -> None:
    """Write random reads of READ_BASES bases."""
    draw = np.random.default_rng(3)
    with path.open("wb") as stream:
        for number in range(reads):
            stream.write(b">read%d\n%b\n" % (number, draw.choice(BASES, READ_BASES).tobytes()))


def one(step: str, folder: Path) -> dict[str, Any]:
    """Seconds and peak memory (MB) of a step in this process. idle_mb: what the imports take."""
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    started = time.perf_counter()
    made = STEPS[step](folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    seconds = time.perf_counter() - started
    return {"step": step, "made": made, "seconds": seconds, "idle_mb": idle, "peak_mb": peak}


def main() -> None:
    """Measure each number of reads; print a table and a JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reads", type=int, nargs="+", default=[100_000, 300_000])
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(one(options.step, options.folder)))
        return
    rows = []
    for reads in options.reads:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_reads(folder / "reads.fa", reads)
            megabytes = (folder / "reads.fa").stat().st_size / 1e6
            for step in STEPS:
                words = ["-m", "benchmarks.large_sample", "--step", step, "--folder", str(folder)]
                command = [sys.executable, *words]
                said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
                rows.append({"reads": reads, "input_mb": megabytes} | json.loads(said))
    print_table(rows)
    finish(provenance() | {"rows": rows}, options.out, "large-sample")


if __name__ == "__main__":
    main()
