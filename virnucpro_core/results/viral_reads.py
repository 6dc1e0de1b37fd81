"""The viral reads of a sample as FASTQ with their qualities, and a table of its pairs. For FASTQ and BAM input only.

    viral_R1.fastq.gz, viral_R2.fastq.gz   the reads of all pairs that count as virus, pair by pair
    viral_unpaired.fastq.gz                viral reads that have no mate in the sample
    pairs.tsv                              a row for each pair: its call, and call and score of both mates

A pair counts as virus if any of its mates is called virus (`--pairs any`), or only if both are (`--pairs both`). Both
reads of such a pair are written. A pair without any call has none; every other pair is others. Reads are written as in
the input: id, description, letters (U as T), qualities. The files are compressed without a time, so equal reads give
equal bytes.
"""

import contextlib
import tempfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.errors import InputError, StoreError
from virnucpro_core.files.columns import Strings
from virnucpro_core.files.publish import publish_together
from virnucpro_core.results.record_calls import CALLS, NO_CALL, OTHERS, VIRUS
from virnucpro_core.results.rows import Column, Texts, decimals, joined, words
from virnucpro_core.results.summary import PairRow, ReadCounts
from virnucpro_core.samples.inputs import InputFile, check_unchanged
from virnucpro_core.sequences.chunks import Chunks
from virnucpro_core.sequences.fasta import file_pairs, read_again
from virnucpro_core.sequences.identical import Identities
from virnucpro_core.sequences.pairs import pair_id
from virnucpro_core.sequences.record import Record

VIRAL_1, VIRAL_2, VIRAL_UNPAIRED = "viral_R1.fastq.gz", "viral_R2.fastq.gz", "viral_unpaired.fastq.gz"
PAIRS = "pairs.tsv"
READ_FILES = (VIRAL_1, VIRAL_2, VIRAL_UNPAIRED, PAIRS)
PAIRS_HEADER = b"pair_id\tcall\tcall_1\tscore_1\tcall_2\tscore_2\n"
SHOWN_PAIRS = 200
_LEVEL = 4
_GZIP = 16 + zlib.MAX_WBITS
_BLOCK = 65_536
_TEXTS = 1_024  # records that are compressed together


@dataclass(frozen=True, slots=True)
class ReadSource:
    """The files that the sample's reads came from, in their order, and the rule for pairs."""

    inputs: tuple[InputFile, ...]
    pairs: Literal["any", "both"] = "any"


class CalledReads:
    """Call and score of every record, in nine bytes each."""

    def __init__(self) -> None:
        self._calls, self._scores = [np.empty(0, np.uint8)], [np.empty(0)]

    def add(self, calls: NDArray[np.uint8], scores: NDArray[np.float64]) -> None:
        """Note call and score of the next records, (n,) each."""
        self._calls.append(calls)
        self._scores.append(scores)

    @cached_property
    def calls(self) -> NDArray[np.uint8]:
        """(n_records,) indices into CALLS."""
        return np.concatenate(self._calls)

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """(n_records,) scores, NaN without a call."""
        return np.concatenate(self._scores)


@dataclass(frozen=True, slots=True)
class Mates:
    """For each record of a sample, arrays (n,): its mate's index or -1; whether it is mate 1; whether it is a read."""

    partner: NDArray[np.int64]
    is_first: NDArray[np.bool_]
    is_read: NDArray[np.bool_]


def find_mates(chunks: Chunks, files: Sequence[Path]) -> Mates:
    """Which records are mates: by their place in files of mates, else by ids that end in `/1` and `/2`."""
    n = chunks.n_records
    partner, is_first = np.full(n, -1, np.int64), np.zeros(n, np.bool_)
    bounds = np.searchsorted(chunks.file[:], np.arange(len(files) + 1)).tolist()
    is_read = np.repeat(np.array(chunks.has_reads, np.bool_), np.diff(bounds))
    by_id = is_read.copy()
    for one, two in _adjoining(chunks, files, bounds):
        partner[one], partner[two], is_first[one] = two, one, True
        by_id[one] = by_id[two] = False
    one, two = _same_ids(chunks, by_id)
    partner[one], partner[two], is_first[one] = two, one, True
    return Mates(partner, is_first, is_read)


