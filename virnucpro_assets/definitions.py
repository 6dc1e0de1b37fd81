"""The Dagster definitions: assets, checks, jobs, sensors, schedules and the platform resource."""

import dagster as dg

from virnucpro_assets.automation.groups import FOLLOWERS
from virnucpro_assets.automation.nightly import NIGHTLY
from virnucpro_assets.automation.sensors import dead_runs, follow, inbox_sensor
from virnucpro_assets.graph import calls, embeddings, retention, sequences
from virnucpro_assets.graph.checks import CHECKS
from virnucpro_assets.graph.engines import executor_of
from virnucpro_assets.platform.resource import platform_from_environment
from virnucpro_assets.platform.tags import OWN_TAGS

_PLATFORM = platform_from_environment()

LANE_ASSETS = [
    embeddings.dnabert_embeddings,
    embeddings.esm_embeddings,
    embeddings.merged_features,
    calls.predictions,
]

defs = dg.Definitions(
    assets=[
        sequences.inbox,
        sequences.chunks,
        sequences.translations,
        *LANE_ASSETS,
        calls.consensus,
        retention.retention,
    ],
    asset_checks=CHECKS,
    jobs=[
        dg.define_asset_job(
            "sequences",
            selection=dg.AssetSelection.assets(sequences.chunks, sequences.translations),
            description="Reads a sample's files, cuts them into chunks and translates these.",
            tags=OWN_TAGS,
        ),
        dg.define_asset_job(
            "lane",
            selection=dg.AssetSelection.assets(*LANE_ASSETS),
            description="Computes one GPU's share of a sample: both embeddings, then the merge, then the scores.",
            tags=OWN_TAGS,
        ),
        dg.define_asset_job(
            "results",
            selection=dg.AssetSelection.assets(calls.consensus),
            description="Joins all lanes of a sample and writes its results folder.",
            tags=OWN_TAGS,
        ),
        retention.clean_up,
        retention.clean_up_sample,
    ],
    sensors=[inbox_sensor, *FOLLOWERS, follow, dead_runs],
    schedules=[*NIGHTLY, retention.nightly_clean_up],
    resources={"platform": _PLATFORM},
    executor=executor_of(_PLATFORM),
)
