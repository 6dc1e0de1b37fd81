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

import math
import re
from collections.abc import Mapping, Sequence
from typing import BinaryIO
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.files.columns import Array
from virnucpro_core.results.record_calls import FASTA_WIDTH, RecordCalls, chunk_scores
from virnucpro_core.results.regions import Region, own_bases
from virnucpro_core.sequences.chunks import Chunks

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
_GFF3_PLAIN = ".:^*$@!+_?-|"
_BED_HEADER = re.compile(r"#|track|browser", re.IGNORECASE)


def gff3_name(name: str) -> str:
    """An id as GFF3 writes it in its first column."""
    # `quote` leaves ~ alone, which GFF3 does not list.
    return quote(name, safe=_GFF3_PLAIN).replace("~", "%7E")


def bed_name(name: str) -> str:
    """An id as it is written in the first column of BED and bedGraph."""
    text = name.replace("%", "%25")
    return f"%{ord(text[0]):02X}{text[1:]}" if _BED_HEADER.match(text) else text


def write_chunk_rows(
    stream: BinaryIO,
    chunks: Chunks,
    lo: int,
    frames_C: Array,
    maxima_C2: NDArray[np.float32],
    open_C: Array | None = None,
) -> None:
    """Append the rows of `chunks.tsv` for the chunks from `lo` on.

    frames_C: number of stop-free frames; maxima_C2: highest score1 and score2. Chunks without a frame have NaN and
    get empty scores and no call. open_C: number of open frames, None for a sample without such: then there is no column
    `scored_by`.
    """
    score_C = chunk_scores(maxima_C2)
    ends = [""] * len(score_C)
    if open_C is not None:
        kind_C = np.where(open_C > 0, "open", np.where(frames_C > 0, "full", ""))
        ends = [f"\t{kind}" for kind in kind_C.tolist()]
    windows = chunks.windows(lo, lo + len(score_C))
    record, inverse = np.unique(windows.record, return_inverse=True)
    ids = [name.decode() for name in chunks.ids.take(record)]
    places = np.stack(
        [inverse, windows.number + 1, windows.start, windows.start + windows.length, frames_C], axis=1
    )
    text_C2, text_C = maxima_C2.astype("U"), score_C.astype("U")
    rows = zip(places.tolist(), text_C2.tolist(), text_C.tolist(), score_C.tolist(), ends, strict=True)
    stream.write(
        "".join(
            f"{ids[i]}\t{number}\t{start}\t{end}\t{frames}\t"
            + ("\t\t\t" if math.isnan(s) else f"{a}\t{b}\t{text}\t{'virus' if s >= 0.5 else 'others'}")
            + f"{last}\n"
            for (i, number, start, end, frames), (a, b), text, s, last in rows
        ).encode()
    )


def write_score_rows(stream: BinaryIO, chunks: Chunks, block: RecordCalls) -> None:
    """Append the lines of `scores.bedgraph` for a block: one per chunk that has a score, of the bases that are its."""
    scored = np.flatnonzero(~np.isnan(block.chunk_score))
    windows = chunks.windows(block.chunk_first, block.chunk_first + len(block.chunk_score))
    start, end = own_bases(windows)
    names = [bed_name(name) for name in block.ids]
    record = (windows.record - block.first)[scored].tolist()
    rows = zip(
        record, start[scored].tolist(), end[scored].tolist(), block.chunk_score[scored].tolist(), strict=True
    )
    stream.write("".join(f"{names[k]}\t{a}\t{b}\t{s!r}\n" for k, a, b, s in rows).encode())


class RegionFiles:
    """Appends regions to the three files, numbered through the sample: region_1, region_2, ..."""

    def __init__(self, chunks: Chunks, bed: BinaryIO, gff3: BinaryIO, fasta: BinaryIO) -> None:
        self._chunks, self._bed, self._gff3, self._fasta = chunks, bed, gff3, fasta
        self._number = 0
        gff3.write(GFF3_HEADER)

    def add(self, block: RecordCalls, regions: Mapping[int, Sequence[Region]]) -> None:
        """Append the regions of one block (`find_regions`)."""
        bed: list[str] = []
        gff3: list[str] = []
        for record, found in regions.items():
            k = record - block.first
            name, sequence = block.ids[k], self._chunks.sequence(record)
            chrom, seqid = bed_name(name), gff3_name(name)
            gff3.append(f"##sequence-region {seqid} 1 {len(sequence)}\n")
            for region in found:
                self._number += 1
                ident = f"region_{self._number}"
                bed.append(_bed_line(region, chrom, ident))
                gff3.append(_gff3_line(region, seqid, ident))
                self._write_letters(region, name, ident, sequence[region.start : region.end])
        self._bed.write("".join(bed).encode())
        self._gff3.write("".join(gff3).encode())

    def _write_letters(self, region: Region, name: str, ident: str, letters: bytes) -> None:
        lines = (letters[i : i + FASTA_WIDTH] for i in range(0, len(letters), FASTA_WIDTH))
        header = f"{name}:{region.start + 1}-{region.end} {ident} kind={region.kind} score={region.score!r}"
        self._fasta.write(b">%b\n%b\n" % (header.encode(), b"\n".join(lines)))


def _bed_line(region: Region, chrom: str, ident: str) -> str:
    # Cut, not rounded: a score below a cut-off must not read as one that reaches it.
    level = int(region.score * 1000)
    return f"{chrom}\t{region.start}\t{region.end}\t{ident}:{region.kind}\t{level}\t.\n"


def _gff3_line(region: Region, seqid: str, ident: str) -> str:
    return (
        f"{seqid}\tvirnucpro\t{_TYPES[region.kind]}\t{region.start + 1}\t{region.end}\t{region.score!r}\t.\t.\t"
        f"ID={ident};kind={region.kind};chunks={region.chunks};chunks_scored={region.chunks_scored};"
        f"chunks_virus={region.chunks_virus}\n"
    )
