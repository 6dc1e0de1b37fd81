"""Convert published model files to a model folder: config.json, model.safetensors, tokenizer.json, manifest.json.

Reads the layouts in which models are published (fair-esm `.pt`, Hugging Face folders, the published classifier
`.pth`) and writes one layout with canonical names. Nothing is unpickled, and no code of a repository is kept. The
same weights give the same bytes, whichever layout they were published in.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from virnucpro_core.encoders.model_folder import DnabertShape, Esm2Shape, read_config
from virnucpro_core.encoders.weights import map_dnabert_names, map_esm2_names, open_weights
from virnucpro_core.errors import WeightsError
from virnucpro_core.files import manifest
from virnucpro_core.files.digests import sha256_file
from virnucpro_core.files.foreign_json import parse_json
from virnucpro_core.files.publish import no_check, publish_folder, publish_json
from virnucpro_core.files.safetensors import TensorSource, write_tensors
from virnucpro_core.models.checkpoints import attributes, read_checkpoint, read_sources
from virnucpro_core.models.classifier import Classifier, load_classifier
from virnucpro_core.models.sources import ModelKind
from virnucpro_core.models.store import MODEL_FILES

# The fields of config.json that the encoders use; all others (remote code, training settings) are dropped.
ESM2_CONFIG: dict[str, Any] = {
    "model_type": "esm",
    "vocab_size": 33,
    "num_hidden_layers": None,
    "hidden_size": None,
    "num_attention_heads": None,
    "intermediate_size": None,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "position_embedding_type": "rotary",
    "emb_layer_norm_before": False,
    "token_dropout": True,
}
DNABERT_CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": None,
    "type_vocab_size": 2,
    "num_hidden_layers": None,
    "hidden_size": None,
    "num_attention_heads": None,
    "intermediate_size": None,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the files came from; written to the manifest."""

    source: str = "imported by hand"
    revision: str = ""
    licence: str = ""
    note: str = ""


def import_model(
    kind: ModelKind,
    path: Path,
    out: Path,
    *,
    dtype: torch.dtype | None = None,
    origin: Origin | None = None,
    chunk_size: int | None = None,
    check: Callable[[], None] = no_check,
) -> Path:
    """Convert `path` (a file or a folder) into the model folder `out`, and return `out`.

    `dtype` of the stored encoder weights: as in the file if None. `chunk_size`: bases that a classifier was
    trained on. `check`: called just before the folder appears. Raises WeightsError naming file and tensor: missing,
    extra, of another shape, not finite.
    """
    if not path.exists():
        raise WeightsError("no such file or folder", where=path)
    with publish_folder(out, check) as folder:
        if kind == "classifier":
            classifier = _read_classifier(path, chunk_size)
            classifier.save(folder)
            numbers = {k: v for k, v in classifier.config().items() if k not in ("model_type", "classes")}
            numbers["parameters"] = (
                sum(t.numel() for n, t in classifier.state.items() if "running" not in n) - 1
            )
        else:
            numbers = _import_encoder(kind, path, folder, dtype)
        write_model_manifest(folder, kind, origin or Origin(), {**numbers, "imported_files": _digests(path)})
    return out


def write_model_manifest(folder: Path, kind: str, origin: Origin, numbers: Mapping[str, Any]) -> None:
    """Write `manifest.json`: kind, origin and numbers of the model, and size and sha256 of every file."""
    facts = {
        "kind": kind,
        "source": origin.source,
        "revision": origin.revision,
        "licence": origin.licence,
        "note": origin.note,
        **numbers,
    }
    manifest.write_manifest(folder, (file for file in folder.iterdir() if file.name in MODEL_FILES), facts)


def _import_encoder(kind: ModelKind, path: Path, folder: Path, dtype: torch.dtype | None) -> dict[str, Any]:
    rename = map_esm2_names if kind == "esm2" else map_dnabert_names
    try:
        stored, config = _read_folder(path) if path.is_dir() else _read_fair_esm(kind, path)
        tensors = {name: stored[old] for name, old in rename(stored).items()}
        known = ESM2_CONFIG if kind == "esm2" else DNABERT_CONFIG
        config = {key: config[key] if config.get(key) is not None else known[key] for key in known}
        publish_json(folder / "config.json", config)
        shape = (Esm2Shape if kind == "esm2" else DnabertShape).read(folder)
        parameters = write_tensors(folder / "model.safetensors", tensors, dtype)
        open_weights(folder, rename, shape.tensors())
    except WeightsError as error:
        is_named = error.where and not error.where.startswith(str(folder))  # `folder` is temporary
        where = error.where if is_named else path
        raise WeightsError(error.what, where=where, remedy=error.remedy) from error
    if kind == "dnabert-s":
        if not (path / "tokenizer.json").is_file():
            raise WeightsError(
                "no tokenizer.json next to the weights", where=path, remedy="add the model's own"
            )
        shutil.copyfile(path / "tokenizer.json", folder / "tokenizer.json")
    return {
        "layers": shape.layers,
        "dim": shape.width,
        "heads": shape.heads,
        "parameters": parameters,
        "dtypes": sorted({str(dtype or t.dtype).removeprefix("torch.") for t in tensors.values()}),
    }


