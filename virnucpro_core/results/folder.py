"""Write and verify the results folder of a sample: the published tool's two tables, calls per record and per chunk,
viral regions, the report, sections for MultiQC and `run.json`.

The formats are defined in `chunk_calls.py`, `record_calls.py`, `region_files.py`, `report.py` and `multiqc.py`, and
described for users in docs/outputs.md. Other files in the folder are never
touched. A folder with a `run.json` is complete: that file is removed before the first file is replaced, and published
last.

Apart from `telemetry` and `made` in `run.json`, the same scores and settings give the same bytes: nothing else
contains a time. `made` (date, host, command, seconds) is kept when the same results are written again.
"""

import contextlib
import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.errors import StoreError, UsageError
from virnucpro_core.files.digests import remember_sha256, sha256_once
from virnucpro_core.files.publish import publish_json, publish_together
from virnucpro_core.results.blocks import (
    RecordBlock,
    RecordTexts,
    Stores,
    block_counts,
    chunk_texts,
    record_texts,
)
from virnucpro_core.results.calibration import Calibration, Preset, SampleProbabilities
from virnucpro_core.results.chunk_calls import (
    CHUNK_CALLS_HEADER,
    PREDICTIONS_HEADER,
    SortedRows,
    check_scores,
)
from virnucpro_core.results.multiqc import MULTIQC_FILES, write_multiqc
from virnucpro_core.results.record_calls import blocks_of, contigs_header
from virnucpro_core.results.region_files import CHUNKS_HEADER, GFF3_HEADER, SCORED_BY, numbered
from virnucpro_core.results.regions import RegionRule
from virnucpro_core.results.report import Selection, write_report
from virnucpro_core.results.summary import PairRow, ReadCounts, ResultFile, ResultSummary, RunInfo, Tally
from virnucpro_core.results.viral_reads import READ_FILES, CalledReads, ReadSource, write_viral_reads
from virnucpro_core.sequences.chunks import Chunks
from virnucpro_core.sequences.frames import Frames
from virnucpro_core.sequences.parallel import Processes

FRAME_CALLS = "prediction_results.txt"
OPEN_CALLS = "open_frames.tsv"  # the same columns; only of samples with open frames
CHUNK_CALLS = "prediction_results_highestscore.csv"
CONTIGS = "contigs.tsv"
VIRAL = "viral.fasta"
CHUNK_TABLE = "chunks.tsv"
SCORES = "scores.bedgraph"
REGIONS_BED = "regions.bed"
REGIONS_GFF3 = "regions.gff3"
REGIONS_FASTA = "regions.fasta"
REPORT = "report.html"
RUN = "run.json"
MADE = "made"  # its key that says when, where and by which command
NAME = "name"  # its key, in a folder of the user, for a name that is not the sample's (delivery.py)
# All files of a sample's results folder. Add every new result file to this list.
_TABLES = (
    FRAME_CALLS,
    CHUNK_CALLS,
    CHUNK_TABLE,
    CONTIGS,
    VIRAL,
    SCORES,
    REGIONS_BED,
    REGIONS_GFF3,
    REGIONS_FASTA,
)
RESULT_FILES = (*_TABLES, OPEN_CALLS, *READ_FILES, *MULTIQC_FILES, REPORT, RUN)
# Those that not every sample has.
OPTIONAL_FILES = (OPEN_CALLS, *READ_FILES)

TABLE_CHUNKS = 10_000
# Chunks that make a process of its own worthwhile: about a quarter of a second of work.
CHUNKS_A_PROCESS = 40_000


@dataclasses.dataclass(frozen=True, slots=True)
class Calling:
    """How records are called. cutoff: least score of a virus. calibration: for probabilities, None for none.

    prior: the share of virus, None to estimate it. preset: call by the expected false discovery rate instead of the
    cut-off; it needs a calibration. regions: which viral regions are written.
    """

    cutoff: float = 0.5
    calibration: Calibration | None = None
    prior: float | None = None
    preset: Preset = ""
    regions: RegionRule = dataclasses.field(default_factory=RegionRule)


