"""Imports feature files of the published tool into a sample, so that its embeddings need not be computed again.

Every vector is matched to its frame by the frame's id. The sequences that were embedded are read from the FASTA files
that the tool left beside its features, and compared with the sample's own frames. All frames must be there, and no
others. The vectors then become the sample's shards, with an identity of their own.

Shapes: U unique frames, R rows of a shard, D columns.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.errors import InputError, UsageError, printable
from virnucpro_core.files.digests import sha256_file
from virnucpro_core.files.disk import make_sure_of_room
from virnucpro_core.files.folders import folders_below
from virnucpro_core.models.feature_files import (
    SUFFIXES,
    WIDTHS,
    FeatureFile,
    FeatureKind,
    kind_of,
    read_features,
)
from virnucpro_core.models.profiles import ResolvedProfile
from virnucpro_core.pipeline.imported import Import, write_import
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.steps import chunk_sample, translate_sample
from virnucpro_core.samples.occupancy import exclusive_lock
from virnucpro_core.samples.products import EMBEDDINGS, PRODUCTS
from virnucpro_core.samples.sample import Sample
from virnucpro_core.sequences.chunks import Chunks
from virnucpro_core.sequences.fasta import read_entries
from virnucpro_core.sequences.frames import Frames
from virnucpro_core.sequences.names import looks_like_sequence_file

BY_SEQUENCE, BY_ID = "id and sequence", "id alone"
_BLOCK_FRAMES = 100_000
_EXTRA = "give only this sample's features, or check that the sample was made from the same sequences and chunk size"
_INCOMPLETE = "give the folders with all feature files of the sample"
_PARTLY_MERGED = (
    "only *_merged.pt files were read; leave them out, and the separate files beside them are read"
)

# Vectors of equal sequences differ only by the precision of the tool: in fp8 by less than a tenth of their length.
_SAME_VECTOR = 0.15

OnFile = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Found:
    """The files of an import: feature files, and FASTA files beside them. has_unread: separate files are left out."""

    features: tuple[tuple[Path, FeatureKind], ...]
    fasta: tuple[Path, ...]
    origin: str
    has_unread: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did."""

    record: Import
    vectors: int
    frames: int
    shards: int


def find_features(paths: Sequence[Path]) -> Found:
    """The feature files below the folders `paths`, and the FASTA files there.

    Merged files hold both encoders' vectors; if there are any, the separate files are not read. Raises UsageError if
    there are none, or those of one encoder only, or if one is no regular file; InputError if a folder cannot be read.
    """
    files = sorted({file for path in paths for file in (_all_below(path) if path.is_dir() else [path])})
    known = tuple((file, kind) for file in files if (kind := kind_of(file)) is not None)
    if (odd := next((file for file, _ in known if not file.is_file()), None)) is not None:
        raise UsageError("is no regular file", where=odd, remedy="take it out of the folder, or rename it")
    features = tuple(one for one in known if one[1] == "merged") or known
    kinds = {kind for _, kind in features}
    if kinds not in ({"merged"}, {"dnabert-s", "esm2"}):
        missing = [suffix for suffix, kind in SUFFIXES.items() if kind not in kinds and kind != "merged"]
        raise UsageError(
            f"no files *{' and *'.join(missing)} in it",
            where=", ".join(map(str, paths)),
            remedy="give the folders with the feature files: *_merged.pt, or both *_DNABERT_S.pt and *_ESM.pt",
        )
    fasta = tuple(f for f in files if f.is_file() and (looks_like_sequence_file(f) or f.suffix == ".faa"))
    origin = printable(", ".join(path.resolve().name for path in paths))
    return Found(features, fasta, origin, has_unread=len(features) < len(known))


def _all_below(folder: Path) -> Iterator[Path]:
    for here, folders, names in folders_below(folder):
        yield from (here / name for name in (*folders, *names))


