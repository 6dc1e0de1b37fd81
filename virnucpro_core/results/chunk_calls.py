"""Write the two result tables of the published tool: one row per frame, and one call per chunk.

`prediction_results.txt` holds the classifier's two scores of every frame: score1 = others, score2 = virus.
`prediction_results_highestscore.csv` calls a chunk virus when its highest score2 is at least its highest
score1; the two maxima may come from different frames, and equal maxima count as virus. Its rows are sorted by
chunk id, by code point. Both tables are tab separated and byte for byte what the published tool writes. Calls per
record are in `record_calls.py`.
"""

import bisect
import itertools
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.errors import InputError, StoreError
from virnucpro_core.files.columns import Array
from virnucpro_core.files.publish import no_check, publish
from virnucpro_core.results.rows import Cell, Cells, Column, joined, words

PREDICTIONS_HEADER = b"Sequence_ID\tPrediction\tscore1\tscore2\n"
CHUNK_CALLS_HEADER = b"Modified_ID\tIs_Virus\n"

RUN_ROWS = 500_000  # rows sorted in memory at a time: about 50 MB
_BLOCK_BYTES = 32 << 20
_PART_BYTES = 1 << 20  # of each sorted run in memory
_NUMBER = rb"[0-9.]+(?:[eE][-+]?[0-9]+)?"
_ROW = re.compile(rb"([^\x00-\x1f]+)[FR][123]\t(?:virus|others)\t(%b)\t(%b)\r?\n?" % (_NUMBER, _NUMBER))


def chunk_maxima(frame_chunk: Array, scores_N2: NDArray[np.float32], lo: int, hi: int) -> NDArray[np.float32]:
    """Highest score1 and score2 of each chunk in [lo, hi): (hi - lo, 2), NaN where a chunk has no frame.

    `frame_chunk` (N,), sorted, is the chunk of each frame.
    """
    counts_C = np.bincount(np.asarray(frame_chunk, dtype=np.int64) - lo, minlength=hi - lo)
    maxima_C2 = np.full((hi - lo, 2), np.nan, dtype=np.float32)
    scored = counts_C > 0
    if scored.any():
        firsts = (np.cumsum(counts_C) - counts_C)[scored]
        maxima_C2[scored] = np.maximum.reduceat(scores_N2, firsts, axis=0)
    return maxima_C2


def check_scores(scores_N2: NDArray[np.float32], where: str) -> None:
    """Raise StoreError unless every row holds two numbers from 0 to 1 that are not both 0."""
    good_N = ((scores_N2 >= 0) & (scores_N2 <= 1)).all(axis=1) & (scores_N2.sum(axis=1) > 0)
    if not good_N.all():
        row = int(np.argmin(good_N))
        raise StoreError(
            f"frame {row} of this block has the scores {scores_N2[row].tolist()}, not two probabilities",
            where=where,
            remedy="recompute the predictions of this sample",
        )


def maxima_places(
    frame_chunk: Array, scores_N2: NDArray[np.float32], maxima_C2: NDArray[np.float32]
) -> Array:
    """The first frame with the highest score1 and that with the highest score2 of each chunk, (C, 2); -1 without a
    frame.

    `frame_chunk` (N,), sorted, is the chunk of each frame; `maxima_C2` is what `chunk_maxima` gives.
    """
    n_frames = len(frame_chunk)
    is_one_N2 = scores_N2 == maxima_C2[frame_chunk]
    candidates_N2 = np.where(is_one_N2, np.arange(n_frames)[:, None], n_frames)
    places_C2 = np.full(maxima_C2.shape, -1)
    if n_frames:
        is_first = np.diff(frame_chunk, prepend=-1) > 0
        places_C2[frame_chunk[is_first]] = np.minimum.reduceat(
            candidates_N2, np.flatnonzero(is_first), axis=0
        )
    return places_C2


def prediction_rows(
    frame_ids: Sequence[Column], scores_N2: NDArray[np.float32], cells: Sequence[Cells]
) -> bytes:
    """Rows of `prediction_results.txt`: scores as numpy prints a float32, equal scores count as others.

    frame_ids: the columns (`rows.joined`) that make up the ids of the frames. cells: `decimals` of score1 and score2.
    """
    is_virus = scores_N2[:, 1] > scores_N2[:, 0]
    call = words(is_virus.astype(np.uint8), ("others", "virus"))
    return joined(len(scores_N2), [*frame_ids, b"\t", call, b"\t", cells[0], b"\t", cells[1], b"\n"])


def chunk_call_rows(chunk_ids: Sequence[Cell], maxima_C2: NDArray[np.float32]) -> bytes:
    """Rows of the table of chunk calls, in the given order; a chunk without a frame (NaN) has none.

    chunk_ids: the columns (`rows.joined`) that make up the ids of the chunks.
    """
    scored = ~np.isnan(maxima_C2[:, 0])
    is_virus = words((maxima_C2[:, 1] >= maxima_C2[:, 0]).astype(np.uint8), ("False", "True"))
    name = [(scored, column) for column in chunk_ids]
    return joined(len(maxima_C2), [*name, (scored, b"\t"), (scored, is_virus), (scored, b"\n")])


