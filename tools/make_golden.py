"""Writes virnucpro_core/golden/published.npz: `python tools/make_golden.py FOLDER TOKENIZER`.

FOLDER holds `frames.tsv` (id, nucleotide, protein, prediction, score_others, score_virus) and `vectors.npz` (ids,
dnabert_s, esm2_3b, in the same order). TOKENIZER is the tokenizer.json of DNABERT-S.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from virnucpro_core.encoders.tokenizers import DnabertTokenizer
from virnucpro_core.models.golden import GOLDEN, Golden, Shape, write_golden

PUBLISHED_SHAPES = {
    "dnabert-s": Shape(layers=12, width=768, heads=12),
    "esm2": Shape(layers=36, width=2560, heads=40),
}


def read_published(folder: Path, tokenizer: Path) -> Golden:
    """The facts of `folder`. Raises ValueError if table and vectors are not of the same frames."""
    with (folder / "frames.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    with np.load(folder / "vectors.npz", allow_pickle=False) as stored:
        ids, dnabert, esm2 = stored["ids"].tolist(), stored["dnabert_s"], stored["esm2_3b"]
    if ids != [row["id"] for row in rows]:
        raise ValueError("frames.tsv and vectors.npz are not of the same frames")
    nucleotides = tuple(row["nucleotide"] for row in rows)
    tokens_T, lengths_N = DnabertTokenizer(tokenizer).encode([n.encode() for n in nucleotides])
    return Golden(
        ids=tuple(ids),
        nucleotides=nucleotides,
        proteins=tuple(row["protein"] for row in rows),
        scores_N2=np.array([(row["score_others"], row["score_virus"]) for row in rows], np.float32),
        vectors={"dnabert-s": dnabert, "esm2": esm2},
        shapes=PUBLISHED_SHAPES,
        tokens_T=tokens_T,
        lengths_N=lengths_N,
    )


if __name__ == "__main__":
    write_golden(read_published(Path(sys.argv[1]), Path(sys.argv[2])), GOLDEN)