class _Digested:
    """A file that is written from its start to its end; `sha256` is that of the bytes so far."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._hash = stream, hashlib.sha256()
        self.name = stream.name

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._hash.update(data)
        self._stream.write(data)

    @property
    def sha256(self) -> str:
        """Hex sha256."""
        return self._hash.hexdigest()


def write_results(
    stores: Stores,
    unique_scores: NDArray[np.float32],
    out: Path,
    *,
    calling: Calling,
    run: RunInfo,
    reads: ReadSource | None = None,
    processes: int = 1,
) -> ResultSummary:
    """Write all result files of a sample to `out` and return a summary of them.

    `unique_scores` (n_unique, 2) float32, columns others and virus, may be a memory map. Memory grows by a few bytes a
    read. `reads`: where the sample's reads came from, for the files of viral_reads.py. processes: how many write the
    tables of a large sample together; the bytes do not depend on it. Raises UsageError for a cut-off outside 0 to 1;
    StoreError for scores that are not of the frames or no probabilities, missing inputs, disk errors.
    """
    chunks, frames = stores.chunks, stores.frames
    _check_given(calling.cutoff, frames, unique_scores, out)
    earlier = _facts_in(out)
    processes = max(1, min(processes, chunks.n_chunks // CHUNKS_A_PROCESS))
    with _published_together(out, _tables(frames)) as streams, Processes(processes) as pool:
        tables = _write_tables(stores, unique_scores, calling, pool, streams)
        (out / RUN).unlink(missing_ok=True)
    tally, selection, known = tables.tally, tables.selection, tables.known
    read_counts: ReadCounts | None = None
    read_files: tuple[str, ...] = ()
    pairs: tuple[PairRow, ...] = ()
    if reads is not None and chunks.has_reads:
        read_counts, read_files, pairs = write_viral_reads(chunks, tables.read_calls, reads, out)
    summary = ResultSummary(
        sample=run.sample,
        profile=run.profile,
        note=run.note,
        cutoff=calling.cutoff,
        rule=calling.regions,
        chunk_size=chunks.chunk_size,
        counts=tally.counts(),
        top=selection.top(),
        files={name: _measured(out / name) for name in (*_tables(frames), *read_files)},
        reads=read_counts,
        pairs=pairs,
        calibration={} if known is None else known.facts(),
        preset=calling.preset,
        open_frames=tally.open_frames(frames.min_open, frames.n_open),
        frames_note=run.frames_note,
    )
    write_report(out / REPORT, summary, run, selection)
    write_multiqc(out, {run.sample: dataclasses.asdict(summary.counts)})
    files = summary.files | {name: _measured(out / name) for name in (*MULTIQC_FILES, REPORT)}
    facts = _run_facts(run, summary, files)
    # Results that were only written again keep their date, so the same command gives the same bytes.
    made = earlier.get(MADE, run.made) if earlier == facts | {MADE: earlier.get(MADE)} else run.made
    publish_json(out / RUN, facts | {MADE: dict(made)})
    return dataclasses.replace(summary, files=files | {RUN: _measured(out / RUN)})


@dataclasses.dataclass(frozen=True, slots=True)
class _Tables:
    """What is known when the tables are written. known: the probabilities, None without a calibration."""

    tally: Tally
    selection: Selection
    read_calls: CalledReads
    known: SampleProbabilities | None


def _write_tables(
    stores: Stores,
    unique_scores: NDArray[np.float32],
    calling: Calling,
    pool: Processes,
    streams: Mapping[str, _Digested],
) -> _Tables:
    chunks, tally = stores.chunks, Tally()
    selection, read_calls, n_regions = Selection(chunks), CalledReads(), 0
    with tempfile.TemporaryFile(dir=Path(streams[CONTIGS].name).parent) as spill:
        chunk_score = _write_chunks(stores, unique_scores, pool, streams, spill)
        known = _probabilities(stores, chunk_score, calling, pool)
        header = contigs_header(stores.frames.min_open, is_calibrated=known is not None)
        streams[CONTIGS].write(header)
        streams[REGIONS_GFF3].write(GFF3_HEADER)
        texts_of = partial(record_texts, stores, calling.cutoff, calling.regions, known)
        for texts in pool.map(texts_of, _record_blocks(chunks, chunk_score)):
            _write_records(streams, texts, n_regions)
            n_regions += texts.n_regions
            tally.merge(texts.tally)
            selection.add(texts.picked)
            if chunks.has_reads:
                read_calls.add(texts.call, texts.score)
    return _Tables(tally, selection, read_calls, known)


def _tables(frames: Frames) -> tuple[str, ...]:
    """The tables of a sample with these frames."""
    return (*_TABLES, OPEN_CALLS) if frames.min_open else _TABLES


def _check_given(cutoff: float, frames: Frames, unique_scores: NDArray[np.float32], out: Path) -> None:
    if not 0 <= cutoff <= 1:
        raise UsageError(f"cut-off {cutoff} is not from 0 to 1", remedy="0.5 is the published tool's")
    if unique_scores.shape != (frames.n_unique, 2):
        raise StoreError(
            f"scores of shape {unique_scores.shape} for {frames.n_unique:,} unique frames",
            where=out,
            remedy="recompute the predictions of this sample",
        )


def _record_blocks(chunks: Chunks, chunk_score: NDArray[np.float64]) -> Iterator[RecordBlock]:
    for first, bounds in blocks_of(chunks):
        yield first, bounds, np.asarray(chunk_score[bounds[0] : bounds[-1]])


def _probabilities(
    stores: Stores, chunk_score: NDArray[np.float64], calling: Calling, pool: Processes
) -> SampleProbabilities | None:
    """The sample's probabilities, for which all records are called once before; None without a calibration."""
    if calling.calibration is None:
        return None
    made = partial(block_counts, stores, calling.cutoff, calling.calibration)
    counts = pool.map(made, _record_blocks(stores.chunks, chunk_score))
    return SampleProbabilities(calling.calibration, counts, prior=calling.prior, preset=calling.preset)


