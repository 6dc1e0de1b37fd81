"""Compares installed models with what the published tool answered: eight frames, their vectors and their scores.

Each model is compared alone. An encoder embeds the frames; its vectors, joined with the stored vectors of the other
encoder, go through the classifier. The classifier scores the stored vectors of both. So a difference belongs to one
model. The facts ship with the package (`virnucpro_core/golden`).

Shapes: N frames, D columns, T tokens of all frames one after the other.
"""

import functools
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.encoders.encoder import Encoder, Kind
from virnucpro_core.encoders.model_folder import fingerprint
from virnucpro_core.errors import StoreError
from virnucpro_core.files.digests import sha256_file
from virnucpro_core.files.foreign_json import parse_json
from virnucpro_core.files.publish import publish, publish_json
from virnucpro_core.models.classifier import Classifier

GOLDEN = Path(__file__).parents[1] / "golden" / "published.npz"
RECORD = "golden.json"
# The models of the store that the facts are about.
ENCODERS: dict[str, Kind] = {"dnabert-s": "dnabert-s", "esm2-3b": "esm2"}
CLASSIFIER = "virnucpro-500"

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Largest allowed differences: of a vector (L2, relative to the stored one) and of a score."""

    vectors: float
    scores: float


# float32: correct implementations differ by the order of their sums. Scores of the published tool and of a padded one
# differed by 1.4e-5. float16 and fp8: ten and two times the relative error that was measured against float32 with the
# published shapes (docs/encoders.md: 1e-3 and 7e-2).
BOUNDS = {"float32": Bounds(1e-3, 1e-3), "float16": Bounds(1e-2, 1e-2), "fp8": Bounds(1.5e-1, 5e-2)}
# The classifier's input is given, so only its own sums in float32 differ.
CLASSIFIER_BOUND = 1e-4


@dataclass(frozen=True, slots=True)
class Shape:
    """The dimensions of a published encoder."""

    layers: int
    width: int
    heads: int


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """What the published tool answered for N frames.

    scores_N2: columns others and virus. vectors: by kind of encoder, (N, D) float32. tokens_T, lengths_N: DNABERT-S's
    token ids of all frames, and how many each frame has.
    """

    ids: tuple[str, ...]
    nucleotides: tuple[str, ...]
    proteins: tuple[str, ...]
    scores_N2: Vectors
    vectors: Mapping[Kind, Vectors]
    shapes: Mapping[Kind, Shape]
    tokens_T: NDArray[np.int32]
    lengths_N: NDArray[np.int32]

    def sequences(self, kind: Kind) -> list[str]:
        """What the encoder embeds: proteins for ESM-2, nucleotides for DNABERT-S."""
        return list(self.proteins if kind == "esm2" else self.nucleotides)

    def features(self, kind: Kind | None = None, vectors: Vectors | None = None) -> Vectors:
        """(N, D) of both encoders, DNABERT-S first; the columns of `kind` are `vectors`, all others the stored ones."""
        parts = {**self.vectors} | ({kind: vectors} if kind and vectors is not None else {})
        return np.concatenate([parts["dnabert-s"], parts["esm2"]], axis=1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one model compares. vectors, scores: the largest differences; None if they were not computed.

    flips: frames whose call (virus or others) changes. diagnosis: what is wrong, in words; "" if passed.
    """

    model: str
    precision: str
    device: str
    passed: bool
    vectors: float | None
    scores: float | None
    flips: int | None
    frames: int
    diagnosis: str = ""


@functools.cache
def published() -> Golden:
    """The facts that ship with the package. Raises StoreError if the file is missing or damaged."""
    return read_golden(GOLDEN)