def _same_ids(chunks: Chunks, wanted: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Records of mate 1 and of mate 2, (n,) each, whose ids differ only in `/1` and `/2`."""
    records: tuple[list[int], list[int]] = ([], [])
    halves = Identities(), Identities()
    for lo in range(0, chunks.n_records, _BLOCK) if wanted.any() else ():
        for record, name in enumerate(chunks.ids[lo : lo + _BLOCK], lo):
            if wanted[record] and name.endswith((b"/1", b"/2")):
                half = name.endswith(b"/2")
                records[half].append(record)
                halves[half].add(name[:-2])
    ones, twos = (np.array(half, np.int64) for half in records)
    halves[0].append(halves[1])
    first = halves[0].first()[len(ones) :]
    met = first < len(ones)
    return ones[first[met]], twos[met]


def _adjoining(
    chunks: Chunks, files: Sequence[Path], bounds: Sequence[int]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Records of mate 1 and of mate 2, (n,) each, for files of mates and for interleaved files."""
    if chunks.reading.interleaved:
        for k in range(len(files)):
            yield np.arange(bounds[k], bounds[k + 1], 2), np.arange(bounds[k] + 1, bounds[k + 1], 2)
        return
    for one, two in file_pairs(files):
        yield np.arange(bounds[one], bounds[one + 1]), np.arange(bounds[two], bounds[two + 1])


def pair_calls(calls: NDArray[np.uint8], mates: Mates, rule: str) -> NDArray[np.uint8]:
    """(n_records,) call of the pair of each record; of the record itself if it has no mate."""
    paired = mates.partner >= 0
    own, other = calls, np.where(paired, calls[mates.partner], calls)
    virus = (own == VIRUS) & (other == VIRUS) if rule == "both" else (own == VIRUS) | (other == VIRUS)
    none = (own == NO_CALL) & (other == NO_CALL)
    found: NDArray[np.uint8] = np.where(virus, VIRUS, np.where(none, NO_CALL, OTHERS)).astype(np.uint8)
    return found


def write_viral_reads(
    chunks: Chunks, called: CalledReads, source: ReadSource, out: Path
) -> tuple[ReadCounts, tuple[str, ...], tuple[PairRow, ...]]:
    """Write the files of READ_FILES that the sample has, delete the others.

    Returns counts, the names of the files, and pairs for the report: at most SHOWN_PAIRS, those called virus first.

    The input files are read again. Raises StoreError if one is missing or changed: then the same command goes on when
    it is back.
    """
    files = [file.path for file in source.inputs]
    try:
        _check(source)
        mates = find_mates(chunks, files)
        calls = pair_calls(called.calls, mates, source.pairs)
        chosen = np.flatnonzero((calls == VIRUS) & mates.is_read)
        with tempfile.TemporaryFile(dir=out) as spill:
            offsets = _copy(chunks, files, chosen, spill)
            _check(source)
            texts = _Texts(spill, chosen, offsets)
            names = _write(chunks, (called, calls, mates), texts, out)
    except InputError as error:
        raise StoreError(
            f"the viral reads cannot be copied: {error.what}",
            where=error.where,
            remedy="put the input file back where it was, then run the same command again",
        ) from error
    paired = mates.partner >= 0
    alone, first = mates.is_read & ~paired, paired & mates.is_first
    counts = ReadCounts(
        rule=source.pairs,
        pairs=int(first.sum()),
        pairs_virus=int((calls[first] == VIRUS).sum()),
        pairs_no_call=int((calls[first] == NO_CALL).sum()),
        unpaired=int(alone.sum()),
        unpaired_virus=int((calls[alone] == VIRUS).sum()),
    )
    for name in READ_FILES:
        if name not in names:
            (out / name).unlink(missing_ok=True)
    return counts, names, _shown(chunks, called, calls, mates)


def _shown(
    chunks: Chunks, called: CalledReads, calls: NDArray[np.uint8], mates: Mates
) -> tuple[PairRow, ...]:
    """The first SHOWN_PAIRS pairs, those called virus before others before those without a call."""
    first = np.flatnonzero((mates.partner >= 0) & mates.is_first)
    by_call = [first[calls[first] == call][:SHOWN_PAIRS] for call in range(len(CALLS))]
    one = np.concatenate(by_call)[:SHOWN_PAIRS]
    names = _pair_ids(chunks, one, mates.partner[one])
    mated = [
        [
            (CALLS[called.calls[k]], None if called.calls[k] == NO_CALL else float(called.scores[k]))
            for k in half
        ]
        for half in (one.tolist(), mates.partner[one].tolist())
    ]
    return tuple(map(PairRow, names, [CALLS[call] for call in calls[one].tolist()], *mated))


def _check(source: ReadSource) -> None:
    for file in source.inputs:
        check_unchanged(file)


def _copy(
    chunks: Chunks, files: Sequence[Path], chosen: NDArray[np.int64], spill: BinaryIO
) -> NDArray[np.int64]:
    """Write the chosen records to `spill` as FASTQ. Returns where each begins, and the end, (n_chosen + 1,)."""
    offsets, place = np.zeros(len(chosen) + 1, np.int64), 0
    count = 0
    with contextlib.closing(_same_records(chunks, files)) as records:
        for ordinal, record in records:
            if place < len(chosen) and chosen[place] == ordinal:
                offsets[place + 1] = offsets[place] + spill.write(_fastq(record))
                place += 1
            count += 1
    if count != chunks.n_records:
        raise InputError(f"{count:,} records, {chunks.n_records:,} were read before", path=files[0])
    spill.flush()
    return offsets


def _same_records(chunks: Chunks, files: Sequence[Path]) -> Generator[tuple[int, Record]]:
    """The records of the files, numbered from 0. Raises InputError if they are not those of `chunks`."""
    ids: list[bytes] = []
    lengths: list[int] = []
    all_lengths = chunks.lengths
    for ordinal, record in enumerate(read_again(files, options=chunks.reading)):
        if not ordinal % _BLOCK:
            ids = chunks.ids[ordinal : ordinal + _BLOCK]
            lengths = all_lengths[ordinal : ordinal + _BLOCK].tolist()
        at = ordinal % _BLOCK
        if (
            at >= len(ids)
            or not ids[at].startswith(record.id.encode())
            or lengths[at] != len(record.sequence)
        ):
            raise InputError(
                "not the records that were read before", path=files[record.file], record=record.id
            )
        yield ordinal, record


def _fastq(record: Record) -> bytes:
    head = f"{record.name or record.id} {record.description}".rstrip().encode()
    return b"@%b\n%b\n+\n%b\n" % (head, record.sequence, record.qualities)


@dataclass(frozen=True, slots=True)
class _Texts:
    """The chosen records as FASTQ, by their number in the sample."""

    spill: BinaryIO
    chosen: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def of(self, records: NDArray[np.int64]) -> Iterator[bytes]:
        """The texts of some of the chosen records, in the given order; many together."""
        if not len(records):
            return
        flat = np.memmap(self.spill, np.uint8, "r", shape=(int(self.offsets[-1]),)).view(np.ndarray)
        texts, place = Strings(flat, self.offsets), np.searchsorted(self.chosen, records)
        for lo in range(0, len(place), _TEXTS):
            yield b"".join(texts.take(place[lo : lo + _TEXTS]))


def _write(
    chunks: Chunks,
    known: tuple[CalledReads, NDArray[np.uint8], Mates],
    texts: _Texts,
    out: Path,
) -> tuple[str, ...]:
    called, calls, mates = known
    paired, chosen = mates.partner >= 0, texts.chosen
    written: dict[str, NDArray[np.int64]] = {}
    if paired.any():
        first = chosen[(paired & mates.is_first)[chosen]]
        written |= {VIRAL_1: first, VIRAL_2: mates.partner[first]}
    if (mates.is_read & ~paired).any():
        written[VIRAL_UNPAIRED] = chosen[~paired[chosen]]
    names = (*written, PAIRS) if paired.any() else tuple(written)
    with publish_together(out, names) as files, ThreadPoolExecutor(len(READ_FILES)) as threads:
        packed = [threads.submit(_pack, files[name], texts.of(rows)) for name, rows in written.items()]
        if paired.any():
            with files[PAIRS].open("wb") as stream:
                rows = np.flatnonzero(paired & mates.is_first)
                _write_pairs(stream, chunks, called, calls, (rows, mates.partner[rows]))
        for file in packed:
            file.result()
    return names


def _pair_ids(chunks: Chunks, one: NDArray[np.int64], two: NDArray[np.int64]) -> list[str]:
    """The ids of pairs. one, two: the rows of their mates."""
    ids = zip(chunks.ids.take(one), chunks.ids.take(two), strict=True)
    return [pair_id(first.decode(), second.decode()) for first, second in ids]


def _write_pairs(
    stream: BinaryIO,
    chunks: Chunks,
    called: CalledReads,
    calls: NDArray[np.uint8],
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    stream.write(PAIRS_HEADER)
    own, scores = called.calls, called.scores
    for lo in range(0, len(rows[0]), _BLOCK):
        one, two = (half[lo : lo + _BLOCK] for half in rows)
        names = Texts([name.encode() for name in _pair_ids(chunks, one, two)])
        columns: list[Column] = [names, b"\t", words(calls[one], CALLS)]
        for half in (one, two):
            columns += [b"\t", words(own[half], CALLS), b"\t", decimals(scores[half])]
        stream.write(joined(len(one), [*columns, b"\n"]))


def _pack(file: Path, texts: Iterator[bytes]) -> None:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    with file.open("wb") as stream:
        for text in texts:
            stream.write(packer.compress(text))
        stream.write(packer.flush())
