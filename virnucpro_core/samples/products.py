"""The names of a sample's sharded products, as the assets and the folders spell them."""

from typing import Literal

Embedding = Literal["dnabert_embeddings", "esm_embeddings"]


DNABERT: Literal["dnabert_embeddings"] = "dnabert_embeddings"


ESM: Literal["esm_embeddings"] = "esm_embeddings"


MERGED, PREDICTIONS = "merged_features", "predictions"
