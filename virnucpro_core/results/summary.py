"""Data classes that describe a finished sample: RunInfo is the input of the results, ResultSummary their outcome."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.results.record_calls import CALLS, NO_CALL, RecordCalls
from virnucpro_core.results.regions import KINDS, RegionRule, Regions

BINS = 20  # of 0.05 each; the last one includes 1


@dataclass(frozen=True, slots=True)
class RunInput:
    """An input file: its name without folders, its size in bytes and its sha256."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class RunInfo:
    """How the scores of a sample were made; written to `run.json`, shown in the report.

    `note` is printed wherever results are shown, for instance the demo profile's "scores carry no biological
    meaning"; empty for none. `digests` identifies everything that the scores depend on (chunks, translations,
    encoders, classifier); `products` says how each product was made (version, precision, attention kernel).
    `frames_note`: what to say of a classifier that was trained on other frames than the sample's; empty for none.
    `telemetry` and `made` (date, host, command, seconds) are the only parts that may differ between two runs over the
    same data. They are written to `run.json` only, so that every other file is byte for byte reproducible.
    """

    sample: str
    profile: str
    note: str = ""
    inputs: Sequence[RunInput] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    products: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    telemetry: Mapping[str, Any] = field(default_factory=dict)
    frames_note: str = ""
    made: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopRecord:
    """A record at the top of the report's table."""

    id: str
    length: int
    call: str
    score: float | None
    chunks: int
    chunks_scored: int


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A published file: its path, size in bytes and sha256."""

    path: Path
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts over all records of a sample. Keys of `calls` and `bases` are those of CALLS, all present.

    `regions`: viral regions; `region_bases`: bases in them; `provirus_candidates`: regions of that kind.
    `record_histogram` (2, BINS): records per score bin, called virus and called others.
    `chunk_histogram` (BINS,): chunks per bin of s.
    """

    records: int
    calls: dict[str, int]
    bases: dict[str, int]
    reasons: dict[str, int]
    chunks: int
    chunks_scored: int
    chunks_virus: int
    frames: int
    regions: int
    region_bases: int
    provirus_candidates: int
    record_histogram: tuple[tuple[int, ...], tuple[int, ...]]
    chunk_histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReadCounts:
    """How many pairs and unpaired reads the sample has, and how many of them were written as viral.

    pairs_no_call: pairs of which neither mate has a call.
    """

    rule: str
    pairs: int
    pairs_virus: int
    pairs_no_call: int
    unpaired: int
    unpaired_virus: int


@dataclass(frozen=True, slots=True)
class PairRow:
    """A pair for the report: its id and call, and (call, score) of both mates; a score is None without a call."""

    id: str
    call: str
    mate_1: tuple[str, float | None]
    mate_2: tuple[str, float | None]


@dataclass(frozen=True, slots=True)
class ResultSummary:
    """The counts of a sample and its result files; `files` by file name, `run.json` included.

    `reads`: None if the input has no reads with qualities. `pairs`: some pairs of them, for the report.
    `calibration`: what `calibration.SampleProbabilities.facts` says, empty without a calibration.
    `open_frames`: what `Tally.open_frames` says. `frames_note`: as in `RunInfo`.
    """

    sample: str
    profile: str
    note: str
    cutoff: float
    rule: RegionRule
    chunk_size: int
    counts: Counts
    top: tuple[TopRecord, ...]
    files: dict[str, ResultFile]
    reads: ReadCounts | None = None
    pairs: tuple[PairRow, ...] = ()
    calibration: Mapping[str, Any] = field(default_factory=dict)
    preset: str = ""
    open_frames: Mapping[str, int] = field(default_factory=dict)
    frames_note: str = ""


class Tally:
    """Adds up blocks of calls."""

    def __init__(self) -> None:
        self._calls = np.zeros(len(CALLS), dtype=np.int64)
        self._bases = np.zeros(len(CALLS), dtype=np.int64)
        self._reasons: Counter[str] = Counter()
        self._chunks = self._chunks_scored = self._chunks_virus = self._frames = 0
        self._regions = self._region_bases = self._candidates = 0
        self._chunks_open = self._only_open = 0
        self._records_PB = np.zeros((2, BINS), dtype=np.int64)
        self._chunks_B = np.zeros(BINS, dtype=np.int64)

    def add(self, block: RecordCalls, regions: Regions) -> None:
        """Count one block and its regions."""
        self._calls += np.bincount(block.call, minlength=len(CALLS))
        for call in range(len(CALLS)):
            self._bases[call] += block.length[block.call == call].sum()
        self._reasons.update(
            r for r, call in zip(block.reasons, block.call.tolist(), strict=True) if call == NO_CALL
        )
        scored = block.chunk_score[~np.isnan(block.chunk_score)]
        self._chunks += int(block.chunks.sum())
        self._chunks_scored += len(scored)
        self._chunks_virus += int((scored >= 0.5).sum())
        self._frames += int(block.frames.sum())
        self._chunks_B += _histogram(scored)
        if block.chunks_open is not None:
            self._chunks_open += int(block.chunks_open.sum())
            is_only_open = (block.chunks_open > 0) & (block.chunks_open == block.chunks_scored)
            self._only_open += int(is_only_open.sum())
        self._regions += len(regions)
        self._region_bases += int((regions.end - regions.start).sum())
        self._candidates += int((regions.kind == KINDS.index("provirus_candidate")).sum())
        for call in (0, 1):
            self._records_PB[call] += _histogram(block.score[block.call == call])

    def merge(self, other: "Tally") -> None:
        """Add what another one has counted."""
        self._reasons.update(other._reasons)
        for name, count in vars(other).items():
            if name != "_reasons":
                setattr(self, name, getattr(self, name) + count)

    def open_frames(self, min_open: int, n_frames: int) -> dict[str, int]:
        """For `run.json` and the report; empty if the sample has no open frames (`min_open` 0).

        frames: open frames, `n_frames` of them. chunks: scored by open frames. records: with no other scored chunk, so
        without open frames they had no call.
        """
        counts = {"frames": n_frames, "chunks": self._chunks_open, "records": self._only_open}
        return {"min_open": min_open} | counts if min_open else {}

    def counts(self) -> Counts:
        """The sums so far; reasons most frequent first, ties by name."""
        virus, others = (tuple(row) for row in self._records_PB.tolist())
        return Counts(
            records=int(self._calls.sum()),
            calls=dict(zip(CALLS, self._calls.tolist(), strict=True)),
            bases=dict(zip(CALLS, self._bases.tolist(), strict=True)),
            reasons=dict(sorted(self._reasons.items(), key=lambda item: (-item[1], item[0]))),
            chunks=self._chunks,
            chunks_scored=self._chunks_scored,
            chunks_virus=self._chunks_virus,
            frames=self._frames,
            regions=self._regions,
            region_bases=self._region_bases,
            provirus_candidates=self._candidates,
            record_histogram=(virus, others),
            chunk_histogram=tuple(self._chunks_B.tolist()),
        )


def _histogram(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.histogram(values, bins=BINS, range=(0.0, 1.0))[0].astype(np.int64)
