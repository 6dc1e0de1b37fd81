"""Checks of the products on disk: digests, ids and values, without the code that wrote them.

A process reads the bytes of a file at most once to compare its digest, unless the file changes (`files.digests`).
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from virnucpro_core.engine.shards import Entry, ids_digest
from virnucpro_core.files.digests import sha256_once
from virnucpro_core.pipeline.lane import Lane, in_threads
from virnucpro_core.pipeline.retention import was_released
from virnucpro_core.results.folder import (
    CHUNK_TABLE,
    CONTIGS,
    FRAME_CALLS,
    OPEN_CALLS,
    REGIONS_BED,
    RUN,
    SCORES,
)
from virnucpro_core.results.viral_reads import PAIRS
from virnucpro_core.samples.products import CHUNKS, PRODUCTS, SHARDED, TRANSLATIONS
from virnucpro_core.samples.sample import Sample
from virnucpro_core.sequences.chunks import Chunks
from virnucpro_core.sequences.frames import Frames

PROBABILITY_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Finding:
    """Outcome of one check: `what` says in words what was compared, `facts` are its figures."""

    name: str
    passed: bool
    what: str
    facts: dict[str, Any]


def audit_chunks(sample: Sample) -> list[Finding]:
    """Check the bytes against their digests, and that every record has all its chunks or a reason for having none."""
    chunks = Chunks.open(sample.chunks)
    chunks.store.verify()
    usable = chunks.reasons.lengths == 0
    expected = np.where(usable, -(-chunks.lengths // chunks.chunk_size), 0)
    wrong = int((expected != np.diff(chunks.chunk_offsets)).sum())
    inputs = {f.sha256 for f in sample.inputs}
    stored = {f["sha256"] for f in chunks.attrs["files"]}
    return [
        Finding(
            "digests_verify",
            inputs == stored,
            "columns equal their sha256; inputs are the registered files",
            {},
        ),
        Finding(
            "ids_conserved",
            wrong == 0,
            "every record has all its chunks or a reason",
            {
                "records": chunks.n_records,
                "chunks": chunks.n_chunks,
                "set_aside": int((~usable).sum()),
                "wrong": wrong,
            },
        ),
    ]


def audit_translations(sample: Sample) -> list[Finding]:
    """Check the bytes against their digests, that every frame refers to a chunk and a unique frame, and that every
    unique frame is in exactly one shard.
    """
    chunks, frames = Chunks.open(sample.chunks), Frames.open(sample.translations)
    frames.store.verify()
    shards = frames.n_shards(sample.settings.shard_rows)
    seen = np.zeros(frames.n_unique, dtype=np.int64)
    for shard in range(shards):
        np.add.at(seen, frames.shard(shard, shards), 1)
    named = np.zeros(frames.n_unique, dtype=bool)
    named[frames.frame_unique] = True
    lost = int((seen != 1).sum()) + int((~named).sum())
    stray = int((np.asarray(frames.frame_chunk) >= chunks.n_chunks).sum())
    return [
        Finding(
            "digests_verify",
            frames.attrs["chunks"] == chunks.digest,
            "columns equal their sha256; chunks match",
            {},
        ),
        Finding(
            "ids_conserved",
            lost == 0 and stray == 0,
            "every frame has a chunk, every unique frame is in exactly one shard",
            {"frames": frames.n_frames, "unique_frames": frames.n_unique, "lost": lost, "stray": stray},
        ),
    ]


def audit_lane(lane: Lane, product: str, *, values: bool = False) -> list[Finding]:
    """Check digests, ids and finite values; for merged features also that both encoders' rows have the same order.

    A shard is only written if its ids are the expected ones and all its values are finite. So its digest says as much
    as reading its rows again. Scores are few and are read anyway; `values` reads the rows of every product.
    """
    store, facts_of = lane.store(product), PRODUCTS[product]
    bad: dict[str, list[int]] = {name: [] for name in LANE_FINDINGS[product]}
    rows = 0

    def look(shard: int) -> tuple[int, str, Entry | None]:
        return shard, store.state(shard, lane.ids(shard)), store.entry(shard)

    for shard, state, entry in in_threads(look, lane.shards):
        if state != "done" or entry is None:
            bad["digests_verify"].append(shard)
            continue
        if facts_of.virtual and not _same_rows(lane, facts_of.sources, shard, entry):
            bad["row_order_equal"].append(shard)
        if values or facts_of.classifier:
            _audit_rows(lane, product, shard, bad)
        rows += entry.rows
    expected_rows = lane.rows(lane.shards)
    words = {
        "digests_verify": "every shard's bytes have the sha256 of its manifest entry",
        "ids_conserved": "the rows are all unique frames of the lane, in order",
        "values_finite": "no NaN or infinity" + (", scores sum to 1" if facts_of.classifier else ""),
        "row_order_equal": "both encoders' rows have the order of the merged rows",
    }
    facts = {"shards": len(lane.shards), "rows": rows, "rows_expected": expected_rows}
    return [
        Finding(
            name,
            not shards and (name != "ids_conserved" or rows == expected_rows),
            words[name],
            facts | {"bad_shards": str(shards[:20])},
        )
        for name, shards in bad.items()
    ]


def _audit_rows(lane: Lane, product: str, shard: int, bad: dict[str, list[int]]) -> None:
    """Read the rows of a shard that has the right digest, and note it in `bad` if ids or values are wrong."""
    store = lane.store(product)
    with h5py.File(store.path(shard), "r") as file:
        digests_RD, values_RW = file["digest"][:], file[store.dataset][:]
    if ids_digest(digests_RD) != lane.ids(shard):
        bad["ids_conserved"].append(shard)
    if not _plausible(values_RW, probabilities=PRODUCTS[product].classifier):
        bad["values_finite"].append(shard)


def audit_results(sample: Sample) -> Finding:
    """Check the digests, and that contigs.tsv has one row per record, chunks.tsv one per chunk,
    prediction_results.txt one per frame, scores.bedgraph one per scored chunk and regions.bed one per region.

    The digests, the numbers of scored chunks and of regions and, if chunks and frames were released, the other expected
    numbers are those in `run.json`.
    """
    facts = json.loads((sample.results / RUN).read_bytes())
    heads = {CONTIGS: 1, CHUNK_TABLE: 1, FRAME_CALLS: 1, OPEN_CALLS: 1, SCORES: 0, REGIONS_BED: 0, PAIRS: 1}
    # Not every sample has pairs, and results of version 0.1.0 have no tables of chunks and regions.
    rows = {n: _lines(sample.results / n) - head for n, head in heads.items() if n in facts["files"]}
    pairs = facts["reads"]["pairs"] if PAIRS in rows else 0
    damaged = [n for n, f in facts["files"].items() if sha256_once(sample.results / n) != f["sha256"]]
    counts = facts["counts"]
    records, n_chunks, frames = counts["records"], counts["chunks"], counts["frames"]
    opened = facts.get("open_frames", {}).get("frames", 0)
    if not was_released(sample, "chunks"):
        chunks = Chunks.open(sample.chunks)
        records, n_chunks = chunks.n_records, chunks.n_chunks
        stored = Frames.open(sample.translations)
        frames, opened = stored.n_frames - stored.n_open, stored.n_open
    expected = {
        CONTIGS: records,
        CHUNK_TABLE: n_chunks,
        FRAME_CALLS: frames,
        OPEN_CALLS: opened,
        SCORES: counts["chunks_scored"],
        REGIONS_BED: counts.get("regions", 0),
        PAIRS: pairs,
    }
    return Finding(
        "ids_conserved",
        all(rows[name] == expected[name] for name in rows) and CONTIGS in rows and not damaged,
        "one row per record in contigs.tsv, per chunk in chunks.tsv, per frame in prediction_results.txt (open frames: "
        "open_frames.tsv), per scored "
        "chunk in scores.bedgraph, per region in regions.bed, per pair in pairs.tsv; digests of run.json",
        {
            "records": records,
            "contigs_rows": rows.get(CONTIGS, 0),
            "chunks": n_chunks,
            "chunk_rows": rows.get(CHUNK_TABLE, 0),
            "frames": frames,
            "prediction_rows": rows.get(FRAME_CALLS, 0),
            **({"open_frames": opened, "open_rows": rows[OPEN_CALLS]} if OPEN_CALLS in rows else {}),
            "regions": expected[REGIONS_BED],
            "region_rows": rows.get(REGIONS_BED, 0),
            **({"pairs": pairs, "pair_rows": rows[PAIRS]} if pairs else {}),
            "damaged": str(damaged),
        },
    )


def released_findings(names: Iterable[str], entries: int) -> list[Finding]:
    """Passing findings for a product that was released when the results were complete: there is nothing to check."""
    what = "released: the results are complete; the product's data were deleted, their digests are kept"
    return [Finding(name, passed=True, what=what, facts={"released": entries}) for name in names]


def _lines(path: Path) -> int:
    with path.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))


def _plausible(values_RW: np.ndarray[Any, Any], *, probabilities: bool) -> bool:
    finite = bool(np.isfinite(values_RW).all())
    if not probabilities:
        return finite
    return finite and bool(np.allclose(values_RW.sum(axis=1), 1.0, atol=PROBABILITY_TOLERANCE))


def _same_rows(lane: Lane, sources: Sequence[str], shard: int, merged: Entry) -> bool:
    """Whether the merged shard shows the present shards of its sources, and all have the same ids in the same order."""
    entries = [lane.store(source).entry(shard) for source in sources]
    return tuple(e.sha256 for e in entries if e) == merged.sources and {
        e.ids_sha256 for e in entries if e
    } == {merged.ids_sha256}


LANE_FINDINGS: dict[str, tuple[str, ...]] = {
    name: (
        "digests_verify",
        "ids_conserved",
        "values_finite",
        *(("row_order_equal",) if PRODUCTS[name].virtual else ()),
    )
    for name in SHARDED
}
SAMPLE_AUDITS: dict[str, Callable[[Sample], list[Finding]]] = {
    CHUNKS: audit_chunks,
    TRANSLATIONS: audit_translations,
}
