"""Which layers of the graph a prediction has to go through: all, or what was released needs to be made again."""

from typing import Literal

from virnucpro_core.errors import StoreError
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.retention import is_cleaned, require_results
from virnucpro_core.samples.products import PREDICTIONS
from virnucpro_core.samples.sample import made_from
from virnucpro_core.sequences.chunks import Chunks

Layer = Literal["sequences", "lane", "results"]
EVERYTHING: tuple[Layer, ...] = ("sequences", "lane", "results")


def open_layers(lane: Lane) -> tuple[Layer, ...]:
    """The layers that a prediction of the lane's sample has to go through.

    All of them, each of which finds out what is there already; but what was released is not made again where the
    results, or with other results asked for the scores, are whole and made in the same way: of the same settings,
    models, algorithms' versions, precision and attention kernels.
    """
    if not is_cleaned(lane.sample):
        return EVERYTHING
    try:
        facts = require_results(lane.sample)
    except StoreError:
        facts = {}
    if facts and lane.models.items() <= facts["digests"].items() and facts.get("products") == lane.recipes:
        return ()
    return ("results",) if _has_scores(lane) else EVERYTHING


def _has_scores(lane: Lane) -> bool:
    """Whether every shard of scores verifies, and the chunks and frames are those of the settings."""
    try:
        for shard in range(lane.n_shards):
            lane.store(PREDICTIONS).require(shard, lane.ids(shard))
        return made_from(Chunks.open(lane.sample.chunks), lane.sample)
    except StoreError:
        return False
