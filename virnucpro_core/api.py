"""Records in memory to calls: the functions behind `import virnucpro_core`, for notebooks and scripts.

They give and take lists of small dataclasses and numpy arrays, and compute nothing themselves: cutting, translation,
calls and files are those of the pipeline, run over a temporary folder where they want a store. For samples that fit
into memory; a larger one, or one that should be resumed, is `virnucpro predict`'s.
"""

import contextlib
import csv
import importlib.metadata
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.errors import UsageError
from virnucpro_core.files.digests import sha256_json
from virnucpro_core.results import chunk_calls, finished, folder, record_calls
from virnucpro_core.results.blocks import Stores
from virnucpro_core.results.summary import ResultSummary, RunInfo
from virnucpro_core.sequences import chunks as windows
from virnucpro_core.sequences import fasta
from virnucpro_core.sequences.fasta import Duplicates, Record
from virnucpro_core.sequences.frames import Frames, write_frames
from virnucpro_core.sequences.translation import FRAMES
from virnucpro_core.sequences.translation import translate as translate_windows

if TYPE_CHECKING:
    import pandas as pd

    from virnucpro_core.models.profiles import ResolvedProfile

_BLOCK_BASES = 1 << 20
_PACKAGES = ("virnucpro", "torch", "numpy")


@dataclass(frozen=True, slots=True)
class Chunk:
    """One window of a record: at most `chunk_size` bases.

    id: `{record}_chunk_{k}`, k from 1. index: its number among the chunks of all records, from 0. record: index of its
    record, from 0. start: first base in the record, from 0. sequence: ASCII letters as read, U as T.
    """

    id: str
    index: int
    record: int
    start: int
    sequence: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """One reading frame of a chunk that holds no stop.

    id: `{record}_chunk_{k}{frame}`. chunk: index of its chunk. name: F1, F2, F3, or R1, R2, R3 of the reverse strand.
    nucleotides: upper case, on the frame's strand. protein: one letter a codon of A, C, G and T.
    """

    id: str
    chunk: int
    name: str
    nucleotides: bytes
    protein: bytes


@dataclass(frozen=True, slots=True)
class RecordCall:
    """What a row of contigs.tsv says of a record.

    length: bases. call: "virus", "others" or "no_call". score: 0 to 1, None without a call. chunks: windows of the
    record; chunks_scored: those with a frame. frames: stop-free frames. reason: why there is no call, else empty.
    """

    id: str
    length: int
    call: str
    score: float | None
    chunks: int
    chunks_scored: int
    frames: int
    reason: str


class Calls(Sequence[RecordCall]):
    """The calls of all records, in their order: a list of RecordCall that knows what it was made from.

    `records`, `frames` and `scores` (n_frames, 2) float32 are what `call_records` was given, `chunk_size` in bases,
    `cutoff` from 0 to 1.
    """

    def __init__(
        self,
        calls: Sequence[RecordCall],
        *,
        records: Sequence[Record],
        frames: Sequence[Frame],
        scores: NDArray[np.float32],
        chunk_size: int,
        cutoff: float,
    ) -> None:
        self._calls = list(calls)
        self.records, self.frames, self.scores = records, frames, scores
        self.chunk_size, self.cutoff = chunk_size, cutoff

    def __len__(self) -> int:
        return len(self._calls)

    @overload
    def __getitem__(self, index: int) -> RecordCall: ...
    @overload
    def __getitem__(self, index: slice) -> list[RecordCall]: ...
    def __getitem__(self, index: int | slice) -> RecordCall | list[RecordCall]:
        return self._calls[index]

    def __repr__(self) -> str:
        return repr(self._calls)


def read_records(
    files: str | Path | Sequence[str | Path], *, duplicates: Duplicates = "refuse"
) -> list[Record]:
    """All records of a FASTA or FASTQ file, or of several that are one sample; plain or compressed.

    Every record is there: one that cannot be scored has a `reason` and gets no call. Equal ids are refused, or made
    distinct (`id_2`, ...) with duplicates="rename"; mates get `/1` and `/2`. Raises InputError, with file, record and
    line.
    """
    paths = [files] if isinstance(files, str | Path) else files
    return list(fasta.read_records([Path(path) for path in paths], duplicates=duplicates))


