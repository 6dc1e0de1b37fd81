"""Measure how float16 and fp8 change a classifier's scores. It is trained on float32 and scores each precision.

    python -m benchmarks.scores --out benchmarks/results

The sequences are the demo's genomes; a fifth of their blocks is held out. The encoders have the published shapes and
random weights, so the accuracies have no biological meaning. The rows show how much rounding changes a score, and how
often it changes a call. Columns are standardised in training, which makes the classifier as sensitive to small
differences as possible.

The second table shows what it does to store the rows of float16 and fp8 as float16 instead of float32: the same rows,
rounded, are scored by the same classifier. The `--stored` frames come from pieces of the genomes with 5 % of their
bases changed at random.
"""

import argparse
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.record import finish, print_table, provenance
from benchmarks.seeded import write_model
from tools.blocks import (
    BlockSettings,
    LabelledFrames,
    equal_classes,
    evaluate,
    labelled_frames,
    split_blocks,
)
from virnucpro_core.devices.compute import default_attention
from virnucpro_core.devices.cuda import DTYPES, device_name, usable_device
from virnucpro_core.encoders.encoder import Encoder, Kind, load_encoder
from virnucpro_core.models.classifier import Classifier
from virnucpro_core.models.classifier_folder import CLASSES
from virnucpro_core.models.fitting import Recipe, train_classifier
from virnucpro_core.models.profiles import DEMO
from virnucpro_core.sequences.chunks import write_chunks
from virnucpro_core.sequences.fasta import read_records
from virnucpro_core.sequences.frames import write_frames

PRECISIONS = ("float32", "float16", "fp8")
SEED = 42
CHANGED = 0.05
BASES = np.frombuffer(b"ACGT", np.uint8)
# About a third of such pieces have a stop-free frame.
PIECES_PER_FRAME = 5


def load(kind: Kind, folder: Path, device: str, precision: str) -> Encoder:
    """Load an encoder. As in a sample's run, DNABERT-S computes in float16 when ESM-2 computes in fp8."""
    if kind == "dnabert-s" and precision == "fp8":
        precision = "float16"
    attention = default_attention(device, precision)
    return load_encoder(
        kind, folder, device=usable_device(device, precision), dtype=DTYPES[precision], attention=attention
    )


@dataclass(frozen=True, slots=True)
class Found:
    """Features computed in one precision: of the training frames, the held-out frames, and `many` (N, D) frames."""

    train: LabelledFrames
    held_out: LabelledFrames
    many_ND: NDArray[np.float32]


def write_pieces(path: Path, pieces: int, size: int) -> None:
    """Write random pieces of `size` bases of the demo's genomes; a share CHANGED of their bases is replaced."""
    draw = np.random.default_rng(SEED)
    records = [
        np.frombuffer(bytes(record.sequence), np.uint8)
        for record in read_records([DEMO / "viral.fa", DEMO / "non_viral.fa"])
    ]
    with path.open("wb") as stream:
        for number in range(pieces):
            record = records[draw.integers(len(records))]
            start = draw.integers(0, len(record) - size)
            piece = record[start : start + size].copy()
            changed = draw.random(size) < CHANGED
            piece[changed] = draw.choice(BASES, int(changed.sum()))
            stream.write(b">piece%d\n%b\n" % (number, piece.tobytes()))


