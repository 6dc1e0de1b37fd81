"""Who does what next: every sample passes every layer, a slow worker holds nobody up, nothing is done twice."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_assets.running.schedule import MOST_SAMPLES, Group, Schedule, groups
from virnucpro_assets.running.tasks import Outcome, Task
from virnucpro_core.samples.inputs import InputFile
from virnucpro_core.samples.sample import SMALL_BYTES, Sample
from virnucpro_core.samples.settings import SampleSettings

SETTINGS = SampleSettings(profile="demo", chunk_size=300)


def samples_of(small: int, large: int) -> list[Sample]:
    sizes = [10] * small + [SMALL_BYTES + 1] * large
    return [
        Sample(f"s{n}", Path("samples") / f"s{n}", (InputFile(Path("a.fa"), size, "0"),), SETTINGS)
        for n, size in enumerate(sizes)
    ]


def schedule_of(samples: list[Sample], gpus: int, shards: int = 9) -> Schedule:
    waiting = groups(samples, gpus, lambda _: False)
    return Schedule(waiting, gpus, "predict-x", begin=lambda _: None, shards=lambda _: shards)


@given(
    small=st.integers(0, 150),
    large=st.integers(0, 4),
    gpus=st.integers(1, 8),
    shards=st.integers(0, 12),
    bad=st.sets(st.integers(0, 150)),
    seed=st.integers(0, 999),
)
def test_every_sample_passes_every_layer_once(
    small: int, large: int, gpus: int, shards: int, bad: set[int], seed: int
) -> None:
    samples, draw = samples_of(small, large), random.Random(seed)
    schedule = schedule_of(samples, gpus, shards)
    done: dict[str, Counter[str]] = {job: Counter() for job in ("sequences", "lane", "results")}
    at_work: list[tuple[Group, Task]] = []
    reserved: dict[int, Task] = {}
    failed: set[str] = set()
    ended: list[str] = []
    for _ in range(100_000):
        if schedule.is_done:
            break
        busy = {task.rank if task.job == "lane" and group.together else None for group, task in at_work}
        free = [rank for rank in range(gpus) if rank not in busy]
        for new in (schedule.for_host(), *map(schedule.for_gpu, free)):
            if new is not None:
                at_work.append(new)
                if new[0].together and new[1].is_shared:  # what a GPU has begun with is what it gets next
                    assert reserved.pop(new[1].rank, new[1]) == new[1]
        for of, running in at_work:
            if of.together and running.is_shared and (following := schedule.reserve(running.rank)):
                assert following.is_shared
                assert running.rank not in reserved
                reserved[running.rank] = following
        if at_work:
            group, task = at_work.pop(draw.randrange(len(at_work)))
            done[task.job].update(task.keys)
            hit = (
                {f"s{n}" for n in bad} & set(task.keys)
                if task.job == "sequences" and group.together
                else set()
            )
            failed |= hit
            schedule.report(group, task, Outcome(failed=dict.fromkeys(hit, "bad")))
        for group in schedule.ended():
            assert not group.open_lanes
            ended += [sample.name for sample in group.samples]
    names = {sample.name for sample in samples}
    assert sorted(ended) == sorted(names)
    assert done["sequences"] == Counter(names)
    assert done["results"] == Counter(names - failed)
    assert done["lane"] == Counter(f"{rank}|{name}" for name in names - failed for rank in range(gpus))


def test_small_samples_go_together_where_they_are_more_than_the_gpus() -> None:
    assert [len(g.samples) for g in groups(samples_of(3, 1), 3, lambda _: False)] == [1] * 4
    few = groups(samples_of(9, 2), 2, lambda s: s.name == "s0")
    assert [(len(g.samples), g.together) for g in few] == [(4, True), (4, True)] + [(1, False)] * 3
    many = groups(samples_of(500, 0), 1, lambda _: False)
    assert max(len(g.samples) for g in many) == MOST_SAMPLES
    assert len(groups(samples_of(60, 0), 4, lambda _: False)) >= 8


def test_a_large_sample_has_a_lane_on_each_gpu_and_lanes_of_nothing_go_to_the_host() -> None:
    schedule = schedule_of(samples_of(0, 1), 4, shards=2)
    given = schedule.for_host()
    assert given is not None
    group, task = given
    assert task == Task("sequences", ("s0",), "predict-x")
    schedule.report(group, task, Outcome())
    lanes = [schedule.for_gpu(rank) for rank in range(4)]
    assert [entry[1].keys if entry else None for entry in lanes] == [("0|s0",), ("1|s0",), None, None]
    rest = schedule.for_host()
    assert rest is not None
    assert rest[1].keys == ("2|s0", "3|s0")


def test_a_busy_gpu_reserves_its_next_task_only_if_the_others_find_one() -> None:
    schedule = schedule_of(samples_of(16, 0), 2)  # two groups of eight
    for _ in range(2):
        given = schedule.for_host()
        assert given is not None
        schedule.report(*given, Outcome())
    at_work = schedule.for_gpu(0)
    assert at_work is not None
    assert schedule.reserve(0) is None  # the other GPU is without work
    schedule = schedule_of(samples_of(64, 0), 2)
    while (given := schedule.for_host()) is not None and given[1].job == "sequences":
        schedule.report(*given, Outcome())
    at_work = schedule.for_gpu(0)
    assert at_work is not None
    following = schedule.reserve(0)
    assert following is not None
    assert (following.rank, schedule.reserve(0)) == (0, None)
    other = schedule.for_gpu(1)
    assert other is not None
    assert other[1].keys != following.keys
    taken = schedule.for_gpu(0)
    assert taken is not None
    assert taken[1] == following


def test_the_host_supplies_the_gpus_before_it_writes_results() -> None:
    schedule = schedule_of(samples_of(24, 0), 1)
    first = schedule.for_host()
    assert first is not None
    schedule.report(*first, Outcome())
    lane = schedule.for_gpu(0)
    assert lane is not None
    schedule.report(*lane, Outcome())
    later = schedule.for_host()
    assert later is not None
    schedule.report(*later, Outcome())
    jobs = [later[1].job]
    for _ in range(2):
        given = schedule.for_host()
        assert given is not None
        jobs.append(given[1].job)
    assert jobs == ["sequences", "results", "sequences"]


@pytest.mark.parametrize("text", ["", "a warning of some library", '{"other": 1}'])
def test_what_a_library_prints_is_no_outcome(text: str) -> None:
    assert Outcome.read(text) is None
    said = Outcome("why", 3, {"a": "b"})
    assert Outcome.read(said.line()) == said
    task = Task("lane", ("0|a", "1|a"), "predict-x", 1)
    assert Task.read(task.line()) == task