def cut(records: Sequence[Record], chunk_size: int = 500) -> list[Chunk]:
    """The windows of all records, record by record: as many as cover it, overlapping where they do not fit evenly.

    chunk_size: bases, at least 3; the published classifiers are for 300 and 500. A record with a `reason` has no
    window. The arithmetic is VirNucPro's (sequences/chunks.py). Raises UsageError.
    """
    found: list[Chunk] = []
    with _chunked(records, chunk_size) as store:
        for lo, bases, starts, lengths in store.blocks(_BLOCK_BASES):
            hi = lo + len(starts)
            where = store.windows(lo, hi)
            columns = (starts, starts + lengths, where.record, where.start)
            rows = zip(store.chunk_ids(lo, hi), *(c.tolist() for c in columns), strict=True)
            found += [
                Chunk(name, lo + n, record, start, bases[a:b])
                for n, (name, a, b, record, start) in enumerate(rows)
            ]
    return found


def translate(chunks: Sequence[Chunk]) -> list[Frame]:
    """The stop-free frames of six of every chunk, in order: F1, F2, F3, R1, R2, R3 within a chunk.

    By the standard genetic code; codons with another letter than A, C, G and T are skipped. A frame is kept if a
    residue is left and no stop is in it. The nucleotides of frame f are `s[f:f + 1 + 3 * len(protein)]` of its strand:
    one base more than the codons, as VirNucPro has it (sequences/translation.py).
    """
    found: list[Frame] = []
    for block in _blocks(chunks):
        lengths = np.array([len(chunk.sequence) for chunk in block], np.int64)
        starts = np.cumsum(lengths) - lengths
        kept = translate_windows(b"".join(chunk.sequence for chunk in block), starts, lengths)
        rows = zip(kept.chunk.tolist(), kept.code.tolist(), kept.nucleotides, kept.proteins, strict=True)
        found += [
            Frame(block[n].id + FRAMES[code], block[n].index, FRAMES[code], nucleotides, protein)
            for n, code, nucleotides, protein in rows
        ]
    return found


def call_records(
    records: Sequence[Record],
    frames: Sequence[Frame],
    scores: NDArray[np.float32],
    *,
    chunk_size: int = 500,
    cutoff: float = 0.5,
) -> Calls:
    """A call for every record, from its frames' scores.

    frames: all frames of the records, as `translate(cut(records, chunk_size))` gives them. scores: (n_frames, 2)
    float32, others and virus, as `Classifier.score` gives them. A chunk's score is max(virus) / (max(others) +
    max(virus)) over its frames, a record's score the mean over its chunks that have a frame; it is called virus from
    `cutoff` (0 to 1) on (results/record_calls.py). Raises UsageError where frames or scores are not those of the
    records or the cut-off is none, StoreError for scores that are no probabilities.
    """
    if not 0 <= cutoff <= 1:
        raise UsageError(f"cut-off {cutoff} is not from 0 to 1", remedy="0.5 is the published tool's")
    calls: list[RecordCall] = []
    with _chunked(records, chunk_size) as chunks, _framed(chunks, frames, scores) as store:
        scores_N2 = np.ascontiguousarray(scores, np.float32)
        chunk_calls.check_scores(scores_N2, "scores")
        maxima_C2 = chunk_calls.chunk_maxima(store.frame_chunk, scores_N2, 0, chunks.n_chunks)
        chunk_score = record_calls.chunk_scores(maxima_C2)
        for block in record_calls.call_records(chunks, store.frame_chunk, chunk_score, cutoff=cutoff):
            calls += [
                RecordCall(name, length, record_calls.CALLS[call], score, *numbers)
                for name, length, call, score, *numbers in _rows(block)
            ]
    return Calls(
        calls, records=records, frames=frames, scores=scores_N2, chunk_size=chunk_size, cutoff=cutoff
    )


def write_results(
    calls: Calls, out: str | Path, *, sample: str = "sample", models: "ResolvedProfile | None" = None
) -> ResultSummary:
    """Write what `virnucpro predict` writes into the folder `out`: tables, viral.fasta, report.html, run.json.

    Tables are byte for byte those of `predict` for the same scores. sample: the name in the report. models: what
    `find_models` gave, if the scores are from them; they are named in the report and in run.json. Raises StoreError
    for the disk.
    """
    out = Path(out)
    with (
        _chunked(calls.records, calls.chunk_size) as chunks,
        _framed(chunks, calls.frames, calls.scores) as frames,
    ):
        unique_U2 = np.empty((frames.n_unique, 2), np.float32)
        unique_U2[frames.frame_unique[::-1]] = calls.scores[::-1]  # of equal frames the first counts
        return folder.write_results(
            Stores(chunks, frames),
            unique_U2,
            out,
            calling=folder.Calling(calls.cutoff),
            run=_run_info(calls, sample, models),
        )


