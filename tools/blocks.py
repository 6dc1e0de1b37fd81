"""Train and evaluate a classifier on blocks of a few genomes: the recipe of the demo's classifiers, and of benchmarks.

The demo has eleven records, too few to hold out whole genomes as `virnucpro train` does. So its held-out blocks come
from genomes that were trained on, and its figures say nothing about others.

Every record is cut into blocks of 5,000 bases. A fifth of the blocks of each class is held out: never used for
training, only for the evaluation. Blocks become chunks, frames and features by the same code as a sample. The
features of all frames are held in memory (4 bytes x width each).

Shapes: N frames, U unique frames, D features.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from virnucpro_core.encoders.encoder import Encoder, load_encoder
from virnucpro_core.errors import UsageError
from virnucpro_core.files.publish import publish_folder
from virnucpro_core.models.classifier import Classifier, Features
from virnucpro_core.models.classifier_folder import CLASSES
from virnucpro_core.models.convert import Origin, write_model_manifest
from virnucpro_core.models.fitting import Recipe, train_classifier
from virnucpro_core.sequences.chunks import write_chunks
from virnucpro_core.sequences.fasta import read_records
from virnucpro_core.sequences.frames import write_frames

BLOCK_BASES = 5_000
HELD_OUT = 0.2


@dataclass(frozen=True, slots=True)
class BlockSettings:
    """The settings of a training run.

    `chunk_size` in bases. `shifts`: how often the training blocks are cut into chunks, each time from another
    first base (this gives more frames from a small set). The others are those of `Recipe`.
    """

    chunk_size: int = 500
    shifts: int = 1
    device: str = "cpu"
    seed: int = 42
    hidden: int = 512
    epochs: int = 200
    batch_size: int = 32
    learning_rate: float = 0.0002


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The accuracy of a classifier on frames and chunks that it was not trained on; fractions from 0 to 1.

    A chunk is called virus if its highest score for virus is at least its highest for others, over its frames,
    as in the published tool. `chunk_recall`: for each class, the fraction of its chunks with the correct call.
    """

    frames: int
    frame_accuracy: float
    chunks: int
    viral_chunks: int
    chunk_accuracy: float
    chunk_recall: dict[str, float]


@dataclass(frozen=True, slots=True)
class LabelledFrames:
    """The frames of both classes: features (N, D), labels 0 others 1 virus (N,), chunk numbers (N,)."""

    features: Features
    labels: npt.NDArray[np.int64]
    chunk: npt.NDArray[np.int64]


