"""Call every record from the scores of its chunks, and write `contigs.tsv` and `viral.fasta`.

A chunk's score is s = max(score2) / (max(score1) + max(score2)) over its frames, in float64, so s >= 0.5
exactly when the published tool calls the chunk virus. A record's score is the mean of s over its chunks that
have a frame; the record is called virus when the score is at least the cut-off, else others. A higher score2 of
a frame never lowers the record's score. A record without any frame gets no call, and a reason.

With open frames (`sequences/translation.py`) a chunk without a stop-free frame has a score too, by its open frames. It
counts like any other, and `chunks_open` says how many of the scored chunks are of this kind.

`contigs.tsv` is data for programs: every record in input order, ids and scores verbatim (the score as the
shortest decimal that reads back as the same float64; empty where there is none). An id may begin with
`=`, `+`, `-` or `@`, which a spreadsheet would take for a formula: import the column as text. Ids hold no tab
or line break, because the reader refuses control characters; `report.html` escapes them for display.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.files.columns import Array
from virnucpro_core.results.rows import Cells, Column, Texts, decimals, fasta, joined, numbers, words
from virnucpro_core.sequences.chunks import Chunks, chunk_starts
from virnucpro_core.sequences.frames import Frames

VIRUS, OTHERS, NO_CALL = 0, 1, 2
PUBLISHED_CUTOFF = 0.5
CALLS = ("virus", "others", "no_call")
TOO_SHORT = "shorter than 3 bases"
NO_CODON = "no codon of A, C, G, T only"
ALL_STOPPED = "every frame holds a stop codon"
NO_STRETCH = "every frame holds a stop codon, and no stretch between stops has {} amino acids"
CONTIGS_HEADER = b"record_id\tlength\tcall\tscore\tchunks\tchunks_scored\tframes\treason\n"
# Two more columns if the classifier has a calibration; `calibration.py` says what they mean.
CALIBRATED_COLUMNS = b"\tprobability\tfdr"
# One more, before these, if the sample has open frames.
OPEN_COLUMN = b"\tchunks_open"

BLOCK_RECORDS = 16_384
BLOCK_CHUNKS = 100_000
_CODON = re.compile(rb"[ACGT]{3}", re.IGNORECASE)
FASTA_WIDTH = 60


@dataclass(frozen=True, slots=True)
class RecordCalls:
    """Calls of the records first .. first + n - 1, and the scores of their chunks.

    Arrays (n,): `length`, `chunks`, `chunks_scored`, `frames` int64; `score` float64, NaN without a call;
    `call` uint8, an index into CALLS; `probability` and `fdr` float64, NaN without one, None without a calibration.
    `chunk_score` (sum of chunks,) float64, NaN where a chunk has no frame. `frames` counts stop-free frames.
    `cutoff` (n,) float64: the least score with which the record is called virus, NaN if no score decides; None for all
    records at PUBLISHED_CUTOFF. `chunks_open` (n,) int64 counts the chunks that were scored by open frames; None for a
    sample without such.
    """

    first: int
    ids: list[bytes]
    reasons: list[str]
    length: NDArray[np.int64]
    chunks: NDArray[np.int64]
    chunks_scored: NDArray[np.int64]
    frames: NDArray[np.int64]
    score: NDArray[np.float64]
    call: NDArray[np.uint8]
    chunk_first: int
    chunk_score: NDArray[np.float64]
    probability: NDArray[np.float64] | None = None
    fdr: NDArray[np.float64] | None = None
    cutoff: NDArray[np.float64] | None = None
    chunks_open: NDArray[np.int64] | None = None


def chunk_scores(maxima_C2: NDArray[np.float32]) -> NDArray[np.float64]:
    """s of each chunk from its highest score1 and score2 (C, 2); NaN stays NaN. See the module's formula."""
    others_C, virus_C = maxima_C2.astype(np.float64).T
    scores_C: NDArray[np.float64] = virus_C / (others_C + virus_C)
    return scores_C


def shown_score(score: float) -> str:
    """A score for people: cut to 4 decimals, so that one below a cut-off never reads as one that reaches it.

    The terminal, the web UI and the report (`decimals` in report.js) use this rule. Tables have all digits.
    """
    return f"{math.floor(score * 1e4 + 1e-7) / 1e4:.4f}"