def read_results(out: str | Path) -> "pd.DataFrame":
    """contigs.tsv of a results folder, one row a record in input order; every file is held against run.json first.

    Columns: record_id, call and reason (str), length, chunks, chunks_scored and frames (int64), score (float64, NaN
    without a call). Raises StoreError for a folder that is not whole.
    """
    import pandas as pd  # noqa: PLC0415 - half a second that nobody else needs

    finished.read_results(Path(out))
    table = pd.read_csv(
        Path(out) / folder.CONTIGS,
        sep="\t",
        quoting=csv.QUOTE_NONE,
        keep_default_na=False,
        dtype={"record_id": str, "call": str, "reason": str, "score": str},
    )
    # Every bit of a score: pandas' own reader of numbers is off by one in the last digit in some versions.
    table["score"] = np.array([float(score) if score else np.nan for score in table["score"]], np.float64)
    return table


@contextlib.contextmanager
def _chunked(records: Sequence[Record], chunk_size: int) -> Iterator[windows.Chunks]:
    """The pipeline's store of the records, in a folder that lasts as long as the block."""
    if not records:
        raise UsageError("no records", remedy="give at least one")
    ids = {record.id for record in records}
    if len(ids) < len(records):
        raise UsageError("two records have one id", remedy="make ids distinct")
    with tempfile.TemporaryDirectory(prefix="virnucpro-") as temporary:
        yield windows.write_records(records, Path(temporary) / "chunks", chunk_size=chunk_size)


@contextlib.contextmanager
def _framed(chunks: windows.Chunks, frames: Sequence[Frame], scores: NDArray[np.float32]) -> Iterator[Frames]:
    """The pipeline's store of the chunks' frames, which must be `frames`, with a score each."""
    if np.shape(scores) != (len(frames), 2):
        raise UsageError(
            f"scores of shape {np.shape(scores)} for {len(frames):,} frames",
            remedy="give one row a frame, columns others and virus",
        )
    with tempfile.TemporaryDirectory(prefix="virnucpro-") as temporary:
        store = write_frames(chunks, Path(temporary) / "frames")
        expected = store.frame_ids(0, store.n_frames, chunks)
        if [frame.id for frame in frames] != expected:
            raise UsageError(
                f"these {len(frames):,} frames are not the {len(expected):,} of the records in chunks of"
                f" {chunks.chunk_size:,} bases",
                remedy="give translate(cut(records, chunk_size)), all of it, and the same chunk size here",
            )
        yield store


def _blocks(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """Runs of chunks of about _BLOCK_BASES bases; none is empty."""
    block: list[Chunk] = []
    bases = 0
    for chunk in chunks:
        block.append(chunk)
        bases += len(chunk.sequence)
        if bases >= _BLOCK_BASES:
            yield block
            block, bases = [], 0
    if block:
        yield block


def _rows(block: record_calls.RecordCalls) -> Iterator[tuple[Any, ...]]:
    """id, length, call, score, chunks, chunks_scored, frames, reason of each record of the block."""
    scores = [None if np.isnan(score) else score for score in block.score.tolist()]
    columns = (block.chunks, block.chunks_scored, block.frames)
    return zip(
        [name.decode() for name in block.ids],
        block.length.tolist(),
        block.call.tolist(),
        scores,
        *(column.tolist() for column in columns),
        block.reasons,
        strict=True,
    )


def _run_info(calls: Calls, sample: str, models: "ResolvedProfile | None") -> RunInfo:
    content = sha256_json([[r.id, r.sequence.decode("ascii", "replace")] for r in calls.records])
    digests = {"sample": content}
    profile = note = ""
    if models is not None:
        profile, note = models.profile.name, models.profile.note if models.is_demo else ""
        digests |= {
            "dnabert-s": models.dnabert_fingerprint,
            "esm2": models.esm2_fingerprint,
            "classifier": models.classifier_fingerprint,
        }
    return RunInfo(
        sample=sample,
        profile=profile,
        note=note,
        settings={"chunk_size": calls.chunk_size, "cutoff": calls.cutoff},
        versions={name: importlib.metadata.version(name) for name in _PACKAGES},
        digests=digests,
    )
