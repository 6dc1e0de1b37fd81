"""Measure peak memory of reading and translating one sample, for several numbers of reads, each in its own process.

Reads are random bases, so hardly any two frames are identical: the worst case for the memory of deduplication.

python -m benchmarks.large_sample --reads 100000 300000 --out benchmarks/results
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measured import READ_BASES
from benchmarks.record import ROOT, finish, print_table, provenance
from virnucpro_core.sequences.chunks import write_chunks
from virnucpro_core.sequences.frames import write_frames


def one(reads: int, folder: Path) -> dict[str, Any]:
    """Seconds and peak memory (MB, above what the imports take) of chunks and translations in this process."""
    draw = random.Random(3)
    with (folder / "reads.fa").open("w") as stream:
        for number in range(reads):
            stream.write(f">read{number}\n{''.join(draw.choices('ACGT', k=READ_BASES))}\n")
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    started = time.perf_counter()
    chunks = write_chunks([folder / "reads.fa"], folder / "chunks", chunk_size=300)
    after_chunks = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    frames = write_frames(chunks, folder / "frames")
    return {
        "reads": reads,
        "unique_frames": frames.n_unique,
        "input_mb": (folder / "reads.fa").stat().st_size / 1e6,
        "seconds": time.perf_counter() - started,
        "idle_mb": idle,
        "peak_chunks_mb": after_chunks,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def main() -> None:
    """Measure each number of reads; print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reads", type=int, nargs="+", default=[100_000, 300_000])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.child:
        with tempfile.TemporaryDirectory() as temporary:
            print(json.dumps(one(options.reads[0], Path(temporary))))
        return
    rows = []
    for reads in options.reads:
        command = [sys.executable, "-m", "benchmarks.large_sample", "--child", "--reads", str(reads)]
        said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(said))
    print_table(rows)
    finish(provenance() | {"rows": rows}, options.out, "large-sample")


if __name__ == "__main__":
    main()