def blocks_of(chunks: Chunks) -> Iterator[tuple[int, Array]]:
    """(first record, bounds) of blocks of records; record first + i has the chunks bounds[i] to bounds[i + 1] - 1.

    A block has at most BLOCK_RECORDS records and, except for a single record, BLOCK_CHUNKS chunks.
    """
    first = 0
    while first < chunks.n_records:
        bounds = np.asarray(chunks.chunk_offsets[first : first + BLOCK_RECORDS + 1])
        last = int(np.searchsorted(bounds, bounds[0] + BLOCK_CHUNKS, side="right")) - 1
        bounds = bounds[: max(last, 1) + 1]
        yield first, bounds
        first += len(bounds) - 1


def call_records(
    chunks: Chunks,
    frame_chunk: Array,
    chunk_score: NDArray[np.float64],
    *,
    cutoff: float,
    frames: Frames | None = None,
) -> Iterator[RecordCalls]:
    """Calls of all records, in input order, in blocks of bounded size.

    `frame_chunk` (n_frames,), sorted, and `chunk_score` (n_chunks,) float64 may be memory maps. frames: the store of
    these frames, needed if some are open.
    """
    for first, bounds in blocks_of(chunks):
        score_C = np.asarray(chunk_score[bounds[0] : bounds[-1]])
        yield call_block(chunks, frame_chunk, score_C, first, bounds, cutoff=cutoff, frames=frames)


def call_block(
    chunks: Chunks,
    frame_chunk: Array,
    score_C: NDArray[np.float64],
    first: int,
    bounds: Array,
    *,
    cutoff: float,
    frames: Frames | None = None,
) -> RecordCalls:
    """Calls of one block of `blocks_of`; `score_C` are the scores of its chunks. The rest is as in `call_records`."""
    n = len(bounds) - 1
    scored_C = ~np.isnan(score_C)
    n_scored = _sums(scored_C.astype(np.int64), bounds)
    sums = _sums(np.where(scored_C, score_C, 0.0), bounds)
    score = np.divide(sums, n_scored, out=np.full(n, np.nan), where=n_scored > 0)
    call = np.where(n_scored == 0, NO_CALL, np.where(score >= cutoff, VIRUS, OTHERS)).astype(np.uint8)
    n_frames, n_open = np.diff(np.searchsorted(frame_chunk, bounds)), None
    if frames is not None and frames.min_open:
        open_C = open_frames(frames, int(bounds[0]), int(bounds[-1]))
        n_frames = n_frames - _sums(open_C, bounds)
        n_open = _sums((open_C > 0).astype(np.int64), bounds)
    return RecordCalls(
        first=first,
        ids=chunks.ids[first : first + n],
        reasons=_reasons(chunks, first, call, 0 if frames is None else frames.min_open),
        length=np.diff(chunks.sequences.offsets[first : first + n + 1]),
        chunks=np.diff(bounds),
        chunks_scored=n_scored,
        frames=n_frames,
        score=score,
        call=call,
        chunk_first=int(bounds[0]),
        chunk_score=score_C,
        cutoff=None if cutoff == PUBLISHED_CUTOFF else np.full(n, cutoff),
        chunks_open=n_open,
    )


def open_frames(frames: Frames, lo: int, hi: int) -> NDArray[np.int64]:
    """Number of open frames of each chunk from lo to hi - 1, (hi - lo,)."""
    a, b = np.searchsorted(frames.frame_chunk, [lo, hi]).tolist()
    chunk = np.asarray(frames.frame_chunk[a:b])[frames.is_open(a, b)]
    return np.bincount(chunk - lo, minlength=hi - lo).astype(np.int64)


def contigs_header(min_open: int, *, is_calibrated: bool) -> bytes:
    """The first line of `contigs.tsv`. min_open: 0 without open frames. is_calibrated: with probabilities."""
    more = (OPEN_COLUMN if min_open else b"") + (CALIBRATED_COLUMNS if is_calibrated else b"")
    return CONTIGS_HEADER.rstrip() + more + b"\n"


