"""The jobs that take samples through the graph, in this order: `sequences`, `lane`, `results`."""

import dagster as dg

from virnucpro_assets.graph import calls, embeddings, sequences
from virnucpro_assets.platform.tags import OWN_TAGS

LANE_ASSETS = [
    embeddings.dnabert_embeddings,
    embeddings.esm_embeddings,
    embeddings.merged_features,
    calls.predictions,
]
SEQUENCES = dg.define_asset_job(
    "sequences",
    selection=dg.AssetSelection.assets(sequences.chunks, sequences.translations),
    description="Reads a sample's files, cuts them into chunks and translates these.",
    tags=OWN_TAGS,
)
LANE = dg.define_asset_job(
    "lane",
    selection=dg.AssetSelection.assets(*LANE_ASSETS),
    description="Computes one GPU's share of a sample: both embeddings, then the merge, then the scores.",
    tags=OWN_TAGS,
)
RESULTS = dg.define_asset_job(
    "results",
    selection=dg.AssetSelection.assets(calls.consensus),
    description="Joins all lanes of a sample and writes its results folder.",
    tags=OWN_TAGS,
)
JOBS = [SEQUENCES, LANE, RESULTS]
