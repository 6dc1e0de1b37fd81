"""Estimate what a sample will need before the work begins: frames, tokens, disk, GPU memory and time.

The beginning of each file is read, cut and translated as the sample would be, and the counts are scaled to the size of
the file. BAM, CRAM and GenBank files are read as a whole, because their size says little about their bases.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from virnucpro_core.devices.cuda import DTYPES
from virnucpro_core.encoders.encoder import encoder_input
from virnucpro_core.errors import InputError
from virnucpro_core.files.disk import REPORT_BYTES, RESULT_BYTES_A_FRAME, reading_bytes, sharded_bytes
from virnucpro_core.models.profiles import ResolvedProfile
from virnucpro_core.pipeline.pace import RESULTS, SCORES, SEQUENCES, Pace
from virnucpro_core.samples.products import DNABERT, EMBEDDINGS, ESM, PRODUCTS, SHARDED
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.sequences.archives import open_text
from virnucpro_core.sequences.chunks import write_records
from virnucpro_core.sequences.fasta import read_again
from virnucpro_core.sequences.formats import format_of
from virnucpro_core.sequences.frames import Frames, shards_of, write_frames
from virnucpro_core.sequences.names import in_order, is_packed
from virnucpro_core.sequences.record import Record

# Bases of a sample that are read to estimate it: a few seconds of work.
BASES = 4_000_000
# Bytes of a compressed file from which its ratio of compression is measured.
RATIO_BYTES = 2 << 20
TOKENIZED_FRAMES = 2_000
SPECIAL_TOKENS = 2  # at the start and the end of each sequence of ESM-2


@dataclass(slots=True)
class Counts:
    """What a sample contains, or about what: `exact` says whether all of it was read.

    tokens: of the unique frames, by product.
    """

    exact: bool = True
    records: float = 0
    bases: float = 0
    chunks: float = 0
    frames: float = 0
    unique_frames: float = 0
    tokens: dict[str, float] = field(default_factory=lambda: dict.fromkeys(EMBEDDINGS, 0.0))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sample will need. disk_bytes: of its folder. seconds: by step; None for a step without experience."""

    counts: Counts
    disk_bytes: int
    seconds: Mapping[str, float | None]

    @property
    def total_seconds(self) -> float | None:
        """Seconds of all steps; None if one of them is not known."""
        known = [seconds for seconds in self.seconds.values() if seconds is not None]
        return sum(known) if len(known) == len(self.seconds) else None


def plan_sample(
    files: Sequence[Path],
    settings: SampleSettings,
    profile: ResolvedProfile,
    *,
    pace: Pace,
    kind: str,
    lanes: int,
) -> Plan:
    """Estimate a sample with these files and settings, computed in `lanes` lanes.

    pace, kind: the experience of this machine (pace.py). Raises InputError for a file that would be refused at its
    beginning, WeightsError for a damaged tokenizer.
    """
    counts = count(files, settings, profile)
    unique = round(counts.unique_frames)
    lane = -(-unique // lanes)
    seconds = {SEQUENCES: pace.of(SEQUENCES, kind, unique)}
    seconds |= {product: pace.of(product, kind, lane) for product in EMBEDDINGS}
    seconds |= {SCORES: pace.of(SCORES, kind, lane), RESULTS: pace.of(RESULTS, kind, unique)}
    return Plan(counts, disk_bytes(files, counts, settings, profile), seconds)


def count(files: Sequence[Path], settings: SampleSettings, profile: ResolvedProfile) -> Counts:
    """Count the sample's records, bases, chunks, frames and tokens, scaled up from the beginning of each file."""
    total = Counts()
    paths = in_order(files)
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            head = _Head(path, settings, BASES // len(paths))
            chunks = write_records(head.records(), Path(folder) / "chunks", chunk_size=settings.chunk_size)
            frames = write_frames(chunks, Path(folder) / "frames", min_open=settings.open_length)
            scale = head.scale()
            total.exact &= head.whole
            total.records += scale * head.read
            total.bases += scale * head.bases
            total.chunks += scale * chunks.n_chunks
            total.frames += scale * frames.n_frames
            total.unique_frames += scale * frames.n_unique
            for product, tokens in _tokens(frames, profile).items():
                total.tokens[product] += scale * tokens
    return total


def disk_bytes(
    files: Sequence[Path], counts: Counts, settings: SampleSettings, profile: ResolvedProfile
) -> int:
    """Bytes of the sample's folder when it is complete and nothing has been cleaned."""
    packed = sum(path.stat().st_size for path in files if is_packed(path))
    letters = sum(path.stat().st_size for path in files) - packed
    unique = round(counts.unique_frames)
    shards = shards_of(unique, settings.shard_rows)
    width = {DNABERT: profile.dnabert_dim, ESM: profile.esm2_dim}
    products = sum(sharded_bytes(unique, shards, width.get(p, PRODUCTS[p].columns)) for p in SHARDED)
    results = round(RESULT_BYTES_A_FRAME * counts.frames) + REPORT_BYTES
    return reading_bytes(letters, packed=packed) + products + results


class _Head:
    """The first records of a file, until they have `bases` bases."""

    def __init__(self, path: Path, settings: SampleSettings, bases: int) -> None:
        self.path, self.options, self.most = path, settings.reading, bases
        self.whole = True
        self.read = self.bases = self._bytes = 0
        self._format = format_of(path)

    def records(self) -> Iterator[Record]:
        for record in read_again([self.path], options=self.options):
            yield record
            self.read += 1
            self.bases += len(record.sequence)
            self._bytes += self._written(record)
            if self.bases >= self.most and self._format in ("fasta", "fastq"):
                self.whole = False
                return

    def scale(self) -> float:
        """How many times what was read the file holds; 1 if all of it was read."""
        if self.whole:
            return 1.0
        size = self.path.stat().st_size
        text = size * _ratio(self.path, size) if is_packed(self.path) else size
        return max(1.0, text / self._bytes)

    def _written(self, record: Record) -> int:
        """Bytes of the record in its file, with lines of any length."""
        letters = len(record.sequence) * (2 if self._format == "fastq" else 1)
        header = len(record.name or record.id) + len(record.description) + bool(record.description)
        return letters + header + (6 if self._format == "fastq" else 3)


def _ratio(path: Path, size: int) -> float:
    """Bytes of text for each byte of a compressed file, measured at its beginning."""
    with tempfile.NamedTemporaryFile() as head, path.open("rb") as stream:
        head.write(stream.read(RATIO_BYTES))
        head.flush()
        text = 0
        with suppress(InputError), open_text(Path(head.name)) as unpacked:  # it ends in the middle
            while block := unpacked.read1():
                text += len(block)
        return max(text, 1) / min(size, RATIO_BYTES)


def _tokens(frames: Frames, profile: ResolvedProfile) -> dict[str, float]:
    """Tokens of the unique frames by product. Those of DNABERT-S from the first TOKENIZED_FRAMES of them."""
    if profile.imported or not frames.n_unique:
        return {}
    first = np.arange(min(frames.n_unique, TOKENIZED_FRAMES))
    taken = encoder_input("dnabert-s", profile.dnabert, DTYPES["float32"])
    _, lengths_B = taken.tokenizer.encode(frames.nucleotides.take(first))
    residues = int(np.diff(frames.proteins.offsets).sum())
    return {
        DNABERT: float(lengths_B.sum()) * frames.n_unique / len(first),
        ESM: residues + SPECIAL_TOKENS * frames.n_unique,
    }
