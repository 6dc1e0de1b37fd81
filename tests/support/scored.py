"""A small sample for tests: FASTA text through the real stores, and made-up scores for its frames."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.results.blocks import Stores
from virnucpro_core.results.calibration import Calibration, Preset
from virnucpro_core.results.folder import Calling, write_results
from virnucpro_core.results.regions import RegionRule
from virnucpro_core.results.summary import ResultSummary, RunInfo, RunInput
from virnucpro_core.sequences.chunks import Chunks, write_chunks
from virnucpro_core.sequences.frames import Frames, write_frames


@dataclass(frozen=True)
class Scored:
    """A sample with a score for every unique frame."""

    chunks: Chunks
    frames: Frames
    scores: NDArray[np.float32]

    def write(
        self,
        out: Path,
        *,
        cutoff: float = 0.5,
        note: str = "",
        rule: RegionRule | None = None,
        sample: str = "a_sample",
        calibration: Calibration | None = None,
        prior: float | None = None,
        preset: Preset = "",
        made: dict[str, str] | None = None,
        frames_note: str = "",
        processes: int = 1,
    ) -> ResultSummary:
        run = RunInfo(
            sample=sample,
            profile="demo" if note else "esm2-3b",
            note=note,
            inputs=[RunInput("reads.fa", 10, "0" * 64)],
            settings={"chunk_size": self.chunks.chunk_size, "dtype": "float32"},
            versions={"virnucpro": "0.1.0"},
            digests={"chunks": self.chunks.digest},
            telemetry={"tokens": 3},
            frames_note=frames_note,
            made=made or {},
        )
        calling = Calling(cutoff, calibration, prior, preset, rule or RegionRule())
        stores = Stores(self.chunks, self.frames)
        return write_results(stores, self.scores, out, calling=calling, run=run, processes=processes)


def scored_sample(folder: Path, fasta: str, *, chunk_size: int = 60, seed: int = 1) -> Scored:
    """Scores are random per unique frame, seeded; score1 + score2 = 1."""
    path = folder / "reads.fa"
    path.write_bytes(fasta.encode())
    chunks = write_chunks([path], folder / "chunks", chunk_size=chunk_size)
    frames = write_frames(chunks, folder / "frames")
    virus = np.random.default_rng(seed).random(frames.n_unique, dtype=np.float32)
    return Scored(chunks, frames, np.stack([1 - virus, virus], axis=1))


def sequence(length: int, seed: int) -> str:
    """Random bases without thymine, so that no forward frame holds a stop."""
    return "".join(np.random.default_rng(seed).choice(list("ACG"), length))
