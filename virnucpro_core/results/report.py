"""Write `report.html`: one self-contained page that shows a sample's calls.

The page loads nothing from outside: no font or script is fetched, and its content security policy forbids it.
Scripts and styles run only with the digest that the policy names, so markup in an id could not run even if it
were not escaped.

The page shows a selection of the records, and says so. The table holds at most REPORT_ROWS records of each call:
the longest, of equal length those with the highest score. At most TRACKS tracks are drawn, of records with at
least TRACK_CHUNKS chunks: first those with a provirus candidate, then those with the most chunks called virus, then the
longest. A track has at most TRACK_BARS bars; in a longer one, each bar is the mean of neighbouring chunks.
"""

import heapq
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from virnucpro_core.errors import printable
from virnucpro_core.files.columns import Array
from virnucpro_core.files.publish import publish_bytes
from virnucpro_core.results.calibration import PRESETS
from virnucpro_core.results.page import page_environment, page_policy, template_text
from virnucpro_core.results.record_calls import CALLS, VIRUS, RecordCalls, shown_score
from virnucpro_core.results.regions import CHANGE, KINDS, MOST_SURE, Regions
from virnucpro_core.results.summary import BINS, PairRow, ResultSummary, RunInfo, TopRecord
from virnucpro_core.sequences.chunks import Chunks

REPORT_ROWS = (3_000, 1_000, 1_000)  # called virus, others, without a call
TRACKS = 50
TRACK_CHUNKS = 5
TRACK_BARS = 1_000
TOP_RECORDS = 10

FIELDS = (
    "number",
    "id",
    "description",
    "length",
    "call",
    "score",
    "chunks",
    "chunks_scored",
    "frames",
    "reason",
)
CALIBRATED_FIELDS = (*FIELDS, "probability", "fdr")
_WORDS = ("Virus", "Others", "No call")
_NOUNS = ("called virus", "called others", "without a call")
_LONGEST_TEXT = 300
# Only reports with pairs have it, so that all others keep their bytes.
_PAIRS_STYLE = ".pairs { width: 100%; } .pairs th, .pairs td { padding: .4rem .9rem; text-align: left; }\n"

