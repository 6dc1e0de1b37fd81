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
import csv
import dataclasses
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.errors import StoreError, UsageError
from virnucpro_core.files.digests import sha256_json, sha256_once
from virnucpro_core.files.publish import publish_json, publish_together
from virnucpro_core.results.calibration import Calibration, Preset, SampleProbabilities
from virnucpro_core.results.chunk_calls import (
    PREDICTIONS_HEADER,
    ChunkCalls,
    check_scores,
    chunk_maxima,
    write_prediction_rows,
)
from virnucpro_core.results.multiqc import MULTIQC_FILES, write_multiqc
from virnucpro_core.results.record_calls import (
    RecordCalls,
    call_records,
    chunk_scores,
    contigs_header,
    open_frames,
    write_contig_rows,
    write_viral_records,
)
from virnucpro_core.results.region_files import (
    CHUNKS_HEADER,
    SCORED_BY,
    RegionFiles,
    write_chunk_rows,
    write_score_rows,
)
from virnucpro_core.results.regions import RegionRule, find_regions
from virnucpro_core.results.report import Selection, write_report
from virnucpro_core.results.summary import PairRow, ReadCounts, ResultFile, ResultSummary, RunInfo, Tally
from virnucpro_core.results.viral_reads import READ_FILES, CalledReads, ReadSource, write_viral_reads
from virnucpro_core.sequences.chunks import Chunks
from virnucpro_core.sequences.frames import Frames

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

TABLE_CHUNKS = 100_000


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


def write_results(
    chunks: Chunks,
    frames: Frames,
    unique_scores: NDArray[np.float32],
    out: Path,
    *,
    calling: Calling,
    run: RunInfo,
    reads: ReadSource | None = None,
) -> ResultSummary:
    """Write all result files of a sample to `out` and return a summary of them.

    `unique_scores` (n_unique, 2) float32, columns others and virus, may be a memory map. Memory grows by a few bytes a
    read. `reads`: where the sample's reads came from, for the files of viral_reads.py. Raises UsageError for a cut-off
    outside 0 to 1; StoreError for scores that are not of the frames or no probabilities, missing inputs, disk errors.
    """
    _check_given(calling.cutoff, frames, unique_scores, out)
    tally, selection, read_calls = Tally(), Selection(chunks), CalledReads()
    earlier = _facts_in(out)
    with _published_together(out, _tables(frames)) as streams:
        with tempfile.TemporaryFile(dir=out) as spill:
            chunk_score = _write_frames(chunks, frames, unique_scores, streams, spill)
            calls = partial(
                call_records, chunks, frames.frame_chunk, chunk_score, cutoff=calling.cutoff, frames=frames
            )
            known = _probabilities(calling, calls)
            streams[CONTIGS].write(contigs_header(frames.min_open, is_calibrated=known is not None))
            regions_to = RegionFiles(
                chunks, *(streams[n] for n in (REGIONS_BED, REGIONS_GFF3, REGIONS_FASTA))
            )
            for called in calls():
                block = called if known is None else known.applied(called)
                regions = find_regions(chunks, block, calling.regions)
                write_contig_rows(streams[CONTIGS], block)
                write_viral_records(streams[VIRAL], chunks, block)
                write_score_rows(streams[SCORES], chunks, block)
                regions_to.add(block, regions)
                tally.add(block, regions)
                selection.add(block, regions)
                if chunks.has_reads:
                    read_calls.add(block)
        (out / RUN).unlink(missing_ok=True)
    read_counts: ReadCounts | None = None
    read_files: tuple[str, ...] = ()
    pairs: tuple[PairRow, ...] = ()
    if reads is not None and chunks.has_reads:
        read_counts, read_files, pairs = write_viral_reads(chunks, read_calls, reads, out)
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


def _probabilities(
    calling: Calling, calls: Callable[[], Iterator[RecordCalls]]
) -> SampleProbabilities | None:
    """The sample's probabilities, for which all records are called once before; None without a calibration."""
    if calling.calibration is None:
        return None
    return SampleProbabilities(calling.calibration, calls(), prior=calling.prior, preset=calling.preset)


def read_results(folder: Path) -> dict[str, Any]:
    """The content of `run.json`, after the sha256 of every file that it lists was checked.

    Raises StoreError that names the missing or damaged file.
    """
    remedy = "predict the sample again: the results are written again"
    try:
        facts: dict[str, Any] = json.loads((folder / RUN).read_bytes())
        files = {str(name): str(file["sha256"]) for name, file in facts["files"].items()}
        facts["digests"]["sample"], facts["settings"], facts["counts"]["records"], facts["counts"]["frames"]
    except FileNotFoundError as error:
        raise StoreError("there are no complete results", where=folder, remedy=remedy) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError("damaged", where=folder / RUN, remedy=remedy) from error
    for name, sha256 in files.items():
        file = folder / Path(name).name
        if not file.is_file() or sha256_once(file) != sha256:
            raise StoreError("missing, or its sha256 is not the one in run.json", where=file, remedy=remedy)
    return facts


