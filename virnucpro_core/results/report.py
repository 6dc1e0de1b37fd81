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
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from virnucpro_core.errors import printable
from virnucpro_core.files.columns import Array
from virnucpro_core.files.publish import publish_bytes
from virnucpro_core.results.calibration import PRESETS
from virnucpro_core.results.page import page_environment, page_policy, template_text
from virnucpro_core.results.record_calls import CALLS, VIRUS, RecordCalls, shown_score
from virnucpro_core.results.regions import CHANGE, MOST_SURE, Region
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


class Selection:
    """Receives the blocks of calls one by one and keeps the records that the page shows (rules: see the module)."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._rows: list[list[Ranked]] = [[] for _ in CALLS]
        self._tracks: list[Ranked] = []
        self.track_candidates = 0

    def add(self, block: RecordCalls, regions: Mapping[int, Sequence[Region]]) -> None:
        """Add the records of one block, and its regions (`find_regions`), to the selection."""
        record = block.first + np.arange(len(block.call))
        keys = np.stack([-block.length, -np.nan_to_num(block.score), record], axis=1)
        for call, limit in enumerate(REPORT_ROWS):
            chosen = np.flatnonzero(block.call == call)
            self._rows[call] = _best(self._rows[call], keys[chosen], limit, partial(self._row, block, chosen))

        ends = np.cumsum(block.chunks)
        viral = np.concatenate([[0], np.cumsum(block.chunk_score >= 0.5)])
        viral = viral[ends] - viral[ends - block.chunks]
        candidates = np.flatnonzero((block.chunks >= TRACK_CHUNKS) & (block.chunks_scored > 0))
        self.track_candidates += len(candidates)
        proviral = np.zeros(len(record), dtype=np.int64)
        marked = [k for k, found in regions.items() if any(r.kind == "provirus_candidate" for r in found)]
        proviral[np.array(marked, dtype=np.int64) - block.first] = 1
        keys = np.stack([-proviral, -viral, -block.length, record], axis=1)[candidates]
        make = partial(self._track, block, regions, candidates)
        self._tracks = _best(self._tracks, keys, TRACKS, make)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table's records, virus before others before no call, each with the keys CALIBRATED_FIELDS."""
        return [row for ranked in self._rows for _, row in ranked]

    @property
    def tracks(self) -> list[dict[str, Any]]:
        """The tracks, best first: the keys of a row, and step, start, end, s (per bar), virus, scored,
        regions (start, end, kind, score of each)."""
        return [track for _, track in self._tracks]

    def top(self) -> tuple[TopRecord, ...]:
        """The first records of the table that are called virus, at most TOP_RECORDS."""
        names = TopRecord.__dataclass_fields__
        best = self._rows[VIRUS][:TOP_RECORDS]
        return tuple(TopRecord(**{name: row[name] for name in names}) for _, row in best)

    def _row(self, block: RecordCalls, chosen: Array, number: int) -> dict[str, Any]:
        k = int(chosen[number])
        return {
            "number": block.first + k + 1,
            "id": page_text(block.ids[k]),
            "description": page_text(self._chunks.descriptions[block.first + k].decode(errors="replace")),
            "length": int(block.length[k]),
            "call": CALLS[block.call[k]],
            "score": _number(block.score, k),
            "chunks": int(block.chunks[k]),
            "chunks_scored": int(block.chunks_scored[k]),
            "frames": int(block.frames[k]),
            "reason": block.reasons[k] or _scored_by(block, k),
            "probability": _number(block.probability, k),
            "fdr": _number(block.fdr, k),
        }

    def _track(
        self, block: RecordCalls, regions: Mapping[int, Sequence[Region]], chosen: Array, number: int
    ) -> dict[str, Any]:
        k = int(chosen[number])
        lo = int(block.chunks[:k].sum())
        n = int(block.chunks[k])
        s = block.chunk_score[lo : lo + n]
        windows = self._chunks.windows(block.chunk_first + lo, block.chunk_first + lo + n)
        step = -(-n // TRACK_BARS)
        firsts = np.arange(0, n, step)
        ends = (windows.start + windows.length)[np.minimum(firsts + step, n) - 1]
        return self._row(block, chosen, number) | {
            "step": step,
            "start": windows.start[firsts].tolist(),
            "end": ends.tolist(),
            "s": _bars(s, firsts),
            "virus": int((s >= 0.5).sum()),
            "scored": int(block.chunks_scored[k]),
            "regions": [[r.start, r.end, r.kind, r.score] for r in regions.get(block.first + k, ())],
        }


def _number(values: Array | None, k: int) -> float | None:
    return None if values is None or np.isnan(values[k]) else float(values[k])


def _scored_by(block: RecordCalls, k: int) -> str:
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


def script_json(value: Any) -> Markup:
    """JSON that may stand inside a script element: ASCII only, without <, > and & that could end it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704 - escaped above


def page_text(text: str) -> str:
    """`text` with control and direction characters escaped, cut to at most _LONGEST_TEXT characters."""
    return printable(text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…")


def _best(kept: list[Ranked], keys: Array, limit: int, make: Callable[[int], dict[str, Any]]) -> list[Ranked]:
    """The `limit` entries with the smallest keys, among those kept and the candidates with `keys` (n, k)."""
    new: list[Ranked] = []
    for k in np.lexsort(keys.T[::-1])[:limit].tolist():
        key = tuple(keys[k].tolist())
        if len(kept) == limit and key > kept[-1][0]:
            break
        new.append((key, make(k)))
    return list(heapq.merge(kept, new, key=lambda entry: entry[0]))[:limit]


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
