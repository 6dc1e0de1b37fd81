"""Tags of runs, and the configuration of the runs that take many samples; what the queue and the automation go by."""

from collections.abc import Mapping, Sequence
from typing import Any

DRIVER_TAG = "virnucpro/driver"
# Every run of this project has the first, and the second where its home is known: an instance may be shared.
OWN_TAG = "virnucpro/run"
HOME_TAG = "virnucpro/home"
OWN_TAGS = {OWN_TAG: OWN_TAG}
MAX_RETRIES_TAG = "dagster/max_retries"
RANK_TAG = "dagster/partition/gpu_rank"
PRIORITY_TAG = "dagster/priority"
LAYER_TAG = "virnucpro/layer"
# Where a run's sample stands: of a lane, and of a run of the whole sample (a lane's has `RANK|SAMPLE` there).
SAMPLE_TAGS = ("dagster/partition/sample", "dagster/partition")


def driver_tags(sample: str) -> dict[str, str]:
    """Tags of a run that drives its sample itself: its news starts nothing in the automation."""
    return {DRIVER_TAG: sample}


def batch_tags(rank: int) -> dict[str, str]:
    """Tags of a run of `batch`: the queue counts it as a lane of the rank."""
    return driver_tags("batch") | {RANK_TAG: str(rank)}


def batch_config(samples: Sequence[str], rank: int, *, hand_over: bool, turns: str = "") -> dict[str, Any]:
    """Run configuration of the job `batch`. `hand_over`: the automation runs by itself what fails in it."""
    config = {"samples": list(samples), "rank": rank, "hand_over": hand_over, "turns": turns}
    return {"ops": {"every_sample": {"config": config}}}


def batch_samples(config: Mapping[str, Any]) -> list[str]:
    """The samples in such a configuration."""
    return list(config["ops"]["every_sample"]["config"]["samples"])


def batch_rank(config: Mapping[str, Any]) -> int:
    """The rank in such a configuration."""
    return int(config["ops"]["every_sample"]["config"].get("rank", 0))
