"""Measure six-frame translation on one core (plain loop, Biopython, ours) and the peak memory of ours.

    python benchmarks/sequences.py [--out benchmarks/results/sequences.json]

Prints a table, then one line of JSON. All three must keep the same number of frames. "Ours" is the path of
`write_frames` from a store of chunks to kept frames: find chunks, read them, translate them. No step uses threads.
Times are CPU seconds of one process, the best of several runs.
"""

import argparse
import gzip
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from Bio.Seq import Seq

from benchmarks.record import processor
from tests.support import reference_translation as reference
from virnucpro_core.sequences.chunks import Chunks, write_chunks
from virnucpro_core.sequences.frames import Frames, write_frames
from virnucpro_core.sequences.identical import Identities, digests_of
from virnucpro_core.sequences.translation import translate

CHUNK = 500
BLOCK = 1 << 18
# name, length of a sequence, number of sequences for the slow methods, number for ours
CASES = (
    ("150-bp reads", 150, 2_000, 200_000),
    ("500-bp chunks", 500, 600, 60_000),
    ("10-kb contigs", 10_000, 30, 3_000),
)
MEMORY_READS = 1_000_000
MEMORY_LIMIT = 1.5e9


def random_sequences(n: int, length: int, seed: int = 0) -> Iterator[bytes]:
    rng = np.random.default_rng(seed)
    for _ in range(n):
        yield np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, length)].tobytes()


def chunks_of(sequence: str) -> list[str]:
    return [sequence[start : start + CHUNK] for start in reference.chunk_starts(len(sequence), CHUNK)]


def plain(sequences: list[str]) -> int:
    """The plain loop over codons, as in the specification."""
    return sum(len(reference.frames(chunk)) for sequence in sequences for chunk in chunks_of(sequence))


def biopython(sequences: list[str]) -> int:
    """Biopython's Seq.translate of each frame. Gives the same frames as ours if every letter is A, C, G or T."""
    kept = 0
    for sequence in sequences:
        for chunk in chunks_of(sequence):
            for strand in (Seq(chunk), Seq(chunk).reverse_complement()):
                for frame in range(3):
                    end = frame + (len(strand) - frame) // 3 * 3
                    kept += "*" not in strand[frame:end].translate()
    return kept


def ours(chunks: Chunks) -> int:
    return sum(len(translate(*block).code) for _, *block in chunks.blocks(BLOCK))


def seconds(work: Callable[[], int], runs: int) -> tuple[float, int]:
    """Best CPU seconds of several runs, and the value that `work` returned."""
    best = float("inf")
    for _ in range(runs):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    return best, result


def compare(name: str, length: int, n_slow: int, n_fast: int) -> dict[str, Any]:
    """Sequences and bases per second of each method on one case."""
    few = [sequence.decode() for sequence in random_sequences(n_slow, length)]
    rates = {}
    slow = {"plain loop": seconds(lambda: plain(few), 3), "Biopython": seconds(lambda: biopython(few), 3)}
    with tempfile.TemporaryDirectory() as folder:
        chunks = store(Path(folder) / "few", (sequence.encode() for sequence in few))
        assert {kept for _, kept in slow.values()} == {ours(chunks)}, "the methods keep different frames"
        many = store(Path(folder) / "many", random_sequences(n_fast, length))
        fast = seconds(lambda: ours(many), 5)[0]
    for contestant, taken, n in (*((c, t, n_slow) for c, (t, _) in slow.items()), ("ours", fast, n_fast)):
        rates[contestant] = {"sequences_per_s": round(n / taken), "bases_per_s": round(n * length / taken)}
    ratio = rates["ours"]["bases_per_s"] / rates["plain loop"]["bases_per_s"]
    return {"case": name, "rates": rates, "ours_over_plain": round(ratio, 1)}


def store(folder: Path, sequences: Iterator[bytes]) -> Chunks:
    folder.mkdir()
    with (folder / "sequences.fa").open("wb") as stream:
        stream.writelines(b">s%d\n%b\n" % entry for entry in enumerate(sequences))
    return write_chunks([folder / "sequences.fa"], folder / "chunks", chunk_size=CHUNK)


def step(name: str, folder: Path) -> dict[str, Any]:
    """Run one step in this process: seconds and peak resident memory."""
    start = time.perf_counter()
    if name == "write_chunks":
        done = write_chunks([folder / "reads.fastq.gz"], folder / "chunks", chunk_size=CHUNK).n_records
    elif name == "write_frames":
        done = write_frames(Chunks.open(folder / "chunks"), folder / "frames").n_frames
    else:
        identities = Identities()
        for block in range(0, 10_000_000, 10_000):
            identities.extend_digests(digests_of(b"%d" % (i // 2) for i in range(block, block + 10_000)))
        done = len(identities.first())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"step": name, "rows": done, "seconds": round(time.perf_counter() - start, 1), "peak_bytes": peak}


def memory() -> list[dict[str, Any]]:
    """Measure each step over a million reads in its own process, and the digests of ten million frames."""
    with tempfile.TemporaryDirectory() as folder:
        with gzip.open(Path(folder) / "reads.fastq.gz", "wb", compresslevel=1) as stream:
            for i, read in enumerate(random_sequences(MEMORY_READS, 150)):
                stream.write(b"@read%d\n%b\n+\n%b\n" % (i, read, b"I" * 150))
        results = []
        for name in ("write_chunks", "write_frames", "identities"):
            command = [sys.executable, __file__, "--step", name, folder]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        assert results[0]["rows"] == MEMORY_READS
        assert results[1]["rows"] == Frames.open(Path(folder) / "frames").n_frames
    return results


def table(report: dict[str, Any]) -> str:
    lines = [f"{report['cpu']}, one core", "", f"{'':16}{'':12}{'sequences/s':>14}{'bases/s':>16}"]
    for case in report["cases"]:
        for contestant, rate in case["rates"].items():
            numbers = f"{rate['sequences_per_s']:>14,}{rate['bases_per_s']:>16,}"
            lines.append(f"{case['case']:16}{contestant:12}{numbers}")
        lines.append(f"{'':16}ours is {case['ours_over_plain']} times the plain loop")
    lines += ["", f"{'step':16}{'rows':>12}{'seconds':>14}{'peak memory':>16}"]
    for row in report["memory"]:
        peak = f"{row['peak_bytes'] / 1e6:,.0f} MB"
        lines.append(f"{row['step']:16}{row['rows']:>12,}{row['seconds']:>14}{peak:>16}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    parser.add_argument(
        "--step", nargs=2, metavar=("NAME", "FOLDER"), help="measure one step (used by this script itself)"
    )
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(step(arguments.step[0], Path(arguments.step[1]))))
        return
    report: dict[str, Any] = {
        "benchmark": "sequences",
        "cpu": processor(),
        "versions": {name: version(name) for name in ("numpy", "biopython", "dnaio")}
        | {"python": platform.python_version()},
        "chunk_size": CHUNK,
        "cases": [compare(*case) for case in CASES],
        "memory": memory(),
        "memory_limit_bytes": int(MEMORY_LIMIT),
    }
    assert all(row["peak_bytes"] < MEMORY_LIMIT for row in report["memory"]), "too much memory"
    print(table(report))
    print(json.dumps(report))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
