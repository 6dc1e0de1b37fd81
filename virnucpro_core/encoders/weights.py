"""Reads the weights of a model folder (config.json and safetensors) under one set of tensor names.

Tables map the names of fair-esm, of Hugging Face (with or without `esm.`, `bert.`) and of older exports (gamma, beta)
to the Hugging Face names without prefix. Nothing is unpickled. Tensors are read one at a time from the memory-mapped
file directly to the device in the compute dtype.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from virnucpro_core.encoders.model_folder import weight_files
from virnucpro_core.errors import WeightsError

Table = tuple[tuple[str, str | None], ...]

# (pattern of a whole name, its canonical name or None where the encoder has no use for it). The first match
# counts.
ESM2_NAMES: Table = (
    # fair-esm
    (r"layers\.(\d+)\.self_attn\.q_proj\.(.+)", r"encoder.layer.\1.attention.self.query.\2"),
    (r"layers\.(\d+)\.self_attn\.k_proj\.(.+)", r"encoder.layer.\1.attention.self.key.\2"),
    (r"layers\.(\d+)\.self_attn\.v_proj\.(.+)", r"encoder.layer.\1.attention.self.value.\2"),
    (r"layers\.(\d+)\.self_attn\.out_proj\.(.+)", r"encoder.layer.\1.attention.output.dense.\2"),
    (r"layers\.(\d+)\.self_attn_layer_norm\.(.+)", r"encoder.layer.\1.attention.LayerNorm.\2"),
    (r"layers\.(\d+)\.fc1\.(.+)", r"encoder.layer.\1.intermediate.dense.\2"),
    (r"layers\.(\d+)\.fc2\.(.+)", r"encoder.layer.\1.output.dense.\2"),
    (r"layers\.(\d+)\.final_layer_norm\.(.+)", r"encoder.layer.\1.LayerNorm.\2"),
    (r"embed_tokens\.weight", r"embeddings.word_embeddings.weight"),
    (r"emb_layer_norm_after\.(.+)", r"encoder.emb_layer_norm_after.\1"),
    # tables that are computed, and heads that the embedding does not need
    (r"(.+\.)?(inv_freq|position_ids)", None),
    (r"embeddings\.position_embeddings\.weight", None),
    (r"(contact_head|lm_head|pooler)\..+", None),
    # Hugging Face
    (r"(embeddings\.word_embeddings\.weight|encoder\..+)", r"\1"),
)
DNABERT_NAMES: Table = (
    (r"(.+\.)?position_ids", None),
    (r"(cls|pooler)\..+", None),
    (r"((?:embeddings|encoder)\..+)", r"\1"),
)
_ESM2_PREFIX = re.compile(
    r"^(esm\.|encoder\.sentence_encoder\.|encoder\.(?=layers\.|embed_tokens\.|lm_head\.))"
)
_DNABERT_PREFIX = re.compile(r"^bert\.")
_OLD_NORM = {"gamma": "weight", "beta": "bias"}
_FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


def map_esm2_names(names: Iterable[str]) -> dict[str, str]:
    """Canonical name -> stored name, of fair-esm or Hugging Face. Raises WeightsError for unknown names."""
    return _map(names, _ESM2_PREFIX, ESM2_NAMES)


def map_dnabert_names(names: Iterable[str]) -> dict[str, str]:
    """Canonical name -> stored name, for DNABERT-S and DNABERT-2. Raises WeightsError for unknown names."""
    return _map(names, _DNABERT_PREFIX, DNABERT_NAMES)


class Weights:
    """The tensors of one model folder by canonical name, opened lazily. See `open_weights`."""

    def __init__(self, folder: Path, stored: dict[str, tuple[Any, Path, str]]) -> None:
        self.folder = folder
        self._stored = stored

    def read(
        self, name: str, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """One tensor on `device` in `dtype`. Raises WeightsError where a value is not finite in it."""
        handle, path, stored = self._stored[name]
        tensor: torch.Tensor = handle.get_tensor(stored).to(device).to(dtype)
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsError(
                f"tensor {stored!r} has NaN, infinite or too large values for {str(dtype)[6:]}",
                where=path,
                remedy="fetch or import the model again, or use float32",
            )
        return tensor


def open_weights(
    folder: Path,
    rename: Callable[[Iterable[str]], dict[str, str]],
    shapes: Mapping[str, tuple[int, ...]],
) -> Weights:
    """Open model.safetensors (or its shards, by model.safetensors.index.json) and compare it with `shapes`.

    Raises WeightsError naming the first tensor that is missing, extra, of another shape or of no float dtype.
    """
    files: dict[str, tuple[Any, Path]] = {}
    for path in weight_files(folder):
        try:
            handle: Any = safe_open(str(path), framework="pt")
        except (SafetensorError, OSError) as error:
            raise WeightsError(
                f"not a readable safetensors file: {error}",
                where=path,
                remedy="fetch or import the model again",
            ) from None
        files.update(dict.fromkeys(handle.keys(), (handle, path)))
    try:
        stored = {name: (*files[old], old) for name, old in rename(files).items()}
    except WeightsError as error:
        raise WeightsError(error.what, where=folder, remedy=error.remedy) from None
    _same_names(folder, set(stored), set(shapes))
    for name, (handle, path, old) in stored.items():
        found = handle.get_slice(old)
        shape = tuple(found.get_shape())
        if shape != tuple(shapes[name]) or found.get_dtype() not in _FLOATS:
            raise WeightsError(
                f"tensor {old!r} is {found.get_dtype()} {shape}, expected float {tuple(shapes[name])}",
                where=path,
                remedy="config.json and weights must be of the same model",
            )
    return Weights(folder, stored)


def _map(names: Iterable[str], prefix: re.Pattern[str], table: Table) -> dict[str, str]:
    canonical: dict[str, str] = {}
    for stored in names:
        name = prefix.sub("", stored)
        stem, _, last = name.rpartition(".")
        if last in _OLD_NORM:
            name = f"{stem}.{_OLD_NORM[last]}"
        target = _canonical(name, stored, table)
        if target is None:
            continue
        if target in canonical:
            raise WeightsError(
                f"tensors {canonical[target]!r} and {stored!r} are the same weight",
                remedy="remove one of them",
            )
        canonical[target] = stored
    return canonical


def _canonical(name: str, stored: str, table: Table) -> str | None:
    for pattern, target in table:
        match = re.fullmatch(pattern, name)
        if match:
            return None if target is None else match.expand(target)
    raise WeightsError(f"unknown tensor {stored!r}", remedy="is this a model of this kind?")


def _same_names(folder: Path, found: set[str], expected: set[str]) -> None:
    for what, names in (("missing", expected - found), ("not of this model", found - expected)):
        if names:
            raise WeightsError(
                f"tensor {min(names)!r} is {what} ({len(names)} in all)",
                where=folder,
                remedy="config.json and weights must be of the same model",
            )
