"""Scores of labelled records and chunks, read from a sample's results folder."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.errors import StoreError
from virnucpro_core.evaluation.metrics import Rows
from virnucpro_core.results.folder import CONTIGS, FRAME_CALLS, OPEN_CALLS, RUN
from virnucpro_core.results.record_calls import chunk_scores
from virnucpro_core.sequences.labelled import Truth


@dataclass(frozen=True, slots=True)
class Scored:
    """Labelled scores: a row for each record and for each chunk that has a score.

    groups: names of the groups. probability, fdr: (records,) float64, NaN where there is none; None without a
    calibration. A chunk's length is that of its record. chunks_without: chunks without a score, of all records. prior:
    the share of virus (0 to 1) behind the probabilities, None without a calibration; `prior_words`: where it is from.
    open_records, open_chunks: which rows have a score by open frames only, (records,) and (chunks,) bool; None for a
    sample without open frames.
    """

    records: Rows
    chunks: Rows
    groups: list[str]
    chunks_without: int
    probability: NDArray[np.float64] | None = None
    fdr: NDArray[np.float64] | None = None
    prior: float | None = None
    prior_words: str = ""
    open_records: NDArray[np.bool_] | None = None
    open_chunks: NDArray[np.bool_] | None = None


def read_scored(results: Path, truth: Mapping[str, Truth]) -> Scored:
    """Read `contigs.tsv` and the scores of all frames. Raises StoreError if the records are not those of `truth`."""
    table = _records(results / CONTIGS)
    if table.ids != list(truth):
        raise StoreError(
            "the records are not the labelled ones", where=results / CONTIGS, remedy="run with --fresh"
        )
    names = sorted({one.group for one in truth.values()})
    index = {name: k for k, name in enumerate(names)}
    label = np.array([one.label for one in truth.values()], np.int64)
    group = np.array([index[one.group] for one in truth.values()], np.int64)
    length = np.array(table.length, np.int64)
    records = Rows(label, np.array(table.score), group, length)
    numbers = {name: k for k, name in enumerate(truth)}
    record, score = _chunk_scores(results / FRAME_CALLS, numbers)
    open_records = open_chunks = None
    if table.opened:
        record_open, score_open = _chunk_scores(results / OPEN_CALLS, numbers)
        open_chunks = np.repeat([False, True], [len(score), len(score_open)])
        record, score = np.concatenate([record, record_open]), np.concatenate([score, score_open])
        opened, scored = np.array(table.opened), np.array(table.scored)
        open_records = (opened > 0) & (opened == scored)
    chunks = Rows(label[record], score, group[record], length[record])
    return Scored(
        records,
        chunks,
        names,
        table.chunks - len(score),
        np.array(table.probability) if table.probability else None,
        np.array(table.fdr) if table.fdr else None,
        *_prior(results),
        open_records,
        open_chunks,
    )


def _prior(results: Path) -> tuple[float | None, str]:
    """The share of virus in `run.json`, and where it is from."""
    known = json.loads((results / RUN).read_bytes()).get("calibration")
    if not known:
        return None, ""
    return float(known["prior"]), "estimated from the scores" if known[
        "prior_is_estimated"
    ] else "given by --prior"


@dataclass(slots=True)
class _Table:
    """What is used of `contigs.tsv`: a value for each record, NaN for an empty cell; `chunks` is their sum.

    opened: `chunks_open`, empty if there is no such column.
    """

    ids: list[str] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    probability: list[float] = field(default_factory=list)
    fdr: list[float] = field(default_factory=list)
    scored: list[int] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    chunks: int = 0


def _records(path: Path) -> _Table:
    found = _Table()
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            found.ids.append(row["record_id"])
            found.length.append(int(row["length"]))
            found.chunks += int(row["chunks"])
            found.scored.append(int(row["chunks_scored"]))
            if "chunks_open" in row:
                found.opened.append(int(row["chunks_open"]))
            for name in ("score", "probability", "fdr"):
                if name in row:
                    getattr(found, name).append(float(row[name] or "nan"))
    return found


def _chunk_scores(path: Path, records: Mapping[str, int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Record number and score of each chunk with a frame, from the table of frames, where chunks are in order."""
    record: list[int] = []
    highest: list[tuple[float, float]] = []
    last = ""
    with path.open(encoding="utf-8") as stream:
        next(stream)
        for name, others, virus in _frames(stream):
            chunk = name[:-2]
            if chunk == last:
                highest[-1] = max(highest[-1][0], others), max(highest[-1][1], virus)
                continue
            last = chunk
            record.append(records[chunk.rpartition("_chunk_")[0]])
            highest.append((others, virus))
    maxima_C2 = np.array(highest, np.float32).reshape(-1, 2)
    return np.array(record, np.int64), chunk_scores(maxima_C2)


def _frames(stream: Iterator[str]) -> Iterator[tuple[str, float, float]]:
    for line in stream:
        name, _, others, virus = line.rstrip("\n").split("\t")
        yield name, float(others), float(virus)