def _write_records(streams: Mapping[str, _Digested], texts: RecordTexts, n_regions: int) -> None:
    """Append a block of records; `n_regions` regions were written before."""
    streams[CONTIGS].write(texts.contigs)
    streams[VIRAL].write(texts.viral)
    streams[SCORES].write(texts.scores)
    regions = texts.regions
    for name, text in (
        (REGIONS_BED, regions.bed),
        (REGIONS_GFF3, regions.gff3),
        (REGIONS_FASTA, regions.fasta),
    ):
        streams[name].write(numbered(text, n_regions + 1))


def _write_chunks(
    stores: Stores,
    unique_scores: NDArray[np.float32],
    pool: Processes,
    streams: Mapping[str, _Digested],
    spill: Any,
) -> NDArray[np.float64]:
    """Write the published tool's tables and `chunks.tsv`. Returns s of all chunks (n_chunks,), mapped from `spill`."""
    min_open, n_chunks = stores.frames.min_open, stores.chunks.n_chunks
    streams[FRAME_CALLS].write(PREDICTIONS_HEADER)
    if min_open:
        streams[OPEN_CALLS].write(PREDICTIONS_HEADER)
    streams[CHUNK_TABLE].write(CHUNKS_HEADER.rstrip() + (SCORED_BY if min_open else b"") + b"\n")
    calls = SortedRows(Path(streams[FRAME_CALLS].name).parent)
    for texts in pool.map(partial(chunk_texts, stores), _chunk_blocks(stores, unique_scores)):
        streams[FRAME_CALLS].write(texts.predictions)
        if min_open:
            streams[OPEN_CALLS].write(texts.open_frames)
        streams[CHUNK_TABLE].write(texts.chunks)
        calls.add(texts.calls.splitlines(keepends=True))
        spill.write(texts.score.data)
    streams[CHUNK_CALLS].write(CHUNK_CALLS_HEADER)
    for rows in calls.blocks():
        streams[CHUNK_CALLS].write(b"".join(rows))
    if not n_chunks:  # a file without bytes cannot be mapped
        return np.empty(0)
    spill.flush()
    return np.memmap(spill, dtype=np.float64, mode="r", shape=(n_chunks,))


def _chunk_blocks(
    stores: Stores, unique_scores: NDArray[np.float32]
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """(first chunk, end, scores of the frames) of blocks of chunks. Raises StoreError for what is no score."""
    frames = stores.frames
    for lo in range(0, stores.chunks.n_chunks, TABLE_CHUNKS):
        hi = min(lo + TABLE_CHUNKS, stores.chunks.n_chunks)
        a, b = np.searchsorted(frames.frame_chunk, [lo, hi]).tolist()
        scores_N2 = np.asarray(unique_scores[frames.frame_unique[a:b]])
        check_scores(scores_N2, f"frames {a:,} to {b:,}")
        yield lo, hi, scores_N2


@contextlib.contextmanager
def _published_together(out: Path, names: Sequence[str]) -> Iterator[dict[str, _Digested]]:
    """Open one stream per file of the folder. None of the files appears before the block has ended."""
    with publish_together(out, names) as files, contextlib.ExitStack() as opened:
        streams = {n: _Digested(opened.enter_context(file.open("wb"))) for n, file in files.items()}
        yield streams
    for name, stream in streams.items():
        remember_sha256(out / name, stream.sha256)


def _measured(path: Path) -> ResultFile:
    return ResultFile(path=path, bytes=path.stat().st_size, sha256=sha256_once(path))


def _facts_in(out: Path) -> dict[str, Any]:
    """The content of an earlier `run.json`; empty if there is none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((out / RUN).read_bytes())
        return found if isinstance(found, dict) else {}
    return {}


def _run_facts(run: RunInfo, summary: ResultSummary, files: dict[str, ResultFile]) -> dict[str, Any]:
    """The content of `run.json` but how it was made, as JSON gives it back."""
    facts = {
        "sample": run.sample,
        "profile": run.profile,
        "note": run.note,
        "cutoff": summary.cutoff,
        **({"calibration": dict(summary.calibration)} if summary.calibration else {}),
        **({"open_frames": dict(summary.open_frames)} if summary.open_frames else {}),
        **({"frames_note": summary.frames_note} if summary.frames_note else {}),
        "inputs": [dataclasses.asdict(file) for file in run.inputs],
        "settings": dict(run.settings),
        "versions": dict(run.versions),
        "digests": dict(run.digests),
        "products": {name: dict(recipe) for name, recipe in run.products.items()},
        "counts": dataclasses.asdict(summary.counts),
        **({"reads": dataclasses.asdict(summary.reads)} if summary.reads else {}),
        "files": {name: {"bytes": file.bytes, "sha256": file.sha256} for name, file in files.items()},
        "telemetry": dict(run.telemetry),
    }
    return dict(json.loads(json.dumps(facts)))
