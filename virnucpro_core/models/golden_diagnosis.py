"""Says what is wrong with a model that does not give the golden answers: tries known faults against these answers.

Each hypothesis is computed and compared; only one that explains the difference is reported as the cause. What was
merely noticed is reported as such.

Shapes: N frames, D columns, T tokens.
"""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from virnucpro_core.encoders.batches import Room
from virnucpro_core.encoders.encoder import Encoder, load_encoder
from virnucpro_core.encoders.esm2 import Esm2Model
from virnucpro_core.encoders.model_folder import DnabertShape, Esm2Shape
from virnucpro_core.encoders.packing import pack_shard
from virnucpro_core.models.classifier import Classifier
from virnucpro_core.models.golden import (
    BOUNDS,
    CLASSIFIER_BOUND,
    Golden,
    Shape,
    Vectors,
    largest_difference,
)

# Matrices whose values are looked at for rounding, from the middle of the model, and rows of each.
LOOKED_AT, ROWS = 4, 64
EXPLAINED = BOUNDS["float32"].vectors
_UNKNOWN = "none of the known faults explains it: it is probably another model or revision; fetch it again"


def diagnose_encoder(golden: Golden, encoder: Encoder) -> str:
    """The fault of an encoder whose vectors differ, in words. Computes again in float32 on the encoder's device."""
    return next(filter(None, _hypotheses(golden, encoder)), _UNKNOWN)


def _hypotheses(golden: Golden, encoder: Encoder) -> Iterator[str]:
    """What each hypothesis says, "" where it does not explain the vectors; the cheap ones first."""
    kind, folder = encoder.kind, encoder.folder
    stored_ND, shape = golden.vectors[kind], _shape(encoder)
    yield _differing_shape(shape, golden.shapes[kind])
    reference = encoder
    if encoder.dtype != torch.float32:
        reference = load_encoder(kind, folder, device=encoder.device, dtype="float32")
    exact_ND = reference.embed(golden.sequences(kind))
    if largest_difference(exact_ND, stored_ND) <= EXPLAINED:
        yield "the weights are right: in float32 the vectors agree, so the loss is of the chosen precision"
    yield _row_order(exact_ND, stored_ND)
    yield _column_order(exact_ND, stored_ND)
    explained, noticed = _tokenizer(golden, reference) if kind == "dnabert-s" else ("", "")
    yield explained
    for layers in range(shape.layers - 1, 0, -1):
        if largest_difference(_embedded_by(reference, golden, layers), stored_ND) <= EXPLAINED:
            yield f"wrong layer: the published vectors are those after layer {layers} of this model's {shape.layers}"
    if rounding := rounded_weights(folder):
        yield f"the weights were rounded: {rounding}; fetch the published ones"
    yield noticed


def diagnose_classifier(golden: Golden, folder: Path, classifier: Classifier) -> str:
    """The fault of a classifier whose scores differ, in words."""
    features_ND = golden.features()
    if classifier.input_dim != features_ND.shape[1]:
        return f"it takes {classifier.input_dim} columns, the published one takes {features_ND.shape[1]}"
    dnabert_ND, esm2_ND = golden.vectors["dnabert-s"], golden.vectors["esm2"]
    swapped_ND = np.concatenate([esm2_ND, dnabert_ND], axis=1)
    exchanged = "its two outputs are exchanged: the first is virus, the second others"
    swapped = "its two blocks of columns are swapped: it takes ESM-2's first and DNABERT-S's second"
    for score_N2, words in (
        (classifier.score(features_ND)[:, ::-1], exchanged),
        (classifier.score(swapped_ND), swapped),
        (classifier.score(swapped_ND)[:, ::-1], f"{swapped}; and {exchanged}"),
    ):
        if np.abs(score_N2 - golden.scores_N2).max() <= CLASSIFIER_BOUND:
            return words
    if classifier.chunk_size not in (None, 500):
        return (
            f"it is the classifier for chunks of {classifier.chunk_size} bases; the stored scores are for 500"
        )
    if rounding := rounded_weights(folder):
        return f"the weights were rounded: {rounding}; fetch the published ones"
    return _UNKNOWN


