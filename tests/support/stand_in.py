"""Small seeded models in the shape of the published ones, and the golden answers that they would have."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from virnucpro_core.encoders.encoder import load_encoder
from virnucpro_core.encoders.model_folder import DnabertShape, Esm2Shape
from virnucpro_core.models.classifier import Classifier, ClassifierNet, load_classifier
from virnucpro_core.models.convert import DNABERT_CONFIG, ESM2_CONFIG, Origin, write_model_manifest
from virnucpro_core.models.golden import ENCODERS, Golden, Shape, published
from virnucpro_core.models.profiles import DEMO

LAYERS, HEADS = 4, 4
WIDTHS = {"esm2": 64, "dnabert-s": 48}


def esm2(folder: Path, *, layers: int = LAYERS) -> Path:
    """An ESM-2 of 64 columns."""
    return _encoder("esm2", folder, ESM2_CONFIG | {"num_hidden_layers": layers}, Esm2Shape)


def dnabert(folder: Path) -> Path:
    """A DNABERT-S of 48 columns, with the demo's tokenizer."""
    folder.mkdir(parents=True)
    shutil.copy(DEMO / "dnabert_s/tokenizer.json", folder)
    return _encoder(
        "dnabert-s", folder, DNABERT_CONFIG | {"num_hidden_layers": LAYERS, "vocab_size": 512}, DnabertShape
    )


def classifier(folder: Path) -> Path:
    """A classifier of both, for chunks of 500 bases."""
    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = ClassifierNet(sum(WIDTHS.values()), 32)
    made = Classifier(net.state_dict(), device=torch.device("cpu"), chunk_size=500)
    made.save(folder)
    return written(folder, "classifier", {"chunk_size": 500, "parameters": made.parameters})


def _encoder(kind: str, folder: Path, config: dict, shape_of: type) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    width = WIDTHS[kind]
    config = config | {"hidden_size": width, "num_attention_heads": HEADS, "intermediate_size": 4 * width}
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(3)
    state = {}
    for name, shape in shape_of.read(folder).tensors().items():
        spread = 0.3 if "embeddings" in name else 0.5 / shape[-1] ** 0.5
        state[name] = spread * torch.randn(shape, generator=generator)
        if "norm" in name.lower() and name.endswith("weight"):
            state[name] += 1.0
    save_file(state, folder / "model.safetensors")
    return written(folder, kind, {"dim": width, "parameters": sum(t.numel() for t in state.values())})


def written(folder: Path, kind: str, facts: dict) -> Path:
    """The folder with a new manifest."""
    write_model_manifest(folder, kind, Origin(), facts)
    return folder


def changed(source: Path, folder: Path, change) -> Path:
    """A copy of the model whose tensors were given to `change(state)`, with an intact manifest."""
    shutil.copytree(source, folder)
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    return written(
        folder,
        manifest["kind"],
        {k: v for k, v in manifest.items() if k in ("dim", "parameters", "chunk_size")},
    )


def flipping_together(models: Mapping[str, Path], folder: Path) -> tuple[dict[str, Path], Golden]:
    """Copies of the three models with a little noise in both encoders, and golden answers of the models without it.

    Each copy passes alone, and the three together change the call of one frame: the classifier's bias is such that one
    frame's score lies between what one noisy encoder shifts it by, and what both do.
    """

    def noise(seed: int):
        def change(state) -> None:
            generator = torch.Generator().manual_seed(seed)
            state.update(
                {n: t * (1 + 3e-4 * torch.randn(t.shape, generator=generator)) for n, t in state.items()}
            )

        return change

    noisy = {
        n: changed(models[n], folder / f"noisy-{n}", noise(k))
        for k, n in enumerate(("dnabert-s", "esm2-3b"), 1)
    }
    clean = recorded(models["dnabert-s"], models["esm2-3b"], models["virnucpro-500"])
    known = load_classifier(models["virnucpro-500"])
    vectors = {
        kind: load_encoder(kind, noisy[n]).embed(clean.sequences(kind)) for n, kind in ENCODERS.items()
    }

    def logits(features) -> np.ndarray:
        scores = known.score(features).astype(float)
        return np.log(scores[:, 1] / scores[:, 0])

    plain = logits(clean.features())
    one, other = (logits(clean.features(kind, vectors[kind])) - plain for kind in ("dnabert-s", "esm2"))
    both = logits(np.concatenate([vectors["dnabert-s"], vectors["esm2"]], axis=1)) - plain
    frame = max(range(len(plain)), key=lambda i: min(abs(one[i]), abs(other[i])) * (one[i] * other[i] > 0))
    between = (max(abs(one[frame]), abs(other[frame])) + abs(both[frame])) / 2

    def bias(state) -> None:
        state["output_layer.bias"][1] += float(-np.sign(both[frame]) * between - plain[frame])

    shifted = changed(models["virnucpro-500"], folder / "noisy-virnucpro-500", bias)
    return noisy | {"virnucpro-500": shifted}, recorded(models["dnabert-s"], models["esm2-3b"], shifted)


def recorded(dnabert_folder: Path, esm2_folder: Path, classifier_folder: Path) -> Golden:
    """What these models answer for the frames of the published facts."""
    facts = published()
    vectors, tokens = {}, None
    for kind, folder in (("dnabert-s", dnabert_folder), ("esm2", esm2_folder)):
        encoder = load_encoder(kind, folder)
        vectors[kind] = encoder.embed(facts.sequences(kind))
        if kind == "dnabert-s":
            tokens = encoder.tokenizer.encode([s.encode() for s in facts.nucleotides])
    golden = Golden(
        ids=facts.ids,
        nucleotides=facts.nucleotides,
        proteins=facts.proteins,
        scores_N2=facts.scores_N2,
        vectors=vectors,
        shapes={kind: Shape(LAYERS, width, HEADS) for kind, width in WIDTHS.items()},
        tokens_T=tokens[0],
        lengths_N=tokens[1],
    )
    scores = load_classifier(classifier_folder).score(golden.features())
    return Golden(**{name: getattr(golden, name) for name in golden.__slots__} | {"scores_N2": scores})
