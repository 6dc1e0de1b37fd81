"""Lanes that share a sample: every shard once, whatever the speeds, and also where a lane dies."""

import itertools
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import ROOT
from virnucpro_core.engine.shards import lane_shards
from virnucpro_core.engine.sharing import Share
from virnucpro_core.files.locks import Claims

UNIT = 0.001


@dataclass
class Work:
    """What lies on disk, as far as lanes see it: who computed each shard; and which lanes are at work."""

    path: Path
    n_shards: int
    world: int
    done: list[tuple[int, int]] = field(default_factory=list)
    at_work: set[int] = field(default_factory=set)
    seconds: Counter[int] = field(default_factory=Counter)

    def is_done(self, shard: int) -> bool:
        return any(k == shard for k, _ in self.done)

    def lane(self, rank: int, delay: float, *, ahead: int = 3, dies_after: int = 10**9) -> None:
        """What embed_shards does, with a loader that prepares `ahead` shards."""
        self.at_work.add(rank)
        with Claims(self.path) as claims:
            own = [k for k in lane_shards(self.n_shards, rank, self.world) if not self.is_done(k)]
            share = Share(
                own,
                claims,
                others=lambda: [lane_shards(self.n_shards, r, self.world) for r in self.at_work - {rank}],
                looks_done=self.is_done,
                is_done=self.is_done,
            )
            while share.next_phase():
                for shard in _prepared(iter(share), ahead):
                    if not share.claim(shard):
                        continue
                    began = time.monotonic()
                    time.sleep(delay)
                    self.seconds[rank] += time.monotonic() - began
                    if dies_after == 0:
                        self.at_work.discard(rank)
                        return
                    dies_after -= 1
                    self.done.append((shard, rank))
                    share.finish(shard)
            assert all(map(self.is_done, own))
            assert len(share.given) == sum(k in own and r != rank for k, r in self.done)
        self.at_work.discard(rank)


def _prepared(shards: Iterator[int], ahead: int) -> Iterator[int]:
    window = deque(itertools.islice(shards, ahead))
    while window:
        yield window.popleft()
        window.extend(itertools.islice(shards, 1))


def _together(work: Work, delays: list[float], **options: int) -> float:
    lanes = [
        threading.Thread(target=work.lane, args=(rank, delay), kwargs=options if rank == 0 else {})
        for rank, delay in enumerate(delays)
    ]
    began = time.monotonic()
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join(60)
        assert not lane.is_alive()
    return time.monotonic() - began


@settings(max_examples=25)
@given(
    n_shards=st.integers(0, 30),
    speeds=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    ahead=st.integers(1, 8),
    dies_after=st.one_of(st.none(), st.integers(0, 5)),
)
def test_every_shard_is_computed_exactly_once(
    tmp_path_factory, n_shards: int, speeds: list[int], ahead: int, dies_after: int | None
) -> None:
    work = Work(tmp_path_factory.mktemp("work") / "claims", n_shards, len(speeds))
    options = {"ahead": ahead} | ({} if dies_after is None else {"dies_after": dies_after})
    _together(work, [speed * UNIT for speed in speeds], **options)
    if dies_after is not None:
        work.lane(0, 0.0)  # the same command again
    assert Counter(k for k, _ in work.done) == Counter(range(n_shards))


def test_a_slow_lane_costs_no_more_than_the_ideal_and_one_of_its_shards(tmp_path: Path) -> None:
    n_shards = 64
    work = Work(tmp_path / "claims", n_shards, 2)
    wall = _together(work, [0.09, 0.03])
    shards = Counter(rank for _, rank in work.done)
    speeds = [
        shards[rank] / work.seconds[rank] for rank in range(2)
    ]  # as they were: a loaded machine sleeps longer
    assert wall < 1.05 * n_shards / sum(speeds) + 1 / min(speeds)
    assert shards[1] > 0.6 * n_shards


def test_a_lane_whose_device_never_comes_needs_none_once_others_have_done_its_work(tmp_path: Path) -> None:
    work = Work(tmp_path / "claims", 10, 2)
    with Claims(work.path) as claims:
        waiting = Share(range(1, 10, 2), claims, others=list, looks_done=work.is_done, is_done=work.is_done)
        assert waiting.needed()
        work.at_work.add(1)
        work.lane(0, 0.0)
        assert not waiting.needed()
        assert waiting.given == set(range(1, 10, 2))


def test_a_damaged_shard_of_its_own_is_computed_though_it_looks_done(tmp_path: Path) -> None:
    computed: list[int] = []
    with Claims(tmp_path / "claims") as claims:
        share = Share([3], claims, others=list, looks_done=lambda _: True, is_done=lambda _: False)
        assert share.needed()
        while share.next_phase():
            for shard in share:
                assert share.claim(shard)
                computed.append(shard)
                share.finish(shard)
    assert computed == [3]
    assert share.given == set()


CLAIMER = """
import sys, time
from pathlib import Path
from virnucpro_core.files.locks import Claims
with Claims(Path(sys.argv[1])) as claims:
    assert claims.take(5)
    print("taken", flush=True)
    time.sleep(300)
"""


def test_a_claim_vanishes_with_its_process_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "claims"
    words = [sys.executable, "-c", CLAIMER, str(path)]
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT) as other,
        Claims(path) as claims,
    ):
        assert other.stdout is not None
        assert other.stdout.readline() == b"taken\n"
        assert claims.is_taken(5)
        assert not claims.take(5)
        assert not claims.is_taken(6)
        assert claims.take(6)
        with Claims(path):  # closing another open file of this process lets go of nothing
            pass
        killer = threading.Timer(0.3, other.kill)
        killer.start()
        began = time.monotonic()
        claims.wait(5)
        assert time.monotonic() - began > 0.2
        assert claims.take(6)
    assert path.read_bytes() == b""