def score_cells(block: RecordCalls, score_C: Cells, rows: Array, scores: NDArray[np.float64]) -> Cells:
    """`decimals(scores)`, scores of records of the block (`rows`) or of regions of them; a record of one chunk has the
    score of its chunk, so its text is copied.

    score_C: `decimals` of the block's chunk scores.
    """
    several = block.chunks[rows] != 1
    if several.all():
        return decimals(scores)
    found = score_C[np.cumsum(block.chunks)[rows] - 1]
    found[several] = decimals(scores[several])
    return found


def contig_rows(block: RecordCalls, score_C: Cells) -> bytes:
    """The rows of `contigs.tsv` of the block's records. score_C: `decimals` of the block's chunk scores."""
    columns: list[Column] = [
        Texts(block.ids),
        b"\t",
        numbers(block.length),
        b"\t",
        words(block.call, CALLS),
        b"\t",
        score_cells(block, score_C, np.arange(len(block.call)), block.score),
    ]
    for counts in (block.chunks, block.chunks_scored, block.frames):
        columns += [b"\t", numbers(counts)]
    columns += [b"\t", Texts([reason.encode() for reason in block.reasons])]
    if block.chunks_open is not None:
        columns += [b"\t", numbers(block.chunks_open)]
    if block.probability is not None and block.fdr is not None:
        columns += [b"\t", _six_digits(block.probability), b"\t", _six_digits(block.fdr)]
    return joined(len(block.call), [*columns, b"\n"])


def _six_digits(values: NDArray[np.float64]) -> Cells:
    """Numbers (n,) with six digits, empty for NaN. There are few different ones: each is written once."""
    different, which = np.unique(values, return_inverse=True)
    return words(which, ["" if math.isnan(value) else f"{value:.6g}" for value in different.tolist()])


def viral_records(chunks: Chunks, block: RecordCalls) -> bytes:
    """The block's records called virus as FASTA: letters as read (U as T), lines of 60."""
    rows = np.flatnonzero(block.call == VIRUS)
    descriptions = chunks.descriptions.take(block.first + rows)
    ids = [block.ids[k] for k in rows.tolist()]
    headers = [b"%b %b" % pair for pair in zip(ids, descriptions, strict=True)]
    return fasta(
        [header.rstrip() for header in headers], chunks.sequences.take(block.first + rows), FASTA_WIDTH
    )


def _sums(values_C: Array, bounds: Array) -> Array:
    """Sum of `values_C` (chunks of the block,) per record; 0 for a record without chunks."""
    sums = np.zeros(len(bounds) - 1, dtype=values_C.dtype)
    filled = np.diff(bounds) > 0
    if filled.any():
        sums[filled] = np.add.reduceat(values_C, (bounds[:-1] - bounds[0])[filled])
    return sums


def _reasons(chunks: Chunks, first: int, call: NDArray[np.uint8], min_open: int) -> list[str]:
    reasons = [""] * len(call)
    rows = np.flatnonzero(call == NO_CALL)
    known = chunks.reasons.take(first + rows)
    # Records with a reason of the reader have no chunks; their letters say nothing more.
    asked = rows[np.array([not reason for reason in known], np.bool_)]
    why = [_why_no_frame(s, chunks.chunk_size, min_open) for s in chunks.sequences.take(first + asked)]
    for found, texts in ((rows, [reason.decode() for reason in known]), (asked, why)):
        for k, text in zip(found.tolist(), texts, strict=True):
            reasons[k] = text
    return reasons


def _why_no_frame(sequence: bytes, chunk_size: int, min_open: int) -> str:
    if len(sequence) < 3:
        return TOO_SHORT
    # Search chunk by chunk: three readable bases across the border of two chunks are a codon of neither chunk.
    whole = len(sequence) <= chunk_size
    starts = [0] if whole else chunk_starts(len(sequence), chunk_size).tolist()
    readable = any(_CODON.search(sequence, start, start + chunk_size) for start in starts)
    stopped = NO_STRETCH.format(min_open) if min_open else ALL_STOPPED
    return stopped if readable else NO_CODON