Ranked = tuple[tuple[float, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Listed:
    """Records of the table as columns (n,), best first: their keys (n, 3) and the rest of what a row shows.

    chunks_open, probability and fdr are None where RecordCalls has None.
    """

    keys: NDArray[np.float64]
    chunks: NDArray[np.int64]
    chunks_scored: NDArray[np.int64]
    frames: NDArray[np.int64]
    score: NDArray[np.float64]
    reason: NDArray[np.object_]
    chunks_open: NDArray[np.int64] | None
    probability: NDArray[np.float64] | None
    fdr: NDArray[np.float64] | None

    def best(self, limit: int) -> "Listed":
        """The `limit` records with the smallest keys."""
        rows = np.lexsort(self.keys.T[::-1])[:limit]
        columns = [getattr(self, name) for name in Listed.__slots__]
        chosen: list[Any] = [None if column is None else column[rows] for column in columns]
        return Listed(*chosen)

    def joined(self, other: "Listed", limit: int) -> "Listed":
        """The best `limit` records of both."""
        good = np.ones(len(other.keys), np.bool_)
        if len(self.keys) == limit:  # most of the others are worse than all of these
            (first, second), (last_first, last_second) = other.keys[:, :2].T, self.keys[-1, :2]
            good = (first < last_first) | ((first == last_first) & (second <= last_second))
        if not good.any():
            return self
        pairs = ((getattr(self, name), getattr(other, name)) for name in Listed.__slots__)
        columns: list[Any] = [None if one is None else np.concatenate([one, two[good]]) for one, two in pairs]
        return Listed(*columns).best(limit)


@dataclass(frozen=True, slots=True)
class Picked:
    """What a block of records contributes: for each call its best records, its best tracks, how many it could draw."""

    listed: tuple[Listed, ...]
    tracks: list[Ranked]
    track_candidates: int


def pick(chunks: Chunks, block: RecordCalls, regions: Regions) -> Picked:
    """The records of one block, and of its regions (`find_regions`), that the page may show."""
    listed = tuple(
        _listed(block, np.flatnonzero(block.call == call)).best(limit)
        for call, limit in enumerate(REPORT_ROWS)
    )
    ends = np.cumsum(block.chunks)
    viral = np.concatenate([[0], np.cumsum(block.chunk_score >= 0.5)])
    viral = viral[ends] - viral[ends - block.chunks]
    candidates = np.flatnonzero((block.chunks >= TRACK_CHUNKS) & (block.chunks_scored > 0))
    proviral = np.zeros(len(block.call), dtype=np.int64)
    proviral[regions.record[regions.kind == KINDS.index("provirus_candidate")] - block.first] = 1
    record = block.first + np.arange(len(block.call))
    keys = np.stack([-proviral, -viral, -block.length, record], axis=1)[candidates]
    best = np.lexsort(keys.T[::-1])[:TRACKS]
    tracks = [
        (tuple(keys[n].tolist()), _track(chunks, block, regions, int(candidates[n]))) for n in best.tolist()
    ]
    return Picked(listed, tracks, len(candidates))


def _listed(block: RecordCalls, rows: Array) -> Listed:
    """These records of a block (indices into it) as columns."""
    keys = [-block.length, -np.nan_to_num(block.score), block.first + np.arange(len(block.call))]
    optional: tuple[Any, ...] = (block.chunks_open, block.probability, block.fdr)
    return Listed(
        np.stack(keys, axis=1)[rows],
        block.chunks[rows],
        block.chunks_scored[rows],
        block.frames[rows],
        block.score[rows],
        np.array([block.reasons[k] for k in rows.tolist()], np.object_),
        *(None if column is None else column[rows] for column in optional),
    )


def _table_rows(chunks: Chunks, listed: Listed, call: str) -> list[dict[str, Any]]:
    """Rows of the table, each with the keys CALIBRATED_FIELDS."""
    records = listed.keys[:, 2].astype(np.int64)
    texts = zip(chunks.ids.take(records), chunks.descriptions.take(records), strict=True)
    return [
        {
            "number": int(records[k]) + 1,
            "id": page_text(name.decode()),
            "description": page_text(description.decode(errors="replace")),
            "length": int(-listed.keys[k, 0]),
            "call": call,
            "score": _number(listed.score, k),
            "chunks": int(listed.chunks[k]),
            "chunks_scored": int(listed.chunks_scored[k]),
            "frames": int(listed.frames[k]),
            "reason": listed.reason[k] or _scored_by(listed, k),
            "probability": _number(listed.probability, k),
            "fdr": _number(listed.fdr, k),
        }
        for k, (name, description) in enumerate(texts)
    ]


def _track(chunks: Chunks, block: RecordCalls, regions: Regions, k: int) -> dict[str, Any]:
    lo = int(block.chunks[:k].sum())
    n = int(block.chunks[k])
    s = block.chunk_score[lo : lo + n]
    windows = chunks.windows(block.chunk_first + lo, block.chunk_first + lo + n)
    step = -(-n // TRACK_BARS)
    firsts = np.arange(0, n, step)
    ends = (windows.start + windows.length)[np.minimum(firsts + step, n) - 1]
    (row,) = _table_rows(chunks, _listed(block, np.array([k])), CALLS[block.call[k]])
    return row | {
        "step": step,
        "start": windows.start[firsts].tolist(),
        "end": ends.tolist(),
        "s": _bars(s, firsts),
        "virus": int((s >= 0.5).sum()),
        "scored": int(block.chunks_scored[k]),
        "regions": [[r.start, r.end, r.kind, r.score] for r in regions.of(block.first + k)],
    }


class Selection:
    """Receives what the blocks of calls contribute (`pick`) and keeps what the page shows (rules: see the module)."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._listed: tuple[Listed, ...] = ()
        self._tracks: list[Ranked] = []
        self.track_candidates = 0

    def add(self, picked: Picked) -> None:
        """Add one block's contribution."""
        self.track_candidates += picked.track_candidates
        tracks = heapq.merge(self._tracks, picked.tracks, key=lambda entry: entry[0])
        self._tracks = list(itertools.islice(tracks, TRACKS))
        if not self._listed:
            self._listed = picked.listed
            return
        pairs = zip(self._listed, picked.listed, REPORT_ROWS, strict=True)
        self._listed = tuple(kept.joined(new, limit) for kept, new, limit in pairs)

    @cached_property
    def _rows(self) -> list[list[dict[str, Any]]]:
        """For each call its rows. To be asked when all blocks have been added."""
        pairs = zip(CALLS, self._listed, strict=False)  # no block: no row
        return [_table_rows(self._chunks, listed, call) for call, listed in pairs]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table's records, virus before others before no call, each with the keys CALIBRATED_FIELDS."""
        return [row for rows in self._rows for row in rows]

    @property
    def tracks(self) -> list[dict[str, Any]]:
        """The tracks, best first: the keys of a row, and step, start, end, s (per bar), virus, scored,
        regions (start, end, kind, score of each)."""
        return [track for _, track in self._tracks]

    def top(self) -> tuple[TopRecord, ...]:
        """The first records of the table that are called virus, at most TOP_RECORDS."""
        names = TopRecord.__dataclass_fields__
        best = self._rows[VIRUS][:TOP_RECORDS] if self._rows else []
        return tuple(TopRecord(**{name: row[name] for name in names}) for row in best)


def _number(values: Array | None, k: int) -> float | None:
    return None if values is None or np.isnan(values[k]) else float(values[k])


def _scored_by(block: Listed, k: int) -> str:
    """What the page says of a record with a call whose chunks were scored by open frames; "" if none was."""
    n_open, scored = (
        0 if block.chunks_open is None else int(block.chunks_open[k]),
        int(block.chunks_scored[k]),
    )
    return f"{n_open:,} of {scored:,} scored chunks by open frames" if n_open else ""


def write_report(path: Path, summary: ResultSummary, run: RunInfo, selection: Selection) -> None:
    """Publish the page at `path`. The same arguments give the same bytes."""
    style, script = template_text("report.css"), template_text("report.js")
    style += _PAIRS_STYLE if summary.pairs else ""
    counts, rows = summary.counts, selection.rows
    complete = len(rows) == counts.records
    fields = CALIBRATED_FIELDS if summary.calibration else FIELDS
    page = (
        page_environment()
        .get_template("report.html.j2")
        .render(
            summary=summary,
            run=run,
            policy=page_policy(style, script),
            style=Markup(style),  # noqa: S704 - a file of this package
            script=Markup(script),  # noqa: S704 - a file of this package
            data=script_json(
                {
                    "complete": complete,
                    "fields": fields,
                    "rows": [[row[name] for name in fields] for row in rows],
                    "tracks": selection.tracks,
                }
            ),
            pairs=[_pair(row) for row in summary.pairs],
            limit=PRESETS.get(summary.preset, 0.0),
            shares=_shares(summary, rows),
            complete=complete,
            shown_tracks=len(selection.tracks),
            track_candidates=selection.track_candidates,
            track_minimum=TRACK_CHUNKS,
            record_chart=_chart(
                "Records",
                counts.record_histogram,
                None if summary.preset else summary.cutoff,
                "cut-off",
                "score of the record",
            ),
            chunk_chart=_chart("Chunks", _split(counts.chunk_histogram), 0.5, "chunk call", "s of the chunk"),
            rule=summary.rule,
            region_limits=f"{1 - MOST_SURE:g} to {MOST_SURE:g}",
            region_change=f"{1 - CHANGE:g} / {CHANGE:g}",
            settings=_facts(dict(run.settings) | {"profile": run.profile, "cutoff": summary.cutoff}),
            versions=_facts(run.versions),
            digests=_facts(run.digests),
        )
    )
    publish_bytes(path, page.encode())


def renamed_report(page: str, sample: str, name: str) -> str:
    """The page of a sample as it is if the sample is called `name`: in its title and its headline.

    Text of the sample cannot look like them, because its `<` are escaped.
    """
    for around in ("<title>{} ·", "<h1><bdi>{}</bdi></h1>"):
        page = page.replace(around.format(sample), around.format(name), 1)
    return page


def script_json(value: Any) -> Markup:
    """JSON that may stand inside a script element: ASCII only, without <, > and & that could end it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704 - escaped above


def page_text(text: str) -> str:
    """`text` with control and direction characters escaped, cut to at most _LONGEST_TEXT characters."""
    return printable(text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…")


def _bars(s_C: Array, firsts: Array) -> list[float | None]:
    """Mean of s over the scored chunks from each of `firsts` to the next; None for a bar without scored chunks.

    Truncated, not rounded, to 4 decimals: a value below 0.5 must not become 0.5.
    """
    scored = ~np.isnan(s_C)
    sums, counts = (np.add.reduceat(v, firsts) for v in (np.where(scored, s_C, 0.0), scored.astype(np.int64)))
    means = np.divide(sums, counts, out=np.full(len(firsts), -1.0), where=counts > 0)
    return [None if s < 0 else s for s in (np.floor(means * 1e4 + 1e-7) / 1e4).tolist()]


def _shares(summary: ResultSummary, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts of the bar below the headline: position and width in percent of all records, and records shown."""
    total = max(summary.counts.records, 1)
    parts, x = [], 0.0
    for kind, words, noun in zip(CALLS, _WORDS, _NOUNS, strict=True):
        count = summary.counts.calls[kind]
        width = 100 * count / total
        parts.append(
            {
                "kind": kind,
                "words": words,
                "noun": noun,
                "shown": sum(row["call"] == kind for row in rows),
                "count": count,
                "bases": summary.counts.bases[kind],
                "percent": f"{width:.1f}\u00a0%",
                "x": round(x, 3),
                "width": round(width, 3),
            }
        )
        x += width
    return parts


def _pair(row: PairRow) -> tuple[str, ...]:
    """The cells of a pair: its id, its call, and call and score of both mates."""
    mates = [(call, "" if score is None else shown_score(score)) for call, score in (row.mate_1, row.mate_2)]
    return (page_text(row.id), row.call, *mates[0], *mates[1])


def _split(histogram: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split a histogram of s in two of the same length: bins from 0.5 on (virus), bins below 0.5 (others)."""
    half = BINS // 2
    return (0,) * half + histogram[half:], histogram[:half] + (0,) * half


def _chart(
    noun: str,
    histograms: tuple[tuple[int, ...], tuple[int, ...]],
    cut: float | None,
    cut_words: str,
    axis: str,
) -> dict[str, Any]:
    """Geometry of a stacked histogram (virus above others) in a box of 400 x 190; no line if `cut` is None."""
    peak = max(map(sum, zip(*histograms, strict=True)))
    bars = []
    for i, (virus, others) in enumerate(zip(*histograms, strict=True)):
        y = 150.0
        for kind, number in (("others", others), ("virus", virus)):
            if number:
                height = max(130 * number / peak, 1.0)
                y -= height
                words = f"{i / BINS:.2f} to {(i + 1) / BINS:.2f}: {number:,} {noun.lower()}, {kind}"
                box = {"x": 41 + 17.5 * i, "y": round(y, 2), "height": round(height, 2)}
                bars.append(box | {"kind": kind, "words": words})
    return {
        "title": f"{noun} by score",
        "total": sum(map(sum, histograms)),
        "bins": BINS,
        "peak": peak,
        "bars": bars,
        "cut_x": None if cut is None else 40 + 350 * cut,
        "cut_words": f"{cut_words} {cut}",
        "axis": axis,
    }


def _facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, v if isinstance(v, str) else json.dumps(v)) for name, v in sorted(values.items())]