def _read_folder(path: Path) -> tuple[dict[str, TensorSource], dict[str, Any]]:
    """A Hugging Face folder: its tensors by stored name, and its config."""
    stored: dict[str, TensorSource] = {}
    for file in _weight_files(path):
        stored |= _read_safetensors(file) if file.suffix == ".safetensors" else _read_bin(file)
    return stored, read_config(path)


def _weight_files(path: Path) -> list[Path]:
    """model.safetensors or its shards, else pytorch_model.bin or its shards."""
    for whole in ("model.safetensors", "pytorch_model.bin"):
        index, names = path / f"{whole}.index.json", [whole]
        if index.is_file():
            names = _shards(index)
        elif not (path / whole).is_file():
            continue
        for name in names:
            if Path(name).name != name or not (path / name).is_file():
                raise WeightsError(
                    f"the weight file {name!r} is missing", where=path, remedy="fetch it again"
                )
        return [path / name for name in names]
    raise WeightsError("neither model.safetensors nor pytorch_model.bin in it", where=path)


def _shards(index: Path) -> list[str]:
    """File names of an index.json."""
    try:
        return sorted({str(name) for name in parse_json(index.read_bytes())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError("not an index of weight files", where=index, remedy="fetch it again") from error


def _read_safetensors(path: Path) -> dict[str, TensorSource]:
    try:
        handle: Any = safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"not a readable safetensors file: {error}", where=path) from error

    def source(name: str) -> TensorSource:
        piece = handle.get_slice(name)
        shape = tuple(piece.get_shape())
        start = (
            piece[:0] if shape else handle.get_tensor(name)
        )  # only for the dtype; the values are read later
        return TensorSource(shape, start.dtype, lambda: handle.get_tensor(name))

    return {name: source(name) for name in handle.keys()}  # noqa: SIM118


def _read_bin(path: Path) -> dict[str, TensorSource]:
    return read_sources(path)[2]


def _read_fair_esm(kind: ModelKind, path: Path) -> tuple[dict[str, TensorSource], dict[str, Any]]:
    """Tensors and config of a fair-esm `.pt`: dimensions from the shapes, heads from cfg or the rotary table."""
    if kind != "esm2" or path.suffix not in (".pt", ".pth", ".bin"):
        raise WeightsError(
            "a single file is not enough for this model" if kind != "esm2" else "not a fair-esm .pt file",
            where=path,
            remedy="give the folder that holds config.json and the weights",
        )
    structure, state, sources = read_sources(path)
    canonical = map_esm2_names(state)
    settings = attributes(attributes(attributes(structure).get("cfg")).get("model"))
    layers = len([name for name in canonical if name.endswith("attention.self.query.weight")])
    up = state.get(canonical.get("encoder.layer.0.intermediate.dense.weight", ""))
    rotary = next((t for name, t in state.items() if name.endswith("rot_emb.inv_freq")), None)
    if up is None or up.ndim != 2:
        raise WeightsError("no ESM-2 layers in it", where=path, remedy="give an ESM-2 model (esm2_t*.pt)")
    heads = settings.get("encoder_attention_heads")
    if heads is None and rotary is not None and rotary.numel():
        heads = up.shape[1] // (2 * rotary.numel())
    if not isinstance(heads, int):
        raise WeightsError(
            "the number of attention heads is not in it", where=path, remedy="import the Hugging Face folder"
        )
    config = {
        "num_hidden_layers": layers,
        "hidden_size": up.shape[1],
        "intermediate_size": up.shape[0],
        "num_attention_heads": heads,
        "token_dropout": settings.get("token_dropout", True),
    }
    return sources, config


def _read_classifier(path: Path, chunk_size: int | None) -> Classifier:
    cpu = torch.device("cpu")
    if path.is_dir():
        return load_classifier(path, cpu)
    state = read_checkpoint(path)[1]
    try:
        return Classifier(state, device=cpu, chunk_size=chunk_size)
    except WeightsError as error:
        raise WeightsError(error.what, where=path, remedy=error.remedy) from error


def _digests(path: Path) -> dict[str, str]:
    """sha256 of the files that were read."""
    files = [path] if path.is_file() else [path / "config.json", *_weight_files(path)]
    return {file.name: sha256_file(file) for file in files}
