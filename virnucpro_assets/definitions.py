"""The Dagster definitions: assets, checks, jobs, sensors, schedules and the platform resource."""

import dagster as dg

from virnucpro_assets.automation.groups import FOLLOWERS
from virnucpro_assets.automation.nightly import NIGHTLY
from virnucpro_assets.automation.sensors import dead_runs, follow, inbox_sensor
from virnucpro_assets.graph import calls, retention, sequences
from virnucpro_assets.graph.checks import CHECKS
from virnucpro_assets.graph.engines import executor_of
from virnucpro_assets.graph.jobs import JOBS, LANE_ASSETS
from virnucpro_assets.platform.resource import platform_from_environment

_PLATFORM = platform_from_environment()

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
        *JOBS,
        retention.clean_up,
        retention.clean_up_sample,
    ],
    sensors=[inbox_sensor, *FOLLOWERS, follow, dead_runs],
    schedules=[*NIGHTLY, retention.nightly_clean_up],
    resources={"platform": _PLATFORM},
    executor=executor_of(_PLATFORM),
)