def train_on_blocks(
    viral: Sequence[Path],
    non_viral: Sequence[Path],
    dnabert_folder: Path,
    esm2_folder: Path,
    out: Path,
    settings: BlockSettings,
    origin: Origin | None = None,
) -> Evaluation:
    """Train a classifier, publish it as the model folder `out` and return its accuracy on the held-out blocks.

    Rows of the smaller class are repeated until both classes have the same size. The manifest records the
    fingerprints of the encoders. Raises InputError, WeightsError, DeviceError, or UsageError if a class has too
    few blocks or frames.
    """
    dnabert = load_encoder("dnabert-s", dnabert_folder, device=settings.device)
    esm2 = load_encoder("esm2", esm2_folder, device=settings.device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        blocks = [
            split_blocks(files, folder / name, settings)
            for name, files in zip(CLASSES, (non_viral, viral), strict=True)
        ]
        train, test = (
            labelled_frames([pair[part] for pair in blocks], (dnabert, esm2), settings.chunk_size, folder)
            for part in (0, 1)
        )
    rows = equal_classes(train.labels, settings.seed)
    trained, report = train_classifier(
        train.features[rows],
        train.labels[rows],
        Recipe(settings.hidden, settings.epochs, settings.seed, settings.batch_size, settings.learning_rate),
    )
    classifier = Classifier(trained.state, device=torch.device("cpu"), chunk_size=settings.chunk_size)
    evaluation = evaluate(classifier, test)
    numbers = {
        "input_dim": classifier.input_dim,
        "hidden_dim": classifier.hidden_dim,
        "chunk_size": classifier.chunk_size,
        "parameters": classifier.parameters,
        "trained_on": {"dnabert-s": dnabert.fingerprint, "esm2": esm2.fingerprint},
        "training": asdict(settings),
        "training_frames": len(train.labels),
        "training_accuracy": round(report.accuracy, 4),
        "held_out": asdict(evaluation),
    }
    with publish_folder(out) as published:
        classifier.save(published)
        write_model_manifest(published, "classifier", origin or Origin("trained here"), numbers)
    return evaluation


def split_blocks(files: Sequence[Path], prefix: Path, settings: BlockSettings) -> tuple[Path, Path]:
    """Write the (training, held-out) FASTA files of a class: its blocks, divided at random by the seed.

    File names begin with `prefix`. Raises UsageError if the class has fewer than two blocks.
    """
    blocks = [
        (f"{record.id}:{start + 1}", record.sequence[start : start + BLOCK_BASES])
        for record in read_records(files)
        if not record.reason
        for start in range(0, len(record.sequence), BLOCK_BASES)
    ]
    order = np.random.Generator(np.random.PCG64(settings.seed)).permutation(len(blocks))
    n_held = max(1, round(HELD_OUT * len(blocks)))
    if n_held >= len(blocks):
        raise UsageError(
            f"class {prefix.name!r} has {len(blocks)} blocks of {BLOCK_BASES:,} bases; training needs at least"
            " two, one of which is held out",
            remedy="give more or longer sequences",
        )
    first_bases = [n * settings.chunk_size // settings.shifts for n in range(settings.shifts)]
    train, held_out = prefix.with_suffix(".train.fa"), prefix.with_suffix(".held_out.fa")
    _write_fasta(train, [blocks[i] for i in sorted(order[n_held:])], first_bases)
    _write_fasta(held_out, [blocks[i] for i in sorted(order[:n_held])], [0])
    return train, held_out


def _write_fasta(path: Path, blocks: Sequence[tuple[str, bytes]], first_bases: Sequence[int]) -> None:
    """Write every block once per first base, beginning there; blocks that are too short for it are skipped."""
    with path.open("wb") as stream:
        for name, sequence in blocks:
            for first in first_bases:
                if first < len(sequence):
                    stream.write(b">%s+%d\n%s\n" % (name.encode(), first, sequence[first:]))


def labelled_frames(
    files: Sequence[Path], encoders: tuple[Encoder, Encoder], chunk_size: int, folder: Path
) -> LabelledFrames:
    """Frames of two FASTA files (others, virus) with their features: DNABERT-S first, ESM-2 second.

    Chunks are numbered across both files. Raises UsageError if a file has no stop-free frame.
    """
    features, labels, chunk = [], [], []
    first_chunk = 0
    for label, path in enumerate(files):
        chunks = write_chunks([path], folder / f"{path.name}.chunks", chunk_size=chunk_size)
        frames = write_frames(chunks, folder / f"{path.name}.frames")
        if not frames.n_frames:
            raise UsageError(
                f"class {CLASSES[label]!r} has no stop-free frame in chunks of {chunk_size} bases"
            )
        unique_UD = np.concatenate(
            [encoders[0].embed(frames.nucleotides), encoders[1].embed(frames.proteins)], axis=1
        )
        features.append(unique_UD[frames.frame_unique])
        labels.append(np.full(frames.n_frames, label))
        chunk.append(np.asarray(frames.frame_chunk) + first_chunk)
        first_chunk += chunks.n_chunks
    return LabelledFrames(np.concatenate(features), np.concatenate(labels), np.concatenate(chunk))


def equal_classes(labels: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Row numbers to train on: all rows, and rows of the smaller class repeated until both classes are equal."""
    counts = np.bincount(labels, minlength=len(CLASSES))
    smaller = np.flatnonzero(labels == counts.argmin())
    generator = np.random.Generator(np.random.PCG64(seed))
    again = generator.permutation(np.resize(smaller, counts.max() - counts.min()))
    return np.concatenate([np.arange(len(labels)), again])


def evaluate(classifier: Classifier, frames: LabelledFrames) -> Evaluation:
    """Accuracy per frame and per chunk; `frames` must contain both classes."""
    scores_N2 = classifier.score(frames.features)
    is_right = scores_N2.argmax(axis=1) == frames.labels
    chunk, first, inverse = np.unique(frames.chunk, return_index=True, return_inverse=True)
    highest = np.full((len(chunk), len(CLASSES)), -1.0, np.float32)
    np.maximum.at(highest, inverse, scores_N2)
    truth = frames.labels[first]
    is_chunk_right = (highest[:, 1] >= highest[:, 0]) == (truth == 1)
    return Evaluation(
        frames=len(is_right),
        frame_accuracy=round(float(is_right.mean()), 4),
        chunks=len(chunk),
        viral_chunks=int(truth.sum()),
        chunk_accuracy=round(float(is_chunk_right.mean()), 4),
        chunk_recall={
            name: round(float(is_chunk_right[truth == label].mean()), 4) for label, name in enumerate(CLASSES)
        },
    )
