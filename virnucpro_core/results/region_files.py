"""Write `chunks.tsv`, `scores.bedgraph`, `regions.bed`, `regions.gff3` and `regions.fasta`. Columns: docs/outputs.md.

Coordinates of `chunks.tsv`, BED and bedGraph count from 0 and the end is not included: the first 500 bases are 0, 500.
Those of GFF3 and of the names in `regions.fasta` count from 1 and the end is included: 1, 500.

An id holds no ASCII white space and no control character, because the reader refuses them or ends the id there. What
else would be misread is written as `%` and two hexadecimal digits per byte (UTF-8):
- GFF3: every character outside `a-zA-Z0-9.:^*$@!+_?-|`, as the format demands, so also `%` itself.
- BED and bedGraph: `%`, and the first character of an id that begins with `#`, `track` or `browser`, because programs
  take such a line for a comment or a header.
- `chunks.tsv` and `regions.fasta`: nothing; ids stand as they were read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.files.columns import Array
from virnucpro_core.results.record_calls import FASTA_WIDTH, RecordCalls, chunk_scores, score_cells
from virnucpro_core.results.regions import KINDS, Regions, own_bases
from virnucpro_core.results.rows import Cell, Cells, Column, Texts, decimals, fasta, joined, numbers, words
from virnucpro_core.sequences.chunks import Chunks, Windows

CHUNKS_HEADER = b"record_id\tchunk\tstart\tend\tframes\tscore1\tscore2\tscore\tcall\n"
# With open frames: `full` or `open`, by which the chunk was scored; empty without a score.
SCORED_BY = b"\tscored_by"
GFF3_HEADER = b"##gff-version 3\n"
# Terms of the Sequence Ontology: SO:0001041 and SO:0000113.
_TYPES = {
    "whole_record": "viral_sequence",
    "viral_part": "viral_sequence",
    "provirus_candidate": "proviral_region",
}
# No id contains it, because the reader refuses control characters.
MARK = b"\x01"
_GFF3_PLAIN = ".:^*$@!+_?-|"
# Letters of ids that stand as they are, and (with the line end before it) how no such id begins.
_BED_LETTERS = bytes(letter for letter in range(33, 127) if letter != ord("%"))
_BED_STARTS = (b"\n#", b"\ntrack", b"\nbrowser")
_GFF3_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" + _GFF3_PLAIN.encode()
_BED_HEADER = re.compile(r"#|track|browser", re.IGNORECASE)


def gff3_name(name: str) -> str:
    """An id as GFF3 writes it in its first column."""
    # `quote` leaves ~ alone, which GFF3 does not list.
    return quote(name, safe=_GFF3_PLAIN).replace("~", "%7E")


def bed_name(name: str) -> str:
    """An id as it is written in the first column of BED and bedGraph."""
    text = name.replace("%", "%25")
    return f"%{ord(text[0]):02X}{text[1:]}" if _BED_HEADER.match(text) else text


def chunk_rows(
    chunk_ids: Sequence[Column],
    windows: Windows,
    frames_C: Array,
    maxima_C2: NDArray[np.float32],
    cells: Sequence[Cells],
    open_C: Array | None = None,
) -> bytes:
    """Rows of `chunks.tsv`, one for each of `windows`.

    chunk_ids: the columns (`rows.joined`) of the records' ids. frames_C: number of stop-free frames; maxima_C2: highest
    score1 and score2, and `cells` their texts. Chunks without a frame have NaN and get empty scores and no call.
    open_C: number of open frames, None for a sample without such: then there is no column `scored_by`.
    """
    score_C = chunk_scores(maxima_C2)
    call_C = np.where(np.isnan(score_C), 2, np.where(score_C >= 0.5, 0, 1))
    columns: list[Column] = list(chunk_ids)
    for values in (windows.number + 1, windows.start, windows.start + windows.length, frames_C):
        columns += [b"\t", numbers(values)]
    for scores in (*cells, decimals(score_C)):
        columns += [b"\t", scores]
    columns += [b"\t", words(call_C, ("virus", "others", ""))]
    if open_C is not None:
        kind_C = np.where(open_C > 0, 1, np.where(frames_C > 0, 2, 0))
        columns += [b"\t", words(kind_C, ("", "open", "full"))]
    return joined(len(score_C), [*columns, b"\n"])


def score_rows(chunks: Chunks, block: RecordCalls, score_C: Cells) -> bytes:
    """The lines of `scores.bedgraph` of a block: one per chunk that has a score, of the bases that are its.

    score_C: `decimals` of the block's chunk scores.
    """
    scored = np.flatnonzero(~np.isnan(block.chunk_score))
    windows = chunks.windows(block.chunk_first, block.chunk_first + len(block.chunk_score))
    start, end = own_bases(windows)
    names = Texts(_bed_names(block.ids), (windows.record - block.first)[scored])
    columns: list[Column] = [names, b"\t", numbers(start[scored]), b"\t", numbers(end[scored]), b"\t"]
    return joined(len(scored), [*columns, score_C[scored], b"\n"])


@dataclass(frozen=True, slots=True)
class RegionTexts:
    """What a block of records adds to the three files. A MARK stands where the number of a region belongs."""

    bed: bytes
    gff3: bytes
    fasta: bytes


def region_texts(chunks: Chunks, block: RecordCalls, regions: Regions, score_C: Cells) -> RegionTexts:
    """The regions of one block (`find_regions`). score_C: `decimals` of the block's chunk scores."""
    n = len(regions)
    records, rows = np.unique(regions.record, return_inverse=True)
    own = [block.ids[k] for k in (records - block.first).tolist()]
    kind = words(regions.kind, KINDS)
    score = score_cells(block, score_C, regions.record - block.first, regions.score)
    ident = (b"region_", MARK)
    # Cut, not rounded: a score below a cut-off must not read as one that reaches it.
    level = numbers((regions.score * 1000).astype(np.int64))
    start, end, first = numbers(regions.start), numbers(regions.end), numbers(regions.start + 1)
    name = Texts(_bed_names(own), rows)
    bed = joined(n, [name, b"\t", start, b"\t", end, b"\t", *ident, b":", kind, b"\t", level, b"\t.\n"])
    seqid = Texts(_gff3_names(own), rows)
    counts = [numbers(c) for c in (regions.chunks, regions.chunks_scored, regions.chunks_virus)]
    is_new = np.diff(regions.record, prepend=-1) > 0
    length = numbers(block.length[regions.record - block.first])
    parts: list[Cell] = [b"##sequence-region ", seqid, b" 1 ", length, b"\n"]
    head: list[Column] = [(is_new, part) for part in parts]
    types = words(regions.kind, [_TYPES[kind] for kind in KINDS])
    place: list[Column] = [seqid, b"\tvirnucpro\t", types, b"\t", first, b"\t", end]
    about: list[Column] = [b"\t", score, b"\t.\t.\tID=", *ident, b";kind=", kind, b";chunks=", counts[0]]
    about += [b";chunks_scored=", counts[1], b";chunks_virus=", counts[2], b"\n"]
    gff3 = joined(n, [*head, *place, *about])
    own_id = Texts(own, rows)
    heads = joined(
        n, [own_id, b":", first, b"-", end, b" ", *ident, b" kind=", kind, b" score=", score, b"\n"]
    )
    places = zip(rows.tolist(), regions.start.tolist(), regions.end.tolist(), strict=True)
    sequences = chunks.sequences.take(records)
    letters = [sequences[k][a:b] for k, a, b in places]
    return RegionTexts(bed, gff3, fasta(heads.split(b"\n")[:n], letters, FASTA_WIDTH))


def numbered(text: bytes, first: int) -> bytes:
    """The text with the numbers `first`, `first` + 1, ... in the places of its marks."""
    parts = text.split(MARK)
    whole: list[bytes] = [b""] * (2 * len(parts) - 1)
    whole[::2] = parts
    whole[1::2] = [b"%d" % number for number in range(first, first + len(parts) - 1)]
    return b"".join(whole)


def _bed_names(ids: Sequence[bytes]) -> Sequence[bytes]:
    text = b"\n".join([b"", *ids])
    if not text.translate(
        None, _BED_LETTERS + b"\n"
    ):  # most samples have plain ids, and this is quickly seen
        lower = text.lower()
        if not any(start in lower for start in _BED_STARTS):
            return ids
    return [bed_name(name.decode()).encode() for name in ids]


def _gff3_names(ids: Sequence[bytes]) -> Sequence[bytes]:
    if not b"".join(ids).translate(None, _GFF3_LETTERS):
        return ids
    return [gff3_name(name.decode()).encode() for name in ids]
