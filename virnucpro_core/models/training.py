"""Train a classifier for a pair of encoders on labelled sequences. `virnucpro train` uses it.

The records' groups are divided into three parts, which never share a group: a part to train on, a part whose loss
says when to stop and which seed is best, and a part that is only evaluated. Records become chunks, frames and
features by the same code as a sample. The features of all frames are held in memory (4 bytes x width each).

Shapes: N frames, U unique frames, D features.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from virnucpro_core.devices.cuda import usable_device
from virnucpro_core.encoders.encoder import Encoder, load_encoder
from virnucpro_core.errors import UsageError
from virnucpro_core.files.digests import sha256_file
from virnucpro_core.models.classifier import Classifier, Features
from virnucpro_core.models.classifier_folder import CLASSES
from virnucpro_core.models.fitting import Recipe, TrainingReport, train_classifier
from virnucpro_core.models.training_data import digests_of
from virnucpro_core.sequences.chunks import Chunks, write_records
from virnucpro_core.sequences.fasta import Record, read_records
from virnucpro_core.sequences.frames import Frames, write_frames
from virnucpro_core.sequences.labelled import LabelledInput, Truth, divide_groups, pieces_of

PARTS = ("training", "stopping", "evaluation")
# The shares of bases of the second and the third part.
SHARES = (0.15, 0.2)


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """The settings of a training run.

    `chunk_size` in bases; `augment`: other chunk sizes into which the training part is cut as well. `precision`: of
    the encoders, as a sample's (DNABERT-S knows no fp8 and computes in float16 then). `seeds`: how often to train, with
    the seeds `recipe.seed`, `recipe.seed + 1`, ...; the fit with the lowest loss on the stopping part is kept.
    `recipe.seed` also divides the groups. `lengths`: cut the records of the evaluation part into pieces of these
    lengths; () to evaluate whole records. `min_open`: train and evaluate also on open frames of at least so many amino
    acids; 0 for stop-free frames only.
    """

    chunk_size: int = 500
    augment: tuple[int, ...] = ()
    device: str = "cpu"
    precision: str = "float32"
    seeds: int = 3
    lengths: tuple[int, ...] = ()
    min_open: int = 0
    recipe: Recipe = Recipe(class_weights=True)  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if not 1 <= self.seeds <= 100:
            raise UsageError(f"{self.seeds} seeds", remedy="give 1 to 100")
        if min(self.chunk_size, *self.augment, self.chunk_size) < 6:
            raise UsageError("a chunk size is below 6 bases", remedy="give 300 or 500")

    @property
    def facts(self) -> dict[str, Any]:
        """For the manifest. `min_open` is there only if it is not 0."""
        return {name: value for name, value in asdict(self).items() if name != "min_open" or value}


@dataclass(frozen=True, slots=True)
class LabelledFrames:
    """Frames of labelled records: features (N, D), labels 0 others 1 virus (N,), chunk (N,) and record (N,) numbers.

    is_open: which are open frames, (N,) bool.
    """

    features: Features
    labels: npt.NDArray[np.int64]
    chunk: npt.NDArray[np.int64]
    record: npt.NDArray[np.int64]
    is_open: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Trained:
    """A trained classifier and what is known of it.

    reports: of each seed, `best` is the index of the one that was kept. truth, lengths (bases), chunks: of the
    records of the evaluation part, in order; `evaluated` are their frames and `scores` (N, 2) their scores, others
    and virus. facts: what goes into the manifest. digests: of the sequences that were fitted to, in training or for
    stopping (`training_data.py`).
    """

    classifier: Classifier
    settings: TrainingSettings
    reports: tuple[TrainingReport, ...]
    best: int
    truth: dict[str, Truth]
    lengths: npt.NDArray[np.int64]
    chunks: npt.NDArray[np.int64]
    evaluated: LabelledFrames
    scores: Features
    facts: dict[str, Any]
    digests: npt.NDArray[np.uint64]


def train(
    labelled: LabelledInput, dnabert_folder: Path, esm2_folder: Path, settings: TrainingSettings
) -> Trained:
    """Train classifiers with several seeds and keep the best. The same input and settings give the same weights.

    Raises InputError, WeightsError, DeviceError, or UsageError if a class has too few groups or frames.
    """
    examined = labelled.examined()
    examined.check_lengths(settings.lengths)
    truth = examined.truth
    records = [record for record in read_records(labelled.files) if not record.reason]
    parts = divided(records, truth, settings.recipe.seed)
    described = _facts(labelled, parts, truth, settings)
    if settings.lengths:
        parts[2], truth = cut(parts[2], truth, settings.lengths)
    usable_device(settings.device, settings.precision)
    half = "float16" if settings.precision == "fp8" else settings.precision
    encoders = (
        load_encoder("dnabert-s", dnabert_folder, device=settings.device, dtype=half),
        load_encoder("esm2", esm2_folder, device=settings.device, dtype=settings.precision),
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sizes = dict.fromkeys((settings.chunk_size, *settings.augment))
        made = partial(embedded, truth=truth, encoders=encoders, folder=folder, min_open=settings.min_open)
        fit = joined([made(parts[0], chunk_size=size)[1] for size in sizes])
        stop = made(parts[1], chunk_size=settings.chunk_size)[1]
        chunks, test = made(parts[2], chunk_size=settings.chunk_size)
        lengths, counts = np.array(chunks.lengths), np.diff(chunks.chunk_offsets)
    for name, part in zip(PARTS, (fit, stop, test), strict=True):
        _check(name, part, settings.chunk_size)
    fits = [
        train_classifier(
            fit.features,
            fit.labels,
            replace(settings.recipe, seed=settings.recipe.seed + k),
            (stop.features, stop.labels),
        )
        for k in range(settings.seeds)
    ]
    best = min(range(len(fits)), key=lambda k: fits[k][1].held_out_loss)
    classifier = Classifier(fits[best][0].state, device=torch.device("cpu"), chunk_size=settings.chunk_size)
    reports = tuple(report for _, report in fits)
    return Trained(
        classifier,
        settings,
        reports,
        best,
        {record.id: truth[record.id] for record in parts[2]},
        lengths,
        counts,
        test,
        classifier.score(test.features),
        described
        | {"trained_on": {"dnabert-s": encoders[0].fingerprint, "esm2": encoders[1].fingerprint}}
        | {"frames": dict(zip(PARTS, (len(p.labels) for p in (fit, stop, test)), strict=True))}
        | {"seeds": [_of_seed(settings.recipe.seed + k, report) for k, report in enumerate(reports)]},
        digests_of([*parts[0], *parts[1]]),
    )


def divided(records: Sequence[Record], truth: dict[str, Truth], seed: int) -> list[list[Record]]:
    """The records of each of PARTS. No group is in two of them. Raises UsageError for too few groups."""
    mine = [truth[record.id] for record in records]
    part = divide_groups(
        [one.group for one in mine],
        np.array([one.label for one in mine], np.int64),
        np.array([len(record.sequence) for record in records], np.int64),
        SHARES,
        seed,
    )
    return [[record for record, k in zip(records, part.tolist(), strict=True) if k == n] for n in range(3)]


def cut(
    records: Sequence[Record], truth: dict[str, Truth], lengths: Sequence[int]
) -> tuple[list[Record], dict[str, Truth]]:
    """Pieces of the records, and the truth with theirs. A piece has the label and the group of its record."""
    pieces, whole = [], dict(truth)
    for record in records:
        for name, letters in pieces_of(record, lengths):
            pieces.append(replace(record, id=name, sequence=letters))
            whole[name] = truth[record.id]
    return pieces, whole


def embedded(
    records: Sequence[Record],
    truth: dict[str, Truth],
    chunk_size: int,
    encoders: tuple[Encoder, Encoder],
    folder: Path,
    min_open: int = 0,
) -> tuple[Chunks, LabelledFrames]:
    """Cut, translate and embed records: DNABERT-S columns first, ESM-2 columns second. Stores go to `folder`.

    min_open: least amino acids of open frames, 0 for stop-free frames only.
    """
    place = Path(tempfile.mkdtemp(dir=folder))
    chunks = write_records(records, place / "chunks", chunk_size=chunk_size)
    frames = write_frames(chunks, place / "frames", min_open=min_open)
    label = np.array([truth[record.id].label for record in records], np.int64)
    record = chunks.locate(np.asarray(frames.frame_chunk)).record
    return chunks, LabelledFrames(
        features_of(frames, encoders),
        label[record],
        np.asarray(frames.frame_chunk),
        record,
        frames.is_open(0, frames.n_frames),
    )


def features_of(frames: Frames, encoders: tuple[Encoder, Encoder]) -> Features:
    """Features of all frames (N, D): DNABERT-S first, ESM-2 second. Equal frames are embedded once."""
    if not frames.n_frames:
        return np.empty((0, encoders[0].dim + encoders[1].dim), np.float32)
    columns = [encoders[0].embed(frames.nucleotides), encoders[1].embed(frames.proteins)]
    unique_UD: Features = np.concatenate(columns, axis=1)
    return unique_UD[frames.frame_unique]


def joined(parts: Sequence[LabelledFrames]) -> LabelledFrames:
    """The frames of several chunk sizes as one; chunk and record numbers keep their meaning only within a part."""
    columns = zip(*((p.features, p.labels, p.chunk, p.record, p.is_open) for p in parts), strict=True)
    return LabelledFrames(*(np.concatenate(column) for column in columns))


def _check(name: str, part: LabelledFrames, chunk_size: int) -> None:
    counts = np.bincount(part.labels, minlength=len(CLASSES))
    for label, words in enumerate(CLASSES):
        if counts[label] < 2:
            raise UsageError(
                f"the {name} part has {counts[label]} stop-free frame(s) of {words} in chunks of {chunk_size} bases",
                remedy="give more genomes, or a smaller --chunk-size",
            )


def _facts(
    labelled: LabelledInput,
    parts: Sequence[Sequence[Record]],
    truth: dict[str, Truth],
    settings: TrainingSettings,
) -> dict[str, Any]:
    """What the data are, for the manifest: files, and for each part records, groups and bases of each class."""
    files = [*labelled.files, *([labelled.labels] if labelled.labels else [])]
    described: dict[str, Any] = {}
    for name, records in zip(PARTS, parts, strict=True):
        described[name] = {}
        for label, words in enumerate(CLASSES):
            mine = [record for record in records if truth[record.id].label == label]
            described[name][words] = {
                "records": len(mine),
                "groups": len({truth[record.id].group for record in mine}),
                "bases": sum(len(record.sequence) for record in mine),
            }
    return {
        "data": [{"name": file.name, "sha256": sha256_file(file)} for file in files],
        "parts": described,
        "training": settings.facts,
        **({"min_open": settings.min_open} if settings.min_open else {}),
    }


def _of_seed(seed: int, report: TrainingReport) -> dict[str, Any]:
    return {
        "seed": seed,
        "epochs": report.epochs,
        "best_epoch": report.best_epoch,
        "held_out_loss": round(report.held_out_loss, 6),
        "training_accuracy": round(report.accuracy, 4),
    }
