"""Reads the feature files of the published tool and of its fork as data: nothing in them is executed.

`*_DNABERT_S.pt`: {'nucleotide': ids, 'data': [{'label': id, 'mean_representation': 768 numbers}, ...]}.
`*_ESM.pt`: {'proteins': ids, 'data': [2,560 numbers, ...]}, each a tensor, or a dict as above.
`*_merged.pt`: {'ids': ids, 'data': (n, 3328) tensor}, DNABERT-S's columns first.

Shapes: N vectors, D columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from virnucpro_core.errors import WeightsError
from virnucpro_core.models.checkpoints import OpenCheckpoint, attributes

FeatureKind = Literal["dnabert-s", "esm2", "merged"]
SUFFIXES: dict[str, FeatureKind] = {"_DNABERT_S.pt": "dnabert-s", "_ESM.pt": "esm2", "_merged.pt": "merged"}
WIDTHS: dict[FeatureKind, int] = {"dnabert-s": 768, "esm2": 2560, "merged": 768 + 2560}
_IDS: dict[FeatureKind, str] = {"dnabert-s": "nucleotide", "esm2": "proteins", "merged": "ids"}
# A file of 10,000 lists of 768 numbers has a pickle of 70 MB.
LARGEST_PICKLE = 1 << 30
_REMEDY = "leave the file out, or make it again with the tool that wrote it"


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """The vectors of one file: `ids` (N,) and `values` (N, D) float32."""

    path: Path
    kind: FeatureKind
    ids: list[str]
    values: NDArray[np.float32]

    def by_encoder(self) -> dict[str, NDArray[np.float32]]:
        """The vectors of each encoder in the file: `dnabert-s` (N, 768), `esm2` (N, 2560), or both."""
        if self.kind != "merged":
            return {self.kind: self.values}
        split = WIDTHS["dnabert-s"]
        return {"dnabert-s": self.values[:, :split], "esm2": self.values[:, split:]}


def kind_of(path: Path) -> FeatureKind | None:
    """Which features a file of this name holds; None for other files."""
    return next((kind for suffix, kind in SUFFIXES.items() if path.name.endswith(suffix)), None)


def read_features(path: Path, kind: FeatureKind) -> FeatureFile:
    """Read one file. Raises WeightsError, with path and place, for anything but the form above.

    Refused are files with fewer vectors than ids (a known fault of the published merge: ids and rows are then shifted),
    vectors of another length, and values that are not finite.
    """
    try:
        return _read(path, kind)
    except WeightsError as error:
        raise WeightsError(error.what, where=path, remedy=error.remedy or _REMEDY) from error


def _read(path: Path, kind: FeatureKind) -> FeatureFile:
    checkpoint = OpenCheckpoint(path, largest_pickle=LARGEST_PICKLE)
    found = attributes(checkpoint.structure)
    ids, data = found.get(_IDS[kind]), found.get("data")
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
        raise WeightsError(f"no list {_IDS[kind]!r} of ids in it")
    rows: Sequence[Any]
    if kind == "merged":
        tensor = checkpoint.tensor(data)
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2:
            raise WeightsError("no matrix 'data' in it")
        rows = [tensor]
        count = len(tensor)
    else:
        if not isinstance(data, list):
            raise WeightsError("no list 'data' of vectors in it")
        rows, count = data, len(data)
    if count != len(ids):
        raise WeightsError(
            f"{len(ids):,} ids, but {count:,} vectors: it is not known which vector is whose",
            remedy="use the *_DNABERT_S.pt and *_ESM.pt files, without this one" if kind == "merged" else "",
        )
    if kind == "merged":
        values_ND = rows[0].float().numpy().copy()
    else:
        values_ND = np.empty((count, WIDTHS[kind]), np.float32)
        for row, entry in enumerate(rows):
            values_ND[row] = _vector(checkpoint, entry, ids[row], WIDTHS[kind])
    if values_ND.shape[1:] != (WIDTHS[kind],):
        raise WeightsError(f"vectors of {values_ND.shape[1]:,} numbers, {WIDTHS[kind]:,} are expected")
    bad = np.flatnonzero(~np.isfinite(values_ND).all(axis=1))
    if len(bad):
        raise WeightsError(f"the vector of {ids[bad[0]][:80]!r} has values that are not finite")
    return FeatureFile(path, kind, ids, values_ND)


def _vector(checkpoint: OpenCheckpoint, entry: Any, name: str, width: int) -> NDArray[np.float32]:
    """One vector, from a tensor, or from a dict with `label` and `mean_representation`."""
    if isinstance(entry, dict):
        if entry.get("label", name) != name:
            raise WeightsError(f"the vector of {name[:80]!r} is labelled {str(entry.get('label'))[:80]!r}")
        entry = entry.get("mean_representation")
    value = checkpoint.tensor(entry)
    if isinstance(value, torch.Tensor):
        found = value.float().numpy()
    elif isinstance(value, list) and all(type(number) in (float, int) for number in value):
        found = np.array(value, np.float32)
    else:
        raise WeightsError(f"the vector of {name[:80]!r} is neither a tensor nor a list of numbers")
    if found.shape != (width,):
        raise WeightsError(
            f"the vector of {name[:80]!r} has shape {found.shape}, {width:,} numbers are expected"
        )
    return found
