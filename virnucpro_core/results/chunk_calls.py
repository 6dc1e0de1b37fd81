"""Write the two result tables of the published tool: one row per frame, and one call per chunk.

`prediction_results.txt` holds the classifier's two scores of every frame: score1 = others, score2 = virus.
`prediction_results_highestscore.csv` calls a chunk virus when its highest score2 is at least its highest
score1; the two maxima may come from different frames, and equal maxima count as virus. Its rows are sorted by
chunk id, by code point. Both tables are tab separated and byte for byte what the published tool writes. Calls per
record are in `record_calls.py`.
"""

import heapq
import itertools
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.errors import InputError, StoreError
from virnucpro_core.files.columns import Array
from virnucpro_core.files.publish import publish

PREDICTIONS_HEADER = b"Sequence_ID\tPrediction\tscore1\tscore2\n"
CHUNK_CALLS_HEADER = b"Modified_ID\tIs_Virus\n"

RUN_ROWS = 500_000  # rows sorted in memory at a time: about 50 MB
_BLOCK_BYTES = 32 << 20
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


def write_prediction_rows(stream: BinaryIO, frame_ids: Sequence[str], scores_N2: NDArray[np.float32]) -> None:
    """Append rows of `prediction_results.txt`: scores as numpy prints a float32, equal scores count as others."""
    text_N2 = scores_N2.astype("U")
    names = np.where(scores_N2[:, 1] > scores_N2[:, 0], "virus", "others")
    rows = zip(frame_ids, names.tolist(), text_N2[:, 0].tolist(), text_N2[:, 1].tolist(), strict=True)
    stream.write("".join(f"{i}\t{name}\t{a}\t{b}\n" for i, name, a, b in rows).encode())


class ChunkCalls:
    """Collects rows (chunk id, score1, score2) in any order and writes one call per chunk, in order of chunk id.

    Keeps at most `run_rows` rows in memory. More rows are sorted in runs, written to unnamed files in `folder` and
    merged at the end.
    """

    def __init__(self, folder: Path, run_rows: int = RUN_ROWS) -> None:
        self._folder, self._run_rows = folder, run_rows
        self._rows: list[bytes] = []
        self._runs: list[BinaryIO] = []

    def add_rows(self, rows: Iterable[bytes]) -> None:
        """Add lines `id, tab, score1, tab, score2, newline`; an id holds no control character."""
        self._rows.extend(rows)
        if len(self._rows) >= self._run_rows:
            self._rows.sort()
            # `write` closes it. If `write` is never called, nothing remains on disk: the file has no name.
            run = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            run.writelines(self._rows)
            run.seek(0)
            self._runs.append(run)
            self._rows.clear()

    def add_maxima(self, chunk_ids: Sequence[str], maxima_C2: NDArray[np.float32]) -> None:
        """Add chunks by their maxima; those without a frame (NaN) have no row, as in the published tool."""
        text_C2 = maxima_C2.astype("U")
        scored = (~np.isnan(maxima_C2[:, 0])).tolist()
        rows = zip(chunk_ids, text_C2[:, 0].tolist(), text_C2[:, 1].tolist(), scored, strict=True)
        self.add_rows(f"{i}\t{a}\t{b}\n".encode() for i, a, b, is_scored in rows if is_scored)

    def write(self, stream: BinaryIO) -> int:
        """Write the table and drop the runs; returns the number of chunks."""
        self._rows.sort()
        stream.write(CHUNK_CALLS_HEADER)
        number = 0
        # A tab sorts before every character of an id, so lines sort as their ids do.
        merged = heapq.merge(*self._runs, self._rows)
        for chunk_id, rows in itertools.groupby(merged, key=_first_field):
            scores = [line.split(b"\t") for line in rows]
            others, virus = (max(float(fields[k]) for fields in scores) for k in (1, 2))
            stream.write(b"%b\t%b\n" % (chunk_id, b"True" if virus >= others else b"False"))
            number += 1
        for run in self._runs:
            run.close()
        self._runs.clear()
        self._rows.clear()
        return number


def consensus_from_predictions(path: Path, out: Path) -> int:
    """Write the table of chunk calls `out` from a predictions table, ours or one of the published tool.

    Rows may come in any order. Returns the number of chunks. Raises InputError with the line number for a malformed
    table: wrong header, an id that does not end in a frame, scores that are not from 0 to 1.
    """
    if not path.is_file():
        raise InputError("no such file", path=path, remedy="give the path of a prediction_results.txt")
    with publish(out) as temporary:
        calls = ChunkCalls(out.parent)
        for rows in _prediction_rows(path):
            calls.add_rows(rows)
        with temporary.open("wb") as stream:
            return calls.write(stream)


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