def import_features(
    sample: Sample,
    profile_of: Callable[[Import], ResolvedProfile],
    found: Found,
    *,
    trust_ids: bool = False,
    force: bool = False,
    on_file: OnFile = lambda _: None,
) -> Imported:
    """Make the vectors of `found` the sample's embeddings.

    profile_of: finds the classifier's profile for the import. trust_ids: match by id alone, for features without the
    sequences that they are of. force: replace embeddings that the sample has. on_file: called before each feature file
    is read. Raises InputError or UsageError, before any embedding is changed, for vectors or sequences that are not of
    the sample's frames; WeightsError for a file that is not a feature file; StoreError for disk errors.
    """
    chunks = chunk_sample(sample)
    frames = translate_sample(sample)
    frame_of = _ids(frames, chunks)
    if not trust_ids:
        _compare_sequences(found.fasta, frames, frame_of)
    record = Import(
        origin=found.origin,
        files=tuple(
            {"name": printable(f.name), "kind": kind, "sha256": sha256_file(f)} for f, kind in found.features
        ),
        profile=sample.settings.profile,
        chunk_size=chunks.chunk_size,
        matched_by=BY_ID if trust_ids else BY_SEQUENCE,
        widths=(WIDTHS["dnabert-s"], WIDTHS["esm2"]),
    )
    lane = Lane(sample, profile_of(record), 0, 1)
    if not force:
        _refuse_to_replace(lane)
    make_sure_of_room(
        sample.folder, 2 * 4 * sum(record.widths) * frames.n_unique, "for the imported features"
    )
    with _collected(sample, frames, found, frame_of, on_file) as (vectors, read):
        busy = f"sample {sample.name!r} cannot take features, a process works on it"
        with exclusive_lock(sample.folder, busy):
            write_import(sample.folder, record)
            for shard in lane.shards:
                _write_shard(lane, shard, vectors, record)
    return Imported(record, read, frames.n_frames, lane.n_shards)


def _ids(frames: Frames, chunks: Chunks) -> dict[str, int]:
    """Frame id -> number of the frame."""
    found: dict[str, int] = {}
    for lo in range(0, frames.n_frames, _BLOCK_FRAMES):
        hi = min(lo + _BLOCK_FRAMES, frames.n_frames)
        found |= zip(frames.frame_ids(lo, hi, chunks), range(lo, hi), strict=True)
    if not found:
        raise UsageError("the sample has no frame, so it needs no features", where=frames.path.parent)
    return found


def _compare_sequences(fasta: Iterable[Path], frames: Frames, frame_of: dict[str, int]) -> None:
    """Raise InputError for a record that has a frame's id, but neither its nucleotides nor its protein.

    Raises UsageError if the sequences of a frame are not in the files. Records that are not frames are left out.
    """
    seen = {
        "nucleotides": np.zeros(frames.n_unique, np.bool_),
        "proteins": np.zeros(frames.n_unique, np.bool_),
    }
    for file in fasta:
        for name, letters in read_entries(file):
            if name not in frame_of:
                continue
            unique = int(frames.frame_unique[frame_of[name]])
            if letters == frames.nucleotides[unique]:
                seen["nucleotides"][unique] = True
            elif letters == frames.proteins[unique]:
                seen["proteins"][unique] = True
            else:
                raise InputError(
                    "its letters are not those of this frame of the sample",
                    path=file,
                    record=name,
                    remedy=_EXTRA,
                )
    for what, is_seen in seen.items():
        if not is_seen.all():
            name = _first_without(is_seen, frames, frame_of)
            raise UsageError(
                f"the {what} of {int((~is_seen).sum()):,} frames were not found beside the features (the first is"
                f" {name!r})",
                remedy="give also the folder with the tool's *_identified_nucleotide.fa and *_identified_protein.faa,"
                " or its *_nucleotide and *_protein folders; or --trust-ids to match by id alone",
            )


def _first_without(is_there_U: NDArray[np.bool_], frames: Frames, frame_of: dict[str, int]) -> str:
    """The id of the first frame whose unique frame is not there."""
    return next(name for name, frame in frame_of.items() if not is_there_U[frames.frame_unique[frame]])


def _refuse_to_replace(lane: Lane) -> None:
    for product in EMBEDDINGS:
        store = lane.store(product)
        for shard in range(lane.n_shards):
            entry = store.entry(shard)
            if entry is not None and entry.identity_sha256 != store.identity_sha256:
                raise UsageError(
                    f"sample {lane.sample.name!r} has {product} already, and they are not of this import",
                    where=store.folder,
                    remedy="--force replaces them",
                )


