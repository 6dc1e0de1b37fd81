"""What a model folder says of itself without reading its weights: dimensions, names of its tensors, identity.

Needs no torch, so that commands that compute nothing stay quick. Nothing is unpickled.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from virnucpro_core.errors import WeightsError
from virnucpro_core.files.digests import sha256_file, sha256_json
from virnucpro_core.files.foreign_json import parse_json
from virnucpro_core.files.manifest import MANIFEST, read_manifest

# The ids of ESM-2's alphabet (tokenizers.py).
ESM2_VOCABULARY = 33
# In training, 15 % of the tokens were chosen and 80 % of these were masked. Inference scales by 1 - 0.15 * 0.8.
TOKEN_DROPOUT_SCALE = 0.88


@dataclass(frozen=True, slots=True)
class Esm2Shape:
    """The dimensions of a model, from its config.json."""

    layers: int
    width: int
    heads: int
    feed_forward: int
    eps: float
    embedding_scale: float

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises WeightsError for another kind of model or dimensions that do not fit together."""
        config = read_config(folder)
        expected = {
            "model_type": "esm",
            "vocab_size": ESM2_VOCABULARY,
            "position_embedding_type": "rotary",
            "emb_layer_norm_before": False,
            "hidden_act": "gelu",
        }
        for key, value in expected.items():
            found = config.get(key, value) or False
            if found != value:
                raise WeightsError(
                    f"{key} is {found!r}; ESM-2 has {value!r}", where=folder, remedy="use an ESM-2 model"
                )
        shape = cls(
            layers=positive(config, "num_hidden_layers", folder),
            width=positive(config, "hidden_size", folder),
            heads=positive(config, "num_attention_heads", folder),
            feed_forward=positive(config, "intermediate_size", folder),
            eps=float(config.get("layer_norm_eps", 1e-5)),
            embedding_scale=TOKEN_DROPOUT_SCALE if config.get("token_dropout", True) else 1.0,
        )
        if shape.width % (2 * shape.heads):
            raise WeightsError(
                f"width {shape.width} does not divide into {shape.heads} heads of even size",
                where=folder / "config.json",
                remedy="use the model's own config",
            )
        return shape

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Canonical name and shape of every tensor."""
        wide, narrow, vector = (self.feed_forward, self.width), (self.width, self.feed_forward), (self.width,)
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (ESM2_VOCABULARY, self.width)
        }
        for n in range(self.layers):
            layer = f"encoder.layer.{n}."
            for part in ("self.query", "self.key", "self.value", "output.dense"):
                shapes[f"{layer}attention.{part}.weight"] = (self.width, self.width)
                shapes[f"{layer}attention.{part}.bias"] = vector
            shapes |= {f"{layer}intermediate.dense.weight": wide, f"{layer}intermediate.dense.bias": wide[:1]}
            shapes |= {f"{layer}output.dense.weight": narrow, f"{layer}output.dense.bias": vector}
            for norm in ("attention.LayerNorm", "LayerNorm"):
                shapes |= {f"{layer}{norm}.weight": vector, f"{layer}{norm}.bias": vector}
        final = "encoder.emb_layer_norm_after"
        return shapes | {f"{final}.weight": vector, f"{final}.bias": vector}


@dataclass(frozen=True, slots=True)
class DnabertShape:
    """The dimensions of a model, from its config.json."""

    layers: int
    width: int
    heads: int
    feed_forward: int
    vocabulary: int
    token_types: int
    eps: float

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises WeightsError for another kind of model or dimensions that do not fit together."""
        config = read_config(folder)
        for key, value in {"model_type": "bert", "hidden_act": "gelu"}.items():
            if config.get(key, value) != value:
                raise WeightsError(
                    f"{key} is {config[key]!r}; DNABERT-S has {value!r}",
                    where=folder,
                    remedy="use a DNABERT-S model",
                )
        shape = cls(
            layers=positive(config, "num_hidden_layers", folder),
            width=positive(config, "hidden_size", folder),
            heads=positive(config, "num_attention_heads", folder),
            feed_forward=positive(config, "intermediate_size", folder),
            vocabulary=positive(config, "vocab_size", folder),
            token_types=positive(config, "type_vocab_size", folder),
            eps=float(config.get("layer_norm_eps", 1e-12)),
        )
        if shape.width % shape.heads:
            raise WeightsError(
                f"width {shape.width} does not divide into {shape.heads} heads",
                where=folder / "config.json",
                remedy="use the model's own config",
            )
        return shape

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Canonical name and shape of every tensor."""
        vector = (self.width,)
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (self.vocabulary, self.width),
            "embeddings.token_type_embeddings.weight": (self.token_types, self.width),
            "embeddings.LayerNorm.weight": vector,
            "embeddings.LayerNorm.bias": vector,
        }
        for n in range(self.layers):
            layer = f"encoder.layer.{n}."
            shapes |= {
                f"{layer}attention.self.Wqkv.weight": (3 * self.width, self.width),
                f"{layer}attention.self.Wqkv.bias": (3 * self.width,),
                f"{layer}attention.output.dense.weight": (self.width, self.width),
                f"{layer}mlp.gated_layers.weight": (2 * self.feed_forward, self.width),
                f"{layer}mlp.wo.weight": (self.width, self.feed_forward),
            }
            biased = ("attention.output.dense", "mlp.wo", "attention.output.LayerNorm", "mlp.layernorm")
            shapes |= {f"{layer}{part}.bias": vector for part in biased}
            shapes |= {f"{layer}{norm}.weight": vector for norm in biased[2:]}
        return shapes


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder. Raises WeightsError where it is missing or no JSON object."""
    path = folder / "config.json"
    try:
        config = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise WeightsError(
            "the model's config.json is missing", where=path, remedy="fetch or import the model"
        ) from None
    except ValueError as error:
        raise WeightsError(
            f"not JSON: {error}", where=path, remedy="fetch or import the model again"
        ) from None
    if not isinstance(config, dict):
        raise WeightsError("not a JSON object", where=path, remedy="fetch or import the model again")
    return config


