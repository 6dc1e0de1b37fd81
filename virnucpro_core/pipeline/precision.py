"""Check that stored embeddings agree with float32: compute a few rows of a lane again and compare them.

The rows are stratified by length and computed by the reference operations (`Encoder.embed` with float32), usually in
one batch, so that each layer is upcast only once. The check also finds rows that belong to another frame, because the
recomputed vector would differ. The model is loaded in the compute type (float16 if the lane computed in fp8, whose
weights are rounded once more) and upcast layer by layer, so that no second copy of it is needed.

Shapes: N audited rows, D width.
"""

import functools
import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from virnucpro_core.devices.compute import Compute
from virnucpro_core.devices.cuda import DTYPES, usable_device
from virnucpro_core.encoders.loaded import verified_encoder
from virnucpro_core.pipeline.ahead import on_device
from virnucpro_core.pipeline.audit import Finding
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.samples.products import Embedding

NAME = "precision_holds"
AUDITED_ROWS = 8
# Fewer rows are checked for a small lane, or the check would cost as much as the lane.
ROWS_AN_AUDITED_ROW = 200
# Smallest allowed cosine to float32 over the audited rows.
THRESHOLDS = {"float32": 0.99999, "float16": 0.9999, "fp8": 0.995}


@dataclass(frozen=True)
class Audited:
    """Stored rows of a lane that are to be compared: their places, their unique frames (N,), their values (N, D)."""

    lane: Lane
    places: list[tuple[int, int]]
    frames_N: list[int]
    stored_ND: NDArray[np.float32]


def rows_to_audit(lane: Lane, product: Embedding) -> Audited:
    """Read the rows of the lane that are to be compared. Raises StoreError, OSError."""
    places = [] if lane.profile.imported else _places(lane)
    width = lane.encoder(product).width
    stored = [_stored(lane, product, shard, row) for shard, row in places]
    frames = [int(lane.frames.shard(shard, lane.n_shards)[row]) for shard, row in places]
    return Audited(lane, places, frames, np.array(stored, np.float32).reshape(len(places), width))


def audit_precision(lane: Lane, product: Embedding, compute: Compute) -> Finding:
    """Compare stored rows with float32 by cosine; fails below the precision's threshold.

    Raises DeviceError, WeightsError, StoreError, OSError.
    """
    return audit_together([rows_to_audit(lane, product)], product, compute)[0]


def audit_together(audited: Sequence[Audited], product: Embedding, compute: Compute) -> list[Finding]:
    """As `audit_precision`, a finding for each lane. Lanes with one model and one precision share a pass."""
    findings: dict[int, Finding] = {}
    shared: dict[Hashable, list[int]] = {}
    for number, one in enumerate(audited):
        if one.lane.profile.imported:
            what = "imported: these rows were not computed here, and are not compared"
            facts: dict[str, Any] = {"rows": 0, "imported": one.lane.profile.imported}
            findings[number] = Finding(NAME, passed=True, what=what, facts=facts)
        elif not one.places:
            findings[number] = Finding(NAME, passed=True, what="the lane has no rows", facts={"rows": 0})
        else:
            shared.setdefault(_model(one.lane, product), []).append(number)
    for numbers in shared.values():
        together = [audited[number] for number in numbers]
        rows = on_device(functools.partial(_in_float32, together, product, compute))
        for number, float32_ND in zip(numbers, rows, strict=True):
            findings[number] = _compared(audited[number], product, float32_ND)
    return [findings[number] for number in range(len(audited))]


def _model(lane: Lane, product: Embedding) -> Hashable:
    """What decides how the lane's encoder is loaded."""
    return lane.encoder(product), lane.precision(product), lane.kernel(product), lane.sample.settings.overlong


def _in_float32(
    audited: Sequence[Audited], product: Embedding, compute: Compute
) -> list[NDArray[np.float32]]:
    """The frames of each lane, computed again: (N, D) each. All lanes have the same model."""
    lane = audited[0].lane
    precision, files = lane.precision(product), lane.encoder(product)
    sequences: list[bytes] = []
    for one in audited:
        strings = one.lane.frames.nucleotides if files.kind == "dnabert-s" else one.lane.frames.proteins
        sequences += strings.take(np.asarray(one.frames_N))
    with compute.held() as name:
        encoder = verified_encoder(
            files.kind,
            files.folder,
            device=usable_device(name, precision),
            dtype=DTYPES["float16" if precision == "fp8" else precision],
            attention=lane.kernel(product),
            overlong=lane.sample.settings.overlong,
        )
        float32_ND = encoder.embed(sequences, float32=True)
    ends = list(itertools.accumulate(len(one.frames_N) for one in audited))
    return np.split(float32_ND, ends[:-1])


def _compared(audited: Audited, product: Embedding, float32_ND: NDArray[np.float32]) -> Finding:
    lane, precision = audited.lane, audited.lane.precision(product)
    cosine_N = cosine(audited.stored_ND, float32_ND)
    distance = np.linalg.norm(audited.stored_ND - float32_ND) / np.linalg.norm(float32_ND)
    lengths = sorted(int(lane.frames.protein_lengths[f]) for f in audited.frames_N)
    return Finding(
        NAME,
        passed=bool(cosine_N.min() >= THRESHOLDS[precision]),
        what=f"{len(audited.places)} rows computed again in float32, cosine at least {THRESHOLDS[precision]}",
        facts={
            "rows": len(audited.places),
            "least_cosine": float(cosine_N.min()),
            "relative_l2": float(distance),
            "residues": f"{lengths[0]} to {lengths[-1]}",
            "precision": precision,
        },
    )


def cosine(a_ND: NDArray[np.float32], b_ND: NDArray[np.float32]) -> NDArray[np.float64]:
    """Row by row, (N,) float64; 0 where a row is all zeros."""
    a, b = a_ND.astype(np.float64), b_ND.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine_N: NDArray[np.float64] = np.divide(
        (a * b).sum(axis=1), norms, out=np.zeros(len(a)), where=norms > 0
    )
    return cosine_N


def _places(lane: Lane) -> list[tuple[int, int]]:
    """(shard, row): rows from the shortest to the longest sequence, from shards spread over the lane."""
    shards = list(lane.shards)
    audited = min(AUDITED_ROWS, max(2, lane.rows(shards) // ROWS_AN_AUDITED_ROW))
    places = []
    for step in range(audited if shards else 0):
        shard = shards[step * len(shards) // audited]
        last = len(lane.frames.shard(shard, lane.n_shards)) - 1
        places.append((shard, step * last // (audited - 1)))
    return sorted(set(places))


def _stored(lane: Lane, product: Embedding, shard: int, row: int) -> NDArray[np.float32]:
    store = lane.store(product)
    with h5py.File(store.path(shard), "r") as file:
        return np.asarray(file[store.dataset][row], dtype=np.float32)