@contextlib.contextmanager
def _collected(
    sample: Sample, frames: Frames, found: Found, frame_of: dict[str, int], on_file: OnFile
) -> Iterator[tuple[dict[str, NDArray[np.float32]], int]]:
    """The vectors of both encoders, (U, D) each, in files without a name; and how many vectors were read.

    Raises UsageError for a vector that is of no frame, twice there with other numbers, or missing.
    """
    read = 0
    with contextlib.ExitStack() as files:
        vectors = {
            name: _Vectors(files.enter_context(tempfile.TemporaryFile(dir=sample.folder)), frames, width)
            for name, width in (("dnabert-s", WIDTHS["dnabert-s"]), ("esm2", WIDTHS["esm2"]))
        }
        for path, kind in found.features:
            on_file(path)
            features = read_features(path, kind)
            read += len(features.ids)
            unknown = next((name for name in features.ids if name not in frame_of), None)
            if unknown is not None:
                raise UsageError(
                    f"{unknown[:80]!r} is no frame of sample {sample.name!r}", where=path, remedy=_EXTRA
                )
            frame_N = np.fromiter((frame_of[name] for name in features.ids), np.int64, len(features.ids))
            for encoder, values_ND in features.by_encoder().items():
                vectors[encoder].add(frame_N, values_ND, features, encoder)
        for encoder, some in vectors.items():
            if not some.is_there.all():
                first = _first_without(some.is_there, frames, frame_of)
                raise UsageError(
                    f"{int((~some.is_there).sum()):,} of {frames.n_unique:,} frames have no {encoder} vector (the first"
                    f" is {first!r})",
                    where=found.origin,
                    remedy=_PARTLY_MERGED if found.has_unread else _INCOMPLETE,
                )
        yield {encoder: some.values for encoder, some in vectors.items()}, read


class _Vectors:
    """(U, D) float32 on disk, filled file by file: `is_there` (U,) says which rows are filled.

    For each of F frames it keeps a digest of its vector (2 numbers of 64 bits) and the file that it is from.
    """

    def __init__(self, stream: IO[bytes], frames: Frames, width: int) -> None:
        stream.truncate(frames.n_unique * width * 4)
        self.values: NDArray[np.float32] = np.memmap(stream, np.float32, "r+", shape=(frames.n_unique, width))
        self.is_there = np.zeros(frames.n_unique, np.bool_)
        self._unique_F = frames.frame_unique
        self._digest_F2 = np.zeros((frames.n_frames, 2), np.uint64)
        self._file_F = np.full(frames.n_frames, -1, np.int32)
        self._files: list[Path] = []

    def add(
        self, frame_N: NDArray[np.int64], values_ND: NDArray[np.float32], source: FeatureFile, encoder: str
    ) -> None:
        """Fill rows. Frames with equal sequences have one row; the first of their vectors is kept.

        Raises UsageError if a frame has two vectors whose numbers differ, or if vectors of frames with equal sequences
        differ by more than the arithmetic of any precision.
        """
        self._files.append(source.path)
        for name, frame, row in zip(source.ids, frame_N.tolist(), values_ND + np.float32(0), strict=True):
            digest = np.frombuffer(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), np.uint64)
            if self._file_F[frame] < 0:
                self._file_F[frame], self._digest_F2[frame] = len(self._files) - 1, digest
            elif (self._digest_F2[frame] != digest).any():
                other = self._files[self._file_F[frame]]
                raise UsageError(
                    f"{name[:80]!r} has another {encoder} vector "
                    + ("before in this file" if other == source.path else f"in {other}"),
                    where=source.path,
                    remedy="leave out the file that is not of this sample's run of the tool",
                )
        unique_N = self._unique_F[frame_N]
        _, first = np.unique(unique_N, return_index=True)
        new = np.sort(first[~self.is_there[unique_N[first]]])
        self.values[unique_N[new]] = values_ND[new]
        self.is_there[unique_N[new]] = True
        repeated = np.setdiff1d(np.arange(len(unique_N)), new)
        kept = self.values[unique_N[repeated]]
        apart = np.linalg.norm(values_ND[repeated] - kept, axis=1)
        if (wrong := repeated[apart > _SAME_VECTOR * np.linalg.norm(kept, axis=1)]).size:
            raise UsageError(
                f"{source.ids[wrong[0]][:80]!r} has the sequence of another frame, but not its {encoder} vector",
                where=source.path,
                remedy="leave out the file that is not of this sample's run of the tool",
            )


def _write_shard(lane: Lane, shard: int, vectors: dict[str, NDArray[np.float32]], record: Import) -> None:
    frame_R = lane.frames.shard(shard, lane.n_shards)
    maker = {"rank": 0, "device": "imported", "imported": record.digest, "origin": record.origin}
    for product in EMBEDDINGS:
        values_UD = vectors[str(PRODUCTS[product].encoder)]
        lane.store(product).write(
            shard, frame_R, lane.frames.digests[frame_R], values_UD[frame_R], maker=maker
        )
