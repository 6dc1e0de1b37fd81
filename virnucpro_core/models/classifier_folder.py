"""A classifier's folder: `config.json` and `model.safetensors`, read and checked without torch.

Shapes: D = DNABERT-S width + ESM-2 width, H hidden units, 2 classes.
"""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from virnucpro_core.errors import WeightsError
from virnucpro_core.files.foreign_json import parse_json

CLASSES = ("others", "virus")
MODEL_TYPE = "virnucpro-classifier"
# safetensors' names of dtypes, and numpy's.
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}
# Of one tensor: dtype and shape.
Facts = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class ClassifierWeights:
    """The values of a classifier by the published names, and the chunk size (bases) of its training (None: unknown).

    Raises WeightsError if they are not a classifier's, or not finite.
    """

    state: Mapping[str, npt.NDArray[Any]]
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        dimensions({name: (values.dtype.name, values.shape) for name, values in self.state.items()})
        for name in sorted(self.state):
            if not np.isfinite(self.state[name]).all():
                raise WeightsError(f"classifier weights: {name!r} has values that are not finite")

    @property
    def input_dim(self) -> int:
        """D: features of a row."""
        return int(self.state["hidden_layer.weight"].shape[1])

    @property
    def hidden_dim(self) -> int:
        """H: hidden units."""
        return int(self.state["hidden_layer.weight"].shape[0])

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of names, shapes and values. It does not depend on the files they came from."""
        digest = hashlib.sha256()
        for name in sorted(self.state):
            values = self.state[name]
            digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
            digest.update(values.tobytes())
        return digest.hexdigest()

    def config(self) -> dict[str, Any]:
        """The content of `config.json`."""
        return {
            "model_type": MODEL_TYPE,
            "input_dim": self.input_dim,
            "hidden_dim": self.hidden_dim,
            "classes": list(CLASSES),
            "chunk_size": self.chunk_size,
        }


def read_classifier(folder: Path) -> ClassifierWeights:
    """Read a classifier's folder. Raises WeightsError if it is missing, damaged or inconsistent."""
    try:
        config = parse_json((folder / "config.json").read_bytes())
        state = _read(folder / "model.safetensors")
    except FileNotFoundError as error:
        raise WeightsError(
            f"no file {Path(error.filename).name}",
            where=folder,
            remedy="a classifier folder holds config.json and model.safetensors",
        ) from error
    except (SafetensorError, ValueError) as error:
        raise WeightsError(
            f"damaged classifier file ({error})", where=folder, remedy="import it again"
        ) from error
    if not isinstance(config, dict) or config.get("model_type") != MODEL_TYPE:
        raise WeightsError(f"config.json does not say model_type {MODEL_TYPE!r}", where=folder)
    weights = ClassifierWeights(state, chunk_size=config.get("chunk_size"))
    if weights.config() != config:
        raise WeightsError(
            f"config.json says {config}, the weights say {weights.config()}",
            where=folder,
            remedy="import it again",
        )
    return weights


def dimensions(facts: Mapping[str, Facts]) -> tuple[int, int]:
    """(D, H) of the tensors of a classifier. Raises WeightsError for the first that is missing, extra or misshapen."""
    kind, shape = facts.get("hidden_layer.weight", ("", ()))
    if len(shape) != 2:
        raise WeightsError(
            "not the published classifier: no matrix 'hidden_layer.weight'",
            remedy="give 300_model.pth, 500_model.pth or a classifier trained here",
        )
    hidden_dim, input_dim = shape
    expected = _expected(input_dim, hidden_dim)
    for name in sorted(expected.keys() | facts.keys()):
        if name not in facts or name not in expected:
            raise WeightsError(
                f"classifier weights: key {name!r} is {'extra' if name in facts else 'missing'}"
            )
        if facts[name] != expected[name]:
            (kind, shape), (want, wanted) = facts[name], expected[name]
            raise WeightsError(
                f"classifier weights: {name!r} is {kind} {tuple(shape)}, expected {want} {wanted}"
            )
    return input_dim, hidden_dim


def _expected(input_dim: int, hidden_dim: int) -> dict[str, Facts]:
    """Linear(D, H), BatchNorm1d and Linear(H, 2), by the published names."""
    vector = (hidden_dim,)
    shapes = {
        "hidden_layer.weight": (hidden_dim, input_dim),
        "output_layer.weight": (len(CLASSES), hidden_dim),
        "output_layer.bias": (len(CLASSES),),
        **dict.fromkeys(("hidden_layer.bias", "bn1.weight", "bn1.bias"), vector),
        **dict.fromkeys(("bn1.running_mean", "bn1.running_var"), vector),
    }
    return {name: ("float32", shape) for name, shape in shapes.items()} | {
        "bn1.num_batches_tracked": ("int64", ())
    }


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of the file, after their dtypes and shapes were found to be a classifier's."""
    path.stat()  # a missing file is a FileNotFoundError with its name
    with safe_open(str(path), framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        dimensions(
            {
                name: (_DTYPES.get(one.get_dtype(), one.get_dtype()), tuple(one.get_shape()))
                for name, one in slices.items()
            }
        )
        return {name: file.get_tensor(name) for name in sorted(slices)}