def rounded_weights(folder: Path) -> str:
    """Whether the stored weights have only the values of an 8-bit or 16-bit type: `bfloat16`, ...; "" if not.

    An 8-bit type with a scale for each row or matrix has at most 256 values in a row; a row of true weights hardly has
    the same value twice.
    """
    with safe_open(str(folder / "model.safetensors"), framework="pt") as stored:
        names = [name for name in stored.keys() if len(stored.get_slice(name).get_shape()) == 2]  # noqa: SIM118
        matrices = [name for name in names if "embeddings" not in name]
        middle = max(0, (len(matrices) - LOOKED_AT) // 2)
        looked_at = [stored.get_slice(name)[:ROWS].float() for name in matrices[middle : middle + LOOKED_AT]]
    if not looked_at:
        return ""
    rows = [row for matrix in looked_at for row in matrix]
    distinct = [len(row.unique()) for row in rows]
    repeated = sum(d < 0.7 * len(row) for d, row in zip(distinct, rows, strict=True))
    if max(distinct) <= 256 and repeated > len(rows) // 2:
        return f"a row has at most {max(distinct)} different values, as in fp8 or int8"
    if all(torch.equal(matrix, matrix.bfloat16().float()) for matrix in looked_at):
        return "all values are bfloat16"
    return ""


def _shape(encoder: Encoder) -> Shape:
    read = Esm2Shape.read if encoder.kind == "esm2" else DnabertShape.read
    shape: Any = read(encoder.folder)
    return Shape(shape.layers, shape.width, shape.heads)


def _differing_shape(found: Shape, wanted: Shape) -> str:
    """How the shapes differ; "" if they do not."""
    differing = ", ".join(
        f"{getattr(found, f.name)} {'columns' if f.name == 'width' else f.name}"
        f" (the published model has {getattr(wanted, f.name)})"
        for f in fields(Shape)
        if getattr(found, f.name) != getattr(wanted, f.name)
        # A model that has more layers may hold the published one: its layers are tried below.
        and not (f.name == "layers" and found.layers > wanted.layers)
    )
    return f"config.json and weights are of another model: {differing}" if differing else ""


def _tokenizer(golden: Golden, encoder: Encoder) -> tuple[str, str]:
    """(cause, what was noticed): the cause only if the published token ids give the published vectors."""
    tokens_T, lengths_N = encoder.tokenizer.encode([s.encode() for s in golden.nucleotides])
    found, wanted = (
        np.split(tokens, np.cumsum(lengths)[:-1])
        for tokens, lengths in ((tokens_T, lengths_N), (golden.tokens_T, golden.lengths_N))
    )
    other = sum(not np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    if not other or golden.tokens_T.max() >= DnabertShape.read(encoder.folder).vocabulary:
        return "", ""
    words = (
        f"tokenizer.json is of another version: it cuts {other} of {len(golden.ids)} frames into other tokens"
    )
    budget = encoder.input.budget_on(encoder.device)
    packed = pack_shard(0, golden.tokens_T, golden.lengths_N, budget)
    rows_ND = encoder._rows(packed, Room(budget), float32=True)
    if largest_difference(rows_ND, golden.vectors["dnabert-s"]) <= EXPLAINED:
        return words, ""
    return "", f"{words}; but the weights differ, too: the published tokens do not give the published vectors"


def _embedded_by(encoder: Encoder, golden: Golden, layers: int) -> Vectors:
    """The vectors of the first `layers` layers, followed by the model's last norm if it has one."""
    model = encoder._model
    whole, norm = model.layers, getattr(model, "final_norm", None)
    try:
        if isinstance(model, Esm2Model):  # the biases that the residual stream lacks at this place
            model.final_norm = replace(model.final_norm, offset_D=whole[layers].attention_norm.offset_D)
        model.layers = whole[:layers]  # type: ignore[assignment]
        return encoder.embed(golden.sequences(encoder.kind))
    finally:
        model.layers = whole  # type: ignore[assignment]
        if isinstance(model, Esm2Model) and norm is not None:
            model.final_norm = norm


def _row_order(found_ND: Vectors, stored_ND: Vectors) -> str:
    """Which frame has another's vector; "" if the rows are not merely in another order."""
    nearest = _nearest(stored_ND, found_ND)  # of each found row the stored one
    moved = [row for row, source in enumerate(nearest) if row != source]
    if not moved or sorted(nearest) != list(range(len(stored_ND))):
        return ""
    if largest_difference(found_ND, stored_ND[nearest]) > EXPLAINED:
        return ""
    return f"the vectors are in another order: frame {moved[0] + 1} has that of frame {nearest[moved[0]] + 1}"


def _column_order(found_ND: Vectors, stored_ND: Vectors) -> str:
    """Which block of columns is where another should be; "" if the columns are not merely in another order."""
    nearest = _nearest(found_ND.T, stored_ND.T)  # of each stored column the found one
    moved = [column for column, source in enumerate(nearest) if column != source]
    if not moved or sorted(nearest) != list(range(len(nearest))):
        return ""
    if largest_difference(found_ND[:, nearest], stored_ND) > EXPLAINED:
        return ""
    blocks = list(_blocks(nearest))
    first, last, source = blocks[0]
    return (
        f"columns are in another order ({len(moved)} of {len(nearest)}): columns {first} to {last} hold what columns"
        f" {source} to {source + last - first} should, so a block of columns is swapped"
    )


def _blocks(nearest: list[int]) -> Iterator[tuple[int, int, int]]:
    """(first, last, where they are) of each run of moved columns."""
    start = 0
    for column in range(1, len(nearest) + 1):
        if column == len(nearest) or nearest[column] != nearest[column - 1] + 1:
            if nearest[start] != start:
                yield start, column - 1, nearest[start]
            start = column


def _nearest(of_ND: Vectors, to_MD: Vectors) -> list[int]:
    """For each row of the second array, the index of the nearest row of the first."""
    a, b = of_ND.astype(np.float64), to_MD.astype(np.float64)
    distances = (a * a).sum(1)[None] - 2 * b @ a.T
    return [int(i) for i in distances.argmin(axis=1)]
