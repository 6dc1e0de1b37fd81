"""What float16 and fp8 do to a classifier's scores: trained on float32 features, asked with each precision's.

    python -m benchmarks.scores --out benchmarks/results

The sequences are the genomes of the demo; a fifth of their blocks is held out. The encoders have the published shapes
and random weights, so the accuracies say nothing of biology: the rows say how far rounding moves a score, and how
often it moves a call. Columns are standardised in training, which makes the classifier as sensitive to small
differences as it can be.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import provenance
from benchmarks.seeded import write_model
from virnucpro_core.classifier import CLASSES, train_classifier
from virnucpro_core.devices import DTYPES, default_attention, device_name, usable_device
from virnucpro_core.durable import publish_json
from virnucpro_core.encoders import Encoder, Kind, load_encoder
from virnucpro_core.profiles import DEMO
from virnucpro_core.training import (
    LabelledFrames,
    TrainingSettings,
    equal_classes,
    evaluate,
    labelled_frames,
    split_blocks,
)

PRECISIONS = ("float32", "float16", "fp8")
SEED = 42


def load(kind: Kind, folder: Path, device: str, precision: str) -> Encoder:
    """DNABERT-S computes float16 where ESM-2 computes fp8, as in a sample's run."""
    if kind == "dnabert-s" and precision == "fp8":
        precision = "float16"
    attention = default_attention(device, precision)
    return load_encoder(
        kind, folder, device=usable_device(device, precision), dtype=DTYPES[precision], attention=attention
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="How far float16 and fp8 move a classifier's scores.")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--esm2", default="esm2-3b")
    parser.add_argument("--dnabert", default="dnabert-s")
    parser.add_argument("--chunk-size", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    settings = TrainingSettings(chunk_size=options.chunk_size, seed=SEED)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = {
            name: write_model(name, folder / name, device=device, dtype=torch.float16)
            for name in (options.dnabert, options.esm2)
        }
        shutil.copyfile(DEMO / "dnabert_s" / "tokenizer.json", models[options.dnabert] / "tokenizer.json")
        sources = zip(CLASSES, ("non_viral.fa", "viral.fa"), strict=True)
        blocks = [split_blocks([DEMO / file], folder / name, settings) for name, file in sources]
        parts: dict[str, tuple[LabelledFrames, LabelledFrames]] = {}
        for precision in dict.fromkeys(["float32", *options.precisions]):
            encoders = (
                load("dnabert-s", models[options.dnabert], options.device, precision),
                load("esm2", models[options.esm2], options.device, precision),
            )
            with torch.inference_mode():
                train, held_out = (
                    labelled_frames([pair[part] for pair in blocks], encoders, options.chunk_size, folder)
                    for part in (0, 1)
                )
            parts[precision] = train, held_out
            del encoders
    train, held_out = parts["float32"]
    rows = equal_classes(train.labels, SEED)
    classifier, _ = train_classifier(
        train.features[rows], train.labels[rows], epochs=options.epochs, seed=SEED
    )
    expected = classifier.score(held_out.features)[:, 1]
    table = []
    for precision, (_, frames) in parts.items():
        virus = classifier.score(frames.features)[:, 1]
        moved = np.abs(virus - expected)
        table.append(
            {
                "precision": precision,
                "frames": len(virus),
                "score_moved_mean": float(moved.mean()),
                "score_moved_p99": float(np.percentile(moved, 99)),
                "score_moved_most": float(moved.max()),
                "frames_called_otherwise": int(((virus >= 0.5) != (expected >= 0.5)).sum()),
                "frame_accuracy": evaluate(classifier, frames).frame_accuracy,
                "chunk_accuracy": evaluate(classifier, frames).chunk_accuracy,
            }
        )
    print(" ".join(f"{name:>24}" for name in table[0]))
    for row in table:
        print(" ".join(f"{c:24.5f}" if isinstance(c, float) else f"{c!s:>24}" for c in row.values()))
    result = {
        "benchmark": "scores",
        "device": device_name(device),
        **provenance(),
        "models": [options.dnabert, options.esm2],
        "chunk_size": options.chunk_size,
        "training_frames": len(train.labels),
        "rows": table,
    }
    if options.out:
        name = f"scores-{device_name(device).lower().replace(' ', '-')}.json"
        publish_json(options.out / name, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