def positive(config: Mapping[str, Any], key: str, folder: Path) -> int:
    """A positive integer of the config. Raises WeightsError naming the key."""
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise WeightsError(
            f"{key} is {value!r}, not a positive integer",
            where=folder / "config.json",
            remedy="use the model's own config",
        )
    return value


def fingerprint(folder: Path) -> str:
    """sha256 over the names and digests of config, weights and tokenizer: the identity of a model.

    The digests come from manifest.json where it lists every one of these files at its present size.
    """
    paths = [folder / "config.json", *weight_files(folder)]
    if (folder / "tokenizer.json").is_file():
        paths.append(folder / "tokenizer.json")
    listed = read_manifest(folder)["files"] if (folder / MANIFEST).exists() else {}
    digests = {}
    for path in sorted(paths):
        entry = listed.get(path.name, {})
        known = entry.get("bytes") == path.stat().st_size and isinstance(entry.get("sha256"), str)
        digests[path.name] = entry["sha256"] if known else sha256_file(path)
    return sha256_json(digests)


def weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        try:
            names = sorted({str(name) for name in parse_json(index.read_bytes())["weight_map"].values()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(
                "not an index of weight files", where=index, remedy="fetch or import the model again"
            ) from error
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise WeightsError(
                f"the model's weights {name!r} are missing", where=folder, remedy="fetch or import the model"
            )
    return [folder / name for name in names]


def values_in(path: Path) -> int:
    """Number of values of all tensors in a safetensors file. Reads only its header. Raises WeightsError."""
    try:
        with path.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            tensors = parse_json(stream.read(min(size, path.stat().st_size)))
        return sum(math.prod(t["shape"]) for name, t in tensors.items() if name != "__metadata__")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError("not a safetensors file", where=path, remedy="fetch the model again") from error