def features(options: argparse.Namespace) -> dict[str, Found]:
    """precision -> the features computed in this precision."""
    device = torch.device(options.device)
    settings = BlockSettings(chunk_size=options.chunk_size, seed=SEED)
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dnabert, esm2 = (
            write_model(name, folder / name, device=device, dtype=torch.float16)
            for name in (options.dnabert, options.esm2)
        )
        shutil.copyfile(DEMO / "dnabert_s" / "tokenizer.json", dnabert / "tokenizer.json")
        sources = zip(CLASSES, ("non_viral.fa", "viral.fa"), strict=True)
        blocks = [split_blocks([DEMO / file], folder / name, settings) for name, file in sources]
        write_pieces(folder / "many.fa", PIECES_PER_FRAME * options.stored, options.chunk_size)
        many = write_frames(
            write_chunks([folder / "many.fa"], folder / "chunks", chunk_size=options.chunk_size),
            folder / "frames",
        )
        some = np.arange(min(options.stored, many.n_unique))
        for precision in dict.fromkeys(["float32", *options.precisions]):
            encoders = (
                load("dnabert-s", dnabert, options.device, precision),
                load("esm2", esm2, options.device, precision),
            )
            with torch.inference_mode():
                train, held_out = (
                    labelled_frames([pair[part] for pair in blocks], encoders, options.chunk_size, folder)
                    for part in (0, 1)
                )
                few = some if precision != "float32" else some[:0]
                many_ND = np.concatenate(
                    [
                        encoders[0].embed(many.nucleotides.take(few)),
                        encoders[1].embed(many.proteins.take(few)),
                    ],
                    axis=1,
                )
            found[precision] = Found(train, held_out, many_ND)
            del encoders
    return found


def moved_scores(
    classifier: Classifier, frames: LabelledFrames, precision: str, expected_F: NDArray[np.float32]
) -> dict[str, object]:
    """Compare the scores of class virus with `expected_F` (frames,), those of float32 features."""
    virus_F = classifier.score(frames.features)[:, 1]
    moved_F = np.abs(virus_F - expected_F)
    found = evaluate(classifier, frames)
    return {
        "precision": precision,
        "frames": len(virus_F),
        "score_moved_mean": float(moved_F.mean()),
        "score_moved_p99": float(np.percentile(moved_F, 99)),
        "score_moved_most": float(moved_F.max()),
        "frames_called_otherwise": int(((virus_F >= 0.5) != (expected_F >= 0.5)).sum()),
        "frame_accuracy": found.frame_accuracy,
        "chunk_accuracy": found.chunk_accuracy,
    }


def stored_scores(classifier: Classifier, rows_ND: NDArray[np.float32], precision: str) -> dict[str, object]:
    """Compare the scores of rows stored as float16 with those of the same rows stored as float32."""
    expected_N = classifier.score(rows_ND)[:, 1]
    virus_N = classifier.score(rows_ND.astype(np.float16).astype(np.float32))[:, 1]
    moved_N = np.abs(virus_N - expected_N)
    return {
        "precision": precision,
        "frames": len(rows_ND),
        "largest_value": float(np.abs(rows_ND).max()),
        "score_moved_mean": float(moved_N.mean()),
        "score_moved_p99": float(np.percentile(moved_N, 99)),
        "score_moved_most": float(moved_N.max()),
        "frames_called_otherwise": int(((virus_N >= 0.5) != (expected_N >= 0.5)).sum()),
        "scores_within_0.001_of_0.5": int((np.abs(expected_N - 0.5) < 0.001).sum()),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How far float16 and fp8 move a classifier's scores.")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--esm2", default="esm2-3b")
    parser.add_argument("--dnabert", default="dnabert-s")
    parser.add_argument("--chunk-size", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--stored", type=int, default=100_000, help="frames to score as stored rows")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    parts = features(options)
    train, held_out = parts["float32"].train, parts["float32"].held_out
    chosen = equal_classes(train.labels, SEED)
    classifier, _ = train_classifier(
        train.features[chosen], train.labels[chosen], Recipe(epochs=options.epochs, seed=SEED)
    )
    expected_F = classifier.score(held_out.features)[:, 1]
    rows = [moved_scores(classifier, one.held_out, precision, expected_F) for precision, one in parts.items()]
    print_table(rows)
    stored = [
        stored_scores(classifier, one.many_ND, precision)
        for precision, one in parts.items()
        if precision != "float32"
    ]
    print_table(stored)
    result = provenance() | {
        "device": device_name(torch.device(options.device)),
        "models": [options.dnabert, options.esm2],
        "chunk_size": options.chunk_size,
        "training_frames": len(train.labels),
        "rows": rows,
        "stored_as_float16": stored,
    }
    finish(result, options.out, "scores", result["device"])


if __name__ == "__main__":
    main()
