"""Scores that a lane's process has in memory: the same bits as those read from disk, and never those of other rows."""

from pathlib import Path
from unittest import mock

import pytest

from torture.pipeline import Pipeline, write_reads
from virnucpro_core.devices.compute import Compute, LoaderSettings
from virnucpro_core.errors import StoreError
from virnucpro_core.pipeline import score
from virnucpro_core.pipeline.at_hand import scores_at_hand
from virnucpro_core.pipeline.embed import embed_lane
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.score import merge_lane, score_lane
from virnucpro_core.samples.products import DNABERT, ESM, MERGED, PREDICTIONS, Embedding

COMPUTE = Compute("cpu", loader=LoaderSettings(workers=0))


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path / "home", write_reads(tmp_path / "reads.fa", records=60))


def embedded(pipeline: Pipeline, *products: Embedding) -> Lane:
    lane = pipeline.lane(pipeline.prepared(pipeline.register()), 0)
    for product in products:
        embed_lane(lane, product, COMPUTE, on_shard=lambda _: None)
    return lane


def scored(lane: Lane) -> tuple[list[str], int]:
    """The sha256 of the shards of scores, and how many merged shards were read for them."""
    reads = 0

    def read(lane: Lane, shard: int) -> object:
        nonlocal reads
        reads += 1
        return real(lane, shard)

    real = score._merged_rows
    merge_lane(lane, on_shard=lambda _: None)
    with mock.patch.object(score, "_merged_rows", read):
        result = score_lane(lane, COMPUTE, on_shard=lambda _: None)
    return [entry.sha256 for entry in result.entries], reads


@pytest.mark.parametrize("order", [(DNABERT, ESM), (ESM, DNABERT)])
def test_the_scores_at_hand_have_the_bits_of_those_read_from_disk(
    pipeline: Pipeline, tmp_path: Path, order: tuple[Embedding, Embedding]
) -> None:
    from_disk, reads = scored(embedded(Pipeline(tmp_path / "other", tmp_path / "reads.fa"), *order))
    assert reads == len(from_disk) > 1
    with scores_at_hand():
        at_hand, reads = scored(embedded(pipeline, *order))
    assert reads == 0
    assert at_hand == from_disk


def test_a_shard_that_was_damaged_after_it_was_computed_is_found(pipeline: Pipeline) -> None:
    with scores_at_hand():
        lane = embedded(pipeline, DNABERT, ESM)
        merge_lane(lane, on_shard=lambda _: None)
        file = lane.store(ESM).path(2)
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        with pytest.raises(StoreError, match="shard 2 of esm_embeddings is damaged"):
            score_lane(lane, COMPUTE, on_shard=lambda _: None)


def test_scores_are_of_the_shards_that_are_there_now(pipeline: Pipeline) -> None:
    with scores_at_hand():
        lane = embedded(pipeline, DNABERT, ESM)
        expected, _ = scored(lane)
        for product in (MERGED, PREDICTIONS):
            for shard in lane.shards:
                lane.store(product).path(shard).with_suffix(".json").unlink()
        again, reads = scored(lane)  # what was at hand was taken
    assert again == expected
    assert reads == len(expected)


def test_without_the_classifier_the_shards_are_computed_and_the_scores_say_what_is_missing(
    pipeline: Pipeline,
) -> None:
    with (
        scores_at_hand(),
        mock.patch(
            "virnucpro_core.pipeline.at_hand.load_classifier", side_effect=StoreError("gone", where="x")
        ),
    ):
        lane = embedded(pipeline, DNABERT, ESM)
    _, reads = scored(lane)
    assert reads == len(lane.shards)