class SortedRows:
    """Sorts lines, in little memory: at most `run_rows` of them are sorted at a time and kept in an unnamed file.

    A tab sorts before every character of an id, so lines sort as the ids at their beginning do.
    """

    def __init__(self, folder: Path, run_rows: int = RUN_ROWS) -> None:
        self._folder, self._run_rows = folder, run_rows
        self._rows: list[bytes] = []
        self._runs: list[BinaryIO] = []

    def add(self, rows: Iterable[bytes]) -> None:
        """Add lines, each with its newline."""
        self._rows.extend(rows)
        if len(self._rows) >= self._run_rows:
            self._rows.sort()
            # `blocks` closes it. If `blocks` is never called, nothing remains on disk: the file has no name.
            run = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            run.writelines(self._rows)
            run.seek(0)
            self._runs.append(run)
            self._rows.clear()

    def blocks(self) -> Iterator[list[bytes]]:
        """All lines in order, in lists, and drop them.

        A part of each run is in memory. All lines up to the least of the parts' last ones can be given: no part that
        is still on disk has a line before it.
        """
        self._rows.sort()
        parts = [self._rows, *([] for _ in self._runs)]
        runs: list[BinaryIO | None] = [None, *self._runs]
        while True:
            for k, run in enumerate(runs):
                if run is not None and not parts[k]:
                    parts[k] = run.readlines(_PART_BYTES)
                    if not parts[k]:
                        run.close()
                        runs[k] = None
            least = min(
                (part[-1] for part, run in zip(parts, runs, strict=True) if run is not None), default=None
            )
            ends = [len(part) if least is None else bisect.bisect_right(part, least) for part in parts]
            block = [line for part, end in zip(parts, ends, strict=True) for line in part[:end]]
            if not block:
                break
            block.sort()
            yield block
            parts = [part[end:] for part, end in zip(parts, ends, strict=True)]
        self._runs.clear()
        self._rows = []


def write_chunk_calls(rows: SortedRows, stream: BinaryIO) -> int:
    """Write the table of chunk calls from lines `id, tab, score1, tab, score2, newline`, several for a chunk or one.

    Returns the number of chunks.
    """
    stream.write(CHUNK_CALLS_HEADER)
    number = 0
    lines = itertools.chain.from_iterable(rows.blocks())
    for chunk_id, own in itertools.groupby(lines, key=_first_field):
        scores = [line.split(b"\t") for line in own]
        others, virus = (max(float(fields[k]) for fields in scores) for k in (1, 2))
        stream.write(b"%b\t%b\n" % (chunk_id, b"True" if virus >= others else b"False"))
        number += 1
    return number


def consensus_from_predictions(path: Path, out: Path, *, check: Callable[[], None] = no_check) -> int:
    """Write the table of chunk calls `out` from a predictions table, ours or one of the published tool.

    check: called just before the table appears. Rows may come in any order. Returns the number of chunks. Raises
    InputError with the line number for a malformed table: wrong header, an id that does not end in a frame, scores
    that are not from 0 to 1.
    """
    if not path.is_file():
        what = "not a regular file" if path.exists() else "no such file"
        raise InputError(what, path=path, remedy="give the path of a prediction_results.txt")
    with publish(out, check) as temporary:
        calls = SortedRows(out.parent)
        for rows in _prediction_rows(path):
            calls.add(rows)
        with temporary.open("wb") as stream:
            return write_chunk_calls(calls, stream)


def _prediction_rows(path: Path) -> Iterator[list[bytes]]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", path=path) from error
    with stream:
        if stream.readline().removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") != PREDICTIONS_HEADER.rstrip():
            raise InputError(
                "not a predictions table: the first line has to be Sequence_ID, Prediction, score1, score2 "
                "with tabs between",
                path=path,
                line=1,
                remedy="give a prediction_results.txt",
            )
        number = 2
        while lines := stream.readlines(_BLOCK_BYTES):
            yield [_parsed(line, path, number + k) for k, line in enumerate(lines)]
            number += len(lines)


def _parsed(line: bytes, path: Path, number: int) -> bytes:
    match = _ROW.fullmatch(line)
    try:
        if match and float(match[2]) <= 1 and float(match[3]) <= 1:
            return b"%b\t%b\t%b\n" % match.group(1, 2, 3)
    except ValueError:
        pass  # digits and points that are not a number, such as 0.1.2: refused below
    raise InputError(
        f"malformed row {line[:80].decode(errors='replace')!r}: expected an id that ends in a frame "
        "(F1 to R3), virus or others, and two scores from 0 to 1, with tabs between",
        path=path,
        line=number,
        remedy="write the table again; if it was cut off or edited, nothing in it can be trusted",
    )


def _first_field(line: bytes) -> bytes:
    return line.split(b"\t", 1)[0]
