"""Which layers of the graph a prediction has to go through: all, or what was released needs to be made again."""

from typing import Literal

from virnucpro_core.errors import StoreError
from virnucpro_core.models.profiles import ResolvedProfile
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.retention import is_cleaned, require_results
from virnucpro_core.samples.sample import Sample, made_from
from virnucpro_core.sequences.chunks import Chunks

Layer = Literal["sequences", "lane", "results"]
EVERYTHING: tuple[Layer, ...] = ("sequences", "lane", "results")


def open_layers(sample: Sample, profile: ResolvedProfile) -> tuple[Layer, ...]:
    """The layers that a prediction has to go through.

    All of them, each of which finds out what is there already; but what was released is not made again where the
    results, or with other results asked for the scores, are whole and of the same settings and models.
    """
    if not is_cleaned(sample):
        return EVERYTHING
    try:
        made_with = require_results(sample)["digests"]
    except StoreError:
        made_with = {}
    models = {
        "dnabert-s": profile.dnabert_fingerprint,
        "esm2": profile.esm2_fingerprint,
        "classifier": profile.classifier_fingerprint,
    }
    if models.items() <= made_with.items():
        return ()
    return ("results",) if _has_scores(Lane(sample, profile, 0, 1)) else EVERYTHING


def _has_scores(lane: Lane) -> bool:
    """Whether every shard of scores verifies, and the chunks and frames are those of the settings."""
    try:
        for shard in lane.shards:
            lane.predictions.require(shard, lane.ids(shard))
        return made_from(Chunks.open(lane.sample.chunks), lane.sample)
    except StoreError:
        return False
