"""DNABERT-S against the golden case that the reference code made in float64."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from virnucpro_core.encoders.encoder import Encoder, load_encoder
from virnucpro_core.encoders.packing import pack
from virnucpro_core.encoders.tokenizers import DnabertTokenizer


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    return shared / "golden" / "dnabert_s_tiny"


@pytest.fixture(scope="module")
def encoder(golden: Path) -> Encoder:
    return load_encoder(
        "dnabert-s", golden, device=torch.device("cpu"), dtype=torch.float32, attention="reference"
    )


def test_golden_token_ids(golden: Path) -> None:
    cases = json.loads((golden / "cases.json").read_text())
    tokens_T, lengths_B = DnabertTokenizer(golden / "tokenizer.json").encode(
        [case["sequence"].encode() for case in cases]
    )
    expected = [case["input_ids"] for case in cases]
    assert lengths_B.tolist() == [len(ids) for ids in expected]
    assert tokens_T.tolist() == [i for ids in expected for i in ids]


@pytest.mark.parametrize("budget", [1, 500, 100_000])
def test_golden_embeddings(golden: Path, encoder: Encoder, budget: int) -> None:
    """One by one (budget 1), in several batches and in one batch."""
    cases = json.loads((golden / "cases.json").read_text())
    tokens_T, lengths_B = encoder.tokenizer.encode([case["sequence"].encode() for case in cases])
    rows = np.full((len(cases), encoder.dim), np.nan, dtype=np.float32)
    for batch in pack(tokens_T, lengths_B, budget):
        rows[batch.rows_B] = encoder.forward(batch).numpy()
    expected = np.load(golden / "mean_embeddings.npy")
    assert np.linalg.norm(rows - expected, axis=1).max() < 1e-5 * np.linalg.norm(expected, axis=1).min()
