"""Make models and workloads for the benchmarks from a seed.

Models have the published geometry and random weights. They are as slow as the real ones; their outputs mean nothing.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from virnucpro_core.encoders.encoder import Kind
from virnucpro_core.encoders.model_folder import DnabertShape, Esm2Shape, fingerprint
from virnucpro_core.models.classifier import Classifier, ClassifierNet
from virnucpro_core.models.convert import Origin, write_model_manifest
from virnucpro_core.models.profiles import PROFILES, ResolvedProfile
from virnucpro_core.pipeline.steps import chunk_sample, translate_sample
from virnucpro_core.samples.sample import Sample, register
from virnucpro_core.samples.settings import SampleSettings

ESM2 = {"model_type": "esm", "vocab_size": 33, "position_embedding_type": "rotary", "token_dropout": True}
DNABERT = {"model_type": "bert", "vocab_size": 4096, "type_vocab_size": 2, "layer_norm_eps": 1e-12}
# name -> (encoder, layers, width, heads, feed-forward)
GEOMETRIES = {
    "esm2-3b": ("esm2", 36, 2560, 40, 10240),
    "esm2-650m": ("esm2", 33, 1280, 20, 5120),
    "esm2-8m": ("esm2", 6, 320, 20, 1280),
    "dnabert-s": ("dnabert-s", 12, 768, 12, 3072),
    "dnabert-tiny": ("dnabert-s", 3, 128, 4, 256),
}
CODONS = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT" if a + b + c not in ("TAA", "TAG", "TGA")]
SEEDED = Origin("random weights of the published shapes")
RESIDUES = np.frombuffer(b"LAGVSERTIDPKQNFYMHWC", dtype=np.uint8)


def write_model(name: str, folder: Path, *, device: torch.device, dtype: torch.dtype) -> Path:
    """Write config.json and model.safetensors of the geometry `name`: normal weights of scale 0.02, in `dtype`."""
    kind, layers, width, heads, feed_forward = GEOMETRIES[name]
    config = (ESM2 if kind == "esm2" else DNABERT) | {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": feed_forward,
    }
    if kind == "esm2":
        config |= {"layer_norm_eps": 1e-5, "pad_token_id": 1, "mask_token_id": 32}
        config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    shape = Esm2Shape.read(folder) if kind == "esm2" else DnabertShape.read(folder)
    generator = torch.Generator(device).manual_seed(0)
    tensors = {}
    for tensor, size in shape.tensors().items():
        value = torch.randn(size, generator=generator, device=device) * 0.02
        if "orm" in tensor and tensor.endswith("weight"):
            value += 1
        if "word_embeddings" in tensor and kind == "esm2":
            value *= 50  # rows of unit scale, so that biases do not dominate the residual stream
        tensors[tensor] = value.to(dtype).cpu()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def residues(workload: str, count: int) -> np.ndarray:
    """(count,) protein lengths: short: uniform 36-66; chunks: 100 and 166; mixed: log-normal, 30 to 1,022."""
    random = np.random.default_rng(1)
    if workload == "short":
        return random.integers(36, 67, count)
    if workload == "chunks":
        return np.where(np.arange(count) % 2, 100, 166)
    if workload == "mixed":
        return np.clip(random.lognormal(5.3, 0.8, count).astype(int), 30, 1022)
    raise ValueError(workload)


def proteins(workload: str, count: int) -> list[bytes]:
    """Random proteins of the workload's lengths."""
    random = np.random.default_rng(2)
    return [random.choice(RESIDUES, length).tobytes() for length in residues(workload, count)]


def byte_pair_tokens(workload: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids (T,), lengths (count,)) of the workload's nucleotide slices: 4.6 bases a token."""
    lengths_B = ((3 * residues(workload, count) + 1) / 4.6).astype(np.int32) + 2
    tokens_T = np.random.default_rng(3).integers(5, 4096, int(lengths_B.sum()), dtype=np.int32)
    return tokens_T, lengths_B


def write_reads(path: Path, records: int) -> None:
    """Write a FASTA file of `records` coding sequences of 36 to 66 codons and one more base."""
    table = np.array([list(codon.encode()) for codon in CODONS], dtype=np.uint8)
    random = np.random.default_rng(5)
    with path.open("wb") as stream:
        for number, length in enumerate(residues("short", records).tolist()):
            stream.write(
                b">r%d\n" % number + table[random.integers(0, len(table), length)].tobytes() + b"A\n"
            )


def write_models(root: Path, tokenizer: Path, device: torch.device) -> None:
    """Make a model store with the models of profile esm2-3b: float16 encoders, a classifier of 512 hidden units."""
    width = 0
    for kind, name in (("dnabert-s", "dnabert-s"), ("esm2", "esm2-3b")):
        folder = write_model(name, root / name, device=device, dtype=torch.float16)
        width += GEOMETRIES[name][2]
        if kind == "dnabert-s":
            shutil.copyfile(tokenizer, folder / "tokenizer.json")
        write_model_manifest(folder, kind, SEEDED, {})
    torch.manual_seed(0)
    classifier = Classifier(
        ClassifierNet(width, 512).state_dict(), device=torch.device("cpu"), chunk_size=300
    )
    folder = root / PROFILES["esm2-3b"].classifiers[300]
    folder.mkdir(parents=True)
    classifier.save(folder)
    write_model_manifest(folder, "classifier", SEEDED, {})


def write_profile(
    folder: Path, models: Mapping[Kind, str], tokenizer: Path, device: torch.device, precision: str
) -> ResolvedProfile:
    """Write both encoders of the named geometries as model folders with manifests. There is no classifier."""
    dtype = torch.float32 if precision == "float32" else torch.float16
    folders = {
        kind: write_model(name, folder / kind, device=device, dtype=dtype) for kind, name in models.items()
    }
    torch.cuda.empty_cache()  # has no effect on a CPU
    shutil.copyfile(tokenizer, folders["dnabert-s"] / "tokenizer.json")
    for kind, path in folders.items():
        write_model_manifest(path, kind, SEEDED, {})
    return ResolvedProfile(
        profile=PROFILES["esm2-3b"],
        chunk_size=300,
        dnabert=folders["dnabert-s"],
        esm2=folders["esm2"],
        classifier=folder,
        dnabert_fingerprint=fingerprint(folders["dnabert-s"]),
        esm2_fingerprint=fingerprint(folders["esm2"]),
        classifier_fingerprint="",
        dnabert_dim=DnabertShape.read(folders["dnabert-s"]).width,
        esm2_dim=Esm2Shape.read(folders["esm2"]).width,
    )


def write_sample(home: Path, name: str, records: int, settings: SampleSettings) -> Sample:
    """Make a sample from `write_reads`, with its chunks and translations."""
    reads = home / f"{name}.fa"
    write_reads(reads, records)
    sample = register(home, name, [reads], settings)
    chunk_sample(sample)
    translate_sample(sample)
    return sample
