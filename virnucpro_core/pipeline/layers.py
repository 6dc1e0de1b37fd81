"""Decide which layers of the graph a prediction must run, so that finished work is neither done nor read again."""

from typing import Literal

from virnucpro_core.errors import StoreError
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.retention import is_cleaned, require_results
from virnucpro_core.samples.content import made_from
from virnucpro_core.samples.products import PREDICTIONS, still_valid
from virnucpro_core.sequences.chunks import Chunks

Layer = Literal["sequences", "lane", "results"]
EVERYTHING: tuple[Layer, ...] = ("sequences", "lane", "results")


def open_layers(lane: Lane, *, recorded: bool = False) -> tuple[Layer, ...]:
    """The layers that a prediction of the lane's sample must run.

    None if the results are complete and verify, and were made with the same settings, models, algorithm versions,
    precision and attention kernels. recorded: whether Dagster has recorded these results and their checks; if not, all
    layers run, find their work done, and record it. Of a sample with released products nothing is made only to be
    recorded. If its results are of other settings (another cut-off, say), it needs only the results layer as long as
    all its scores verify.
    """
    cleaned = is_cleaned(lane.sample)
    if (recorded or cleaned) and _has_results(lane):
        return ()
    return ("results",) if cleaned and _has_scores(lane) else EVERYTHING


def _has_results(lane: Lane) -> bool:
    """Whether every result file verifies, and the results were made as now, or by a version whose results are kept."""
    try:
        facts = require_results(lane.sample)
    except StoreError:
        return False
    calibration = lane.calibration.digest if lane.calibration else ""
    return (
        lane.models.items() <= facts["digests"].items()
        and still_valid(facts.get("products")) == lane.recipes
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
