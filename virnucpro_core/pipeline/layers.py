"""Decide which layers of the graph a prediction must run, so that released products are not made again needlessly."""

from typing import Any, Literal

from virnucpro_core.errors import StoreError
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.retention import is_cleaned, require_results
from virnucpro_core.samples.products import PREDICTIONS
from virnucpro_core.samples.sample import made_from
from virnucpro_core.sequences.chunks import Chunks

Layer = Literal["sequences", "lane", "results"]
EVERYTHING: tuple[Layer, ...] = ("sequences", "lane", "results")


def open_layers(lane: Lane) -> tuple[Layer, ...]:
    """The layers that a prediction of the lane's sample must run.

    Normally all of them; each skips what is done already. A sample with released products needs none if its results
    are complete and were made with the same settings, models, algorithm versions, precision and attention kernels. If
    they were not (another cut-off, say), it needs only the results layer as long as all its scores verify.
    """
    if not is_cleaned(lane.sample):
        return EVERYTHING
    try:
        facts = require_results(lane.sample)
    except StoreError:
        facts = {}
    if facts and _made_alike(lane, facts):
        return ()
    return ("results",) if _has_scores(lane) else EVERYTHING


def _made_alike(lane: Lane, facts: dict[str, Any]) -> bool:
    """Whether the results with this `run.json` were made as they would be made now."""
    calibration = lane.calibration.digest if lane.calibration else ""
    return (
        lane.models.items() <= facts["digests"].items()
        and facts.get("products") == lane.recipes
        and facts.get("calibration", {}).get("sha256", "") == calibration
    )


def _has_scores(lane: Lane) -> bool:
    """Whether every shard of scores verifies, and chunks and frames match the settings."""
    try:
        for shard in range(lane.n_shards):
            lane.store(PREDICTIONS).require(shard, lane.ids(shard))
        return made_from(Chunks.open(lane.sample.chunks), lane.sample)
    except StoreError:
        return False