def listed_files(folder: Path) -> list[str]:
    """Names of the result files in this folder, in the order of `run.json`, which comes last. Reads no other file.

    Raises StoreError if there are no complete results.
    """
    remedy = "predict the sample again: the results are written again"
    try:
        names = [str(name) for name in json.loads((folder / RUN).read_bytes())["files"]]
    except FileNotFoundError as error:
        raise StoreError("there are no complete results", where=folder, remedy=remedy) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError("damaged", where=folder / RUN, remedy=remedy) from error
    return [*(name for name in names if Path(name).name == name), RUN]


def first_calls(folder: Path, rows: int) -> list[dict[str, str]]:
    """The first rows of `contigs.tsv` in this folder. A sample may have millions of records."""
    with (folder / CONTIGS).open(encoding="utf-8", newline="") as stream:
        table = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return list(itertools.islice(table, rows))


def results_digest(folder: Path) -> str:
    """sha256 over the files' digests as `run.json` lists them, and that of `run.json` itself.

    Raises StoreError if there are no complete results. Reads no other file.
    """
    try:
        files = json.loads((folder / RUN).read_bytes())["files"]
        listed = {str(name): str(file["sha256"]) for name, file in files.items()}
        return sha256_json(listed | {RUN: sha256_once(folder / RUN)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            "there are no complete results", where=folder, remedy="predict the sample again"
        ) from error


def _write_frames(
    chunks: Chunks,
    frames: Frames,
    unique_scores: NDArray[np.float32],
    streams: Mapping[str, BinaryIO],
    spill: Any,
) -> NDArray[np.float64]:
    """Write the published tool's tables and `chunks.tsv`. Returns s of all chunks (n_chunks,), mapped from `spill`."""
    predictions = streams[FRAME_CALLS]
    predictions.write(PREDICTIONS_HEADER)
    if frames.min_open:
        streams[OPEN_CALLS].write(PREDICTIONS_HEADER)
    streams[CHUNK_TABLE].write(CHUNKS_HEADER.rstrip() + (SCORED_BY if frames.min_open else b"") + b"\n")
    calls = ChunkCalls(Path(predictions.name).parent)
    for lo in range(0, chunks.n_chunks, TABLE_CHUNKS):
        hi = min(lo + TABLE_CHUNKS, chunks.n_chunks)
        a, b = np.searchsorted(frames.frame_chunk, [lo, hi]).tolist()
        scores_N2 = np.asarray(unique_scores[frames.frame_unique[a:b]])
        check_scores(scores_N2, f"frames {a:,} to {b:,}")
        maxima_C2 = chunk_maxima(frames.frame_chunk[a:b], scores_N2, lo, hi)
        frames_C = np.bincount(np.asarray(frames.frame_chunk[a:b], dtype=np.int64) - lo, minlength=hi - lo)
        ids, open_C, published_C2 = frames.frame_ids(a, b, chunks), None, maxima_C2
        if frames.min_open:
            open_C, is_open = open_frames(frames, lo, hi), frames.is_open(a, b)
            # The published tool's two tables know only stop-free frames.
            published_C2, frames_C = (
                np.where(open_C[:, None] > 0, np.float32(np.nan), maxima_C2),
                frames_C - open_C,
            )
            own = list(itertools.compress(ids, is_open.tolist()))
            write_prediction_rows(streams[OPEN_CALLS], own, scores_N2[is_open])
            ids, scores_N2 = list(itertools.compress(ids, (~is_open).tolist())), scores_N2[~is_open]
        write_prediction_rows(predictions, ids, scores_N2)
        calls.add_maxima(chunks.chunk_ids(lo, hi), published_C2)
        write_chunk_rows(streams[CHUNK_TABLE], chunks, lo, frames_C, maxima_C2, open_C)
        spill.write(chunk_scores(maxima_C2).data)
    calls.write(streams[CHUNK_CALLS])
    if not chunks.n_chunks:  # a file without bytes cannot be mapped
        return np.empty(0)
    spill.flush()
    return np.memmap(spill, dtype=np.float64, mode="r", shape=(chunks.n_chunks,))


@contextlib.contextmanager
def _published_together(out: Path, names: Sequence[str]) -> Iterator[dict[str, BinaryIO]]:
    """Open one stream per file of the folder. None of the files appears before the block has ended."""
    with publish_together(out, names) as files, contextlib.ExitStack() as streams:
        yield {name: streams.enter_context(file.open("wb")) for name, file in files.items()}


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
