"""One thread computes ahead: what is waited for comes first, errors reach who waits, and nothing is taken twice."""

import threading
from functools import partial
from pathlib import Path

import pytest

from torture.pipeline import Pipeline, write_reads
from virnucpro_core.devices.compute import Compute, LoaderSettings
from virnucpro_core.errors import StoreError
from virnucpro_core.pipeline.ahead import Embedded, computing_ahead, on_device, take_ahead
from virnucpro_core.pipeline.embed import embed_lane
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.precision import audit_precision, audit_together, rows_to_audit
from virnucpro_core.samples.products import EMBEDDINGS, ESM

COMPUTE = Compute("cpu", loader=LoaderSettings(workers=0))


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    pipeline = Pipeline(tmp_path / "home", write_reads(tmp_path / "reads.fa", records=60))
    return pipeline.lane(pipeline.prepared(pipeline.register()), 0)


def embedded(lane: Lane) -> Embedded:
    return lane.sample, embed_lane(lane, ESM, COMPUTE, on_shard=lambda _: None)


def test_a_lane_that_is_embedded_ahead_is_taken_once_and_is_on_disk(lane: Lane) -> None:
    with computing_ahead() as ahead:
        ahead.begin("lane", lambda: embedded(lane))
        ahead.begin("lane", lambda: pytest.fail("it has begun already"))
        result = take_ahead("lane", lane.sample)
        assert result is not None
        assert result.rows == lane.rows(lane.shards)
        assert result.resumed == 0
        assert take_ahead("lane", lane.sample) is None
        assert take_ahead("another", lane.sample) is None
    assert embedded(lane)[1].resumed == len(lane.shards)


def test_outside_of_a_block_nothing_is_ahead(lane: Lane) -> None:
    assert take_ahead("lane", lane.sample) is None
    assert on_device(threading.current_thread) is threading.current_thread()


def test_a_lane_of_other_settings_is_not_taken(lane: Lane, tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "other", write_reads(tmp_path / "others.fa", records=20, seed=3))
    with computing_ahead() as ahead:
        ahead.begin("lane", lambda: embedded(lane))
        assert take_ahead("lane", pipeline.register()) is None


def test_what_is_waited_for_is_done_before_the_lanes_in_the_queue(lane: Lane) -> None:
    done: list[str] = []
    go = {name: threading.Event() for name in ("a", "c")}

    def embed(name: str) -> Embedded:
        assert go[name].wait(10)
        done.append(name)
        raise StoreError(f"{name} is damaged")

    with computing_ahead() as ahead:
        for name in ("a", "b", "c"):
            ahead.begin(name, partial(embed, name))
        ahead.forget("b")
        threading.Timer(0.2, go["a"].set).start()
        assert on_device(lambda: threading.current_thread().name).startswith("computing-ahead")
        assert done == ["a"]
        go["c"].set()
        with pytest.raises(StoreError, match="c is damaged"):
            take_ahead("c", lane.sample)
        with pytest.raises(ZeroDivisionError):
            on_device(lambda: 1 // 0)
    assert done == ["a", "c"]


def test_the_end_of_the_block_drops_what_is_queued(lane: Lane) -> None:
    begun, done = threading.Event(), []
    with computing_ahead() as ahead:
        ahead.begin("first", lambda: (begun.set(), done.append("first"), embedded(lane))[2])
        ahead.begin("second", lambda: pytest.fail("it was dropped"))
        assert begun.wait(10)
    assert done == ["first"]
    assert take_ahead("second", lane.sample) is None


def test_lanes_that_are_compared_together_give_the_findings_of_each_alone(lane: Lane, tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "other", write_reads(tmp_path / "others.fa", records=20, seed=3))
    other = pipeline.lane(pipeline.prepared(pipeline.register()), 0)
    for product in EMBEDDINGS:
        for one in (lane, other):
            embed_lane(one, product, COMPUTE, on_shard=lambda _: None)
        together = audit_together([rows_to_audit(one, product) for one in (lane, other)], product, COMPUTE)
        alone = [audit_precision(one, product, COMPUTE) for one in (lane, other)]
        assert [f.facts | {"least_cosine": 0, "relative_l2": 0} for f in together] == [
            f.facts | {"least_cosine": 0, "relative_l2": 0} for f in alone
        ]
        assert all(f.passed and f.facts["least_cosine"] > 0.999999 for f in together)
