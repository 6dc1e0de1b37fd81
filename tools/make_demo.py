"""Make the demo profile's models from a seed: `python -m tools.make_demo --out DIR`.

The models are tiny encoders with random weights, a byte-pair vocabulary of the shipped genomes, and two classifiers
of the published architecture, trained on features of these genomes (`blocks`). They show that everything runs;
their scores carry no biological meaning. The encoders are byte for byte the same on every machine.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer as BytePairTokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

from tools.blocks import BlockSettings, Evaluation, train_on_blocks
from virnucpro_core.encoders.model_folder import DnabertShape, Esm2Shape
from virnucpro_core.files.publish import publish_bytes, publish_folder, publish_json
from virnucpro_core.files.safetensors import TensorSource, write_tensors
from virnucpro_core.models.convert import DNABERT_CONFIG, ESM2_CONFIG, Origin, write_model_manifest
from virnucpro_core.models.profiles import DEMO, NO_MEANING, PUBLISHED_SIZES
from virnucpro_core.sequences.fasta import read_records

SEED = 20261122
GENOMES = ("viral.fa", "non_viral.fa")
ORIGIN = Origin("virnucpro_core.demo_profile", f"seed {SEED}", "MIT", NO_MEANING)
SPECIAL = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
VOCABULARY = 512
WORD_BASES = 500
LAYERS, WIDTH, HEADS = 2, 64, 4
ESM2_FEED_FORWARD, DNABERT_FEED_FORWARD = 4 * WIDTH, 2 * WIDTH
GAIN = 0.5
EPOCHS = 10

README = """# Demo models

{no_meaning} They are here so that everything runs on a laptop.

`viral.fa` and `non_viral.fa` are GenBank and RefSeq records (and two excerpts of hg38), named by accession.
Everything else in this folder is made from them and a seed:

    python -m tools.make_demo --out virnucpro_core/demo

`esm2` and `dnabert_s`: {layers} layers, {width} wide, {heads} heads, random weights. `classifier_300` and
`classifier_500`: the published architecture on {features} features, trained on four fifths of the genomes in
blocks of 5,000 bases. The other fifth was never trained on. Fractions of correct calls on it:

| chunk size | held-out frames | per frame | held-out chunks (viral) | per chunk | viral | others |
|---|---|---|---|---|---|---|
{rows}
Calling everything `others` would give 0 and 1 in the last two columns. The held-out blocks come from the same
genomes as the others: this says nothing about a virus that is not here.
"""


def build_demo(out: Path) -> dict[int, Evaluation]:
    """Write the demo's models and README into `out`. Returns the evaluation of each classifier by chunk size."""
    build_encoders(out)
    evaluations = {chunk_size: build_classifier(out, chunk_size) for chunk_size in PUBLISHED_SIZES}
    rows = "".join(
        f"| {size} | {e.frames} | {e.frame_accuracy:.3f} | {e.chunks} ({e.viral_chunks})"
        f" | {e.chunk_accuracy:.3f} | {e.chunk_recall['virus']:.3f} | {e.chunk_recall['others']:.3f} |\n"
        for size, e in evaluations.items()
    )
    numbers = {"layers": LAYERS, "width": WIDTH, "heads": HEADS, "features": 2 * WIDTH}
    text = README.format(no_meaning=NO_MEANING, rows=rows, **numbers)
    publish_bytes(out / "README.md", text.encode())
    for name in GENOMES:
        if not (out / name).exists():
            publish_bytes(out / name, (DEMO / name).read_bytes())
    return evaluations


def build_encoders(out: Path) -> None:
    """Write the folders `esm2` and `dnabert_s`, with the same bytes on every machine."""
    sizes = {"num_hidden_layers": LAYERS, "hidden_size": WIDTH, "num_attention_heads": HEADS}
    generator = np.random.Generator(np.random.PCG64(SEED))
    esm2 = {**ESM2_CONFIG, **sizes, "intermediate_size": ESM2_FEED_FORWARD}
    dnabert = {**DNABERT_CONFIG, **sizes, "intermediate_size": DNABERT_FEED_FORWARD, "vocab_size": VOCABULARY}
    with publish_folder(out / "esm2") as folder:
        publish_json(folder / "config.json", esm2)
        _write_weights(folder, Esm2Shape.read(folder).tensors(), generator)
        write_model_manifest(folder, "esm2", ORIGIN, {"layers": LAYERS, "dim": WIDTH, "heads": HEADS})
    with publish_folder(out / "dnabert_s") as folder:
        publish_json(folder / "config.json", dnabert)
        _write_weights(folder, DnabertShape.read(folder).tensors(), generator)
        publish_bytes(folder / "tokenizer.json", train_tokenizer().to_str(pretty=True).encode())
        write_model_manifest(folder, "dnabert-s", ORIGIN, {"layers": LAYERS, "dim": WIDTH, "heads": HEADS})


def build_classifier(out: Path, chunk_size: int, *, epochs: int = EPOCHS) -> Evaluation:
    """Train a classifier on the encoders in `out`, write it to `classifier_{chunk_size}`, return its evaluation."""
    settings = BlockSettings(chunk_size=chunk_size, seed=SEED, shifts=4, epochs=epochs, learning_rate=0.002)
    viral, non_viral = ([DEMO / name] for name in GENOMES)
    folder = out / f"classifier_{chunk_size}"
    return train_on_blocks(viral, non_viral, out / "dnabert_s", out / "esm2", folder, settings, ORIGIN)


def train_tokenizer() -> BytePairTokenizer:
    """Train a byte-pair tokenizer on the shipped genomes, in the layout of DNABERT-S: [CLS] A [SEP], else [UNK]."""
    tokenizer = BytePairTokenizer(BPE(unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = Whitespace()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=list("ACGT"),
        show_progress=False,
    )
    sequences = [r.sequence.upper() for r in read_records([DEMO / name for name in GENOMES])]
    words = [s[i : i + WORD_BASES] for s in sequences for i in range(0, len(s), WORD_BASES)]
    tokenizer.train_from_iterator([w.decode() for w in words if not w.strip(b"ACGT")], trainer)
    cls, sep = SPECIAL[1:3]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{cls} $A {sep}", special_tokens=[(name, SPECIAL.index(name)) for name in (cls, sep)]
    )
    return tokenizer


def _write_weights(folder: Path, shapes: dict[str, tuple[int, ...]], generator: np.random.Generator) -> None:
    """Write uniform random weights (these do not round differently between machines), norms at 1, biases at 0.

    Embeddings have variance 1. Matrix products have the gain GAIN, which keeps the residual stream close to the
    composition of the sequence: that is the only signal a random network can pass on.
    """
    tensors = {}
    for name in sorted(shapes):
        shape = shapes[name]
        values = np.zeros(shape, np.float32)
        if len(shape) == 2:
            deviation = 1.0 if "embeddings" in name else GAIN / shape[1] ** 0.5
            reach = np.float32(3**0.5 * deviation)
            values = (generator.random(shape, dtype=np.float32) * np.float32(2) - np.float32(1)) * reach
        elif name.endswith("weight"):
            values += 1
        tensors[name] = TensorSource.of(torch.from_numpy(values))
    write_tensors(folder / "model.safetensors", tensors)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.make_demo", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the demo's models")
    out = parser.parse_args(arguments).out
    for chunk_size, evaluation in build_demo(out).items():
        print(f"chunks of {chunk_size}: {evaluation}")
    print(NO_MEANING)
    return 0


if __name__ == "__main__":
    sys.exit(main())