def read_golden(path: Path) -> Golden:
    """Read the file that `write_golden` wrote; nothing in it is executed. Raises StoreError."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            shapes = json.loads(str(stored["shapes"]))
            return Golden(
                ids=tuple(stored["ids"].tolist()),
                nucleotides=tuple(stored["nucleotides"].tolist()),
                proteins=tuple(stored["proteins"].tolist()),
                scores_N2=stored["scores"],
                vectors={"dnabert-s": stored["dnabert_s"], "esm2": stored["esm2"]},
                shapes={"dnabert-s": Shape(**shapes["dnabert-s"]), "esm2": Shape(**shapes["esm2"])},
                tokens_T=stored["dnabert_s_tokens"],
                lengths_N=stored["dnabert_s_lengths"],
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError("damaged", where=path, remedy="install virnucpro again") from error


def write_golden(golden: Golden, path: Path) -> None:
    """Publish the facts as a numpy archive without pickled objects."""
    with publish(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            ids=np.array(golden.ids),
            nucleotides=np.array(golden.nucleotides),
            proteins=np.array(golden.proteins),
            scores=golden.scores_N2,
            dnabert_s=golden.vectors["dnabert-s"],
            esm2=golden.vectors["esm2"],
            shapes=np.array(json.dumps({kind: asdict(shape) for kind, shape in golden.shapes.items()})),
            dnabert_s_tokens=golden.tokens_T,
            dnabert_s_lengths=golden.lengths_N,
        )


def largest_difference(found_ND: Vectors, stored_ND: Vectors) -> float:
    """Largest ||found - stored|| / ||stored|| over the rows."""
    found, stored = found_ND.astype(np.float64), stored_ND.astype(np.float64)
    return float((np.linalg.norm(found - stored, axis=1) / np.linalg.norm(stored, axis=1)).max())


def flips(found_N2: Vectors, stored_N2: Vectors) -> int:
    """Frames with another call; equal scores are `others`, as in the published tool."""
    return int(((found_N2[:, 1] > found_N2[:, 0]) != (stored_N2[:, 1] > stored_N2[:, 0])).sum())


def compare_encoder(
    golden: Golden,
    name: str,
    encoder: Encoder,
    vectors_ND: Vectors,
    classifier: Classifier | None,
    precision: str,
) -> Outcome:
    """Compare an encoder's vectors of the golden frames. Without a classifier that fits, scores are not compared."""
    stored, bounds = golden.vectors[encoder.kind], BOUNDS[precision]
    vectors = largest_difference(vectors_ND, stored) if vectors_ND.shape == stored.shape else None
    scores = changed = None
    if vectors is not None and classifier and classifier.input_dim == golden.features().shape[1]:
        # The stored scores are not those of this classifier if it is not the published one: hold it against itself.
        expected = classifier.score(golden.features())
        found = classifier.score(golden.features(encoder.kind, vectors_ND))
        scores, changed = float(np.abs(found - expected).max()), flips(found, expected)
    passed = (
        vectors is not None and vectors <= bounds.vectors and (scores or 0.0) <= bounds.scores and not changed
    )
    device = str(encoder.device)
    return Outcome(name, precision, device, passed, vectors, scores, changed, len(golden.ids))


def compare_classifier(golden: Golden, name: str, classifier: Classifier) -> Outcome:
    """Compare a classifier's scores of the stored vectors."""
    scores = changed = None
    if classifier.input_dim == golden.features().shape[1]:
        found = classifier.score(golden.features())
        scores = float(np.abs(found - golden.scores_N2).max())
        changed = flips(found, golden.scores_N2)
    passed = scores is not None and scores <= CLASSIFIER_BOUND and not changed
    return Outcome(name, "float32", str(classifier.device), passed, None, scores, changed, len(golden.ids))


def write_record(folder: Path, outcome: Outcome, date: str) -> None:
    """Keep the outcome in the model's folder, for `virnucpro doctor`. Raises StoreError."""
    facts = asdict(outcome) | {
        "date": date,
        "fingerprint": fingerprint(folder),
        "golden": sha256_file(GOLDEN),
    }
    publish_json(folder / RECORD, facts)


def read_record(folder: Path) -> dict[str, Any] | None:
    """The last outcome for exactly these weights and these facts; None if there is none."""
    try:
        facts = parse_json((folder / RECORD).read_bytes())
        current = (facts["fingerprint"], facts["golden"]) == (fingerprint(folder), sha256_file(GOLDEN))
        return dict(facts) if current else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
