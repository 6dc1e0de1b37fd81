"""Decides which task each worker of `virnucpro predict` gets next. Starts no processes.

The work is divided into groups. A group is either several small samples, computed by one GPU, or one sample, of which
each GPU computes its own lane. Each group is read, then embedded, then written as results. The host worker reads and
writes. It reads first, so that the GPUs always have work, and writes results when they have enough.
"""

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from virnucpro_assets.running.tasks import Outcome, Task
from virnucpro_core.errors import VirnucproError
from virnucpro_core.pipeline.layers import EVERYTHING, Layer
from virnucpro_core.samples.sample import Sample

FEW_SAMPLES, MOST_SAMPLES = 8, 32
GROUPS_A_GPU = 10
HOST = -1


@dataclass(eq=False)
class Group:
    """Samples that share the same runs.

    together: small samples that share a model load. layers: the layers that are still to run. layer: the layer that
    runs now, since the time `began`. spent: seconds of the layers that have run. outcome: of the first run that failed
    as a whole, at `where`. failed: sample -> why it failed while the others went on. error: why a sample could not
    start. held: the locks on the samples.
    """

    samples: list[Sample]
    together: bool
    layers: tuple[Layer, ...] = EVERYTHING
    outcome: Outcome = field(default_factory=Outcome)
    failed: dict[str, str] = field(default_factory=dict)
    error: VirnucproError | None = None
    where: str = ""
    open_lanes: int = 0
    layer: str = ""
    began: float = 0.0
    spent: dict[str, float] = field(default_factory=dict)
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def left(self) -> list[Sample]:
        """Samples that have not failed."""
        return [sample for sample in self.samples if sample.name not in self.failed]


def groups(samples: Sequence[Sample], gpus: int, is_apart: Callable[[Sample], bool]) -> list[Group]:
    """Group small samples if there are more of them than GPUs. Other samples, and those `is_apart`, stay alone."""
    small = [s for s in samples if s.is_small and not is_apart(s)]
    if len(small) <= gpus:
        small = []
    # Several groups per GPU, if each still has a few samples: a slow GPU then gets fewer. While the first group is read
    # and the last one is recorded, the GPUs have nothing to do, so groups are no larger than they need be.
    few = min(FEW_SAMPLES, math.ceil(len(small) / gpus))
    size = max(1, min(MOST_SAMPLES, max(few, math.ceil(len(small) / (GROUPS_A_GPU * gpus)))))
    together = [Group(small[at : at + size], together=True) for at in range(0, len(small), size)]
    chosen = {s.name for s in small}
    return together + [Group([s], together=False) for s in samples if s.name not in chosen]


class Schedule:
    """The groups of one command: queued, in flight and ended.

    begin: called with a group before its first task; it may add samples to `group.failed` and shorten `group.layers`.
    shards: returns the number of shards of a sample that has been read.
    """

    def __init__(
        self,
        waiting: Iterable[Group],
        gpus: int,
        driver: str,
        *,
        begin: Callable[[Group], None],
        shards: Callable[[Sample], int],
    ) -> None:
        self.gpus, self.driver = gpus, driver
        self._begin, self._shards = begin, shards
        self.waiting = deque(waiting)
        self.under_way: list[Group] = []
        self._lanes: deque[tuple[Group, Task, int | None]] = deque()
        self._results: deque[Group] = deque()
        self._ended: deque[Group] = deque()

    @property
    def is_done(self) -> bool:
        """Whether every group has ended and `ended` has returned it."""
        return not (self.waiting or self.under_way)

    def ended(self) -> Iterator[Group]:
        """Yield the groups that have ended since the last call."""
        while self._ended:
            group = self._ended.popleft()
            self.under_way.remove(group)
            yield group

    def for_gpu(self, rank: int) -> tuple[Group, Task] | None:
        """The next task of an idle GPU: a lane of its own rank, or one that any GPU may take. None if there is none."""
        for entry in self._lanes:
            group, task, owner = entry
            if owner == rank or (owner is None and rank != HOST):
                self._lanes.remove(entry)
                return group, replace(task, rank=max(rank, 0))
        return None

    def reserve(self, rank: int) -> Task | None:
        """The task that a busy GPU gets next, from now on reserved for it, so that it can begin with the lanes.

        Only lanes of small samples, and one task at a time; and none if another GPU could then be without work.
        """
        mine = [place for place, (_, _, owner) in enumerate(self._lanes) if owner in (rank, None)]
        if not mine or not self._lanes[mine[0]][1].is_shared or self._lanes[mine[0]][2] == rank:
            return None
        owners = [owner for _, _, owner in self._lanes]
        without = self.gpus - 1 - len({owner for owner in owners if owner not in (None, HOST)})
        if owners.count(None) - 1 + len(self.waiting) < without:
            return None
        group, task, _ = self._lanes[mine[0]]
        self._lanes[mine[0]] = group, task, rank
        return replace(task, rank=rank)

    def for_host(self) -> tuple[Group, Task] | None:
        """The next task without a GPU: read a group if the GPUs need more work soon, else write results. Or None."""
        idle = self.for_gpu(HOST)  # lanes without shards
        if idle is not None:
            return idle
        if self._results and (self._lanes or not self._may_begin()):
            return self._task("results", self._results.popleft())
        while self._may_begin():
            group = self.waiting.popleft()
            self.under_way.append(group)
            self._begin(group)
            if "sequences" in group.layers and group.left:
                return self._task("sequences", group)
            self._after(group, group.layers[0] if group.layers else "results")
        return self._task("results", self._results.popleft()) if self._results else None

    def report(self, group: Group, task: Task, outcome: Outcome) -> None:
        """Record the outcome of one of the group's tasks."""
        group.failed |= outcome.failed
        if outcome.failure and not group.outcome.failure:
            group.outcome = outcome
            group.where = f"lane {task.keys[0]}" if task.job == "lane" and not group.together else ""
        if task.job == "lane":
            group.open_lanes -= 1
            if group.open_lanes:
                return
        self._after(group, {"sequences": "lane", "lane": "results"}.get(task.job, ""))

    def _may_begin(self) -> bool:
        return bool(self.waiting) and len(self.under_way) < self.gpus + 3

    def _after(self, group: Group, layer: str) -> None:
        """Put the group in the queue of the layer, or end it."""
        if not group.left or group.outcome.failure or layer not in group.layers:
            self._ended.append(group)
        elif layer == "lane":
            self._embed(group)
        else:
            self._results.append(group)

    def _embed(self, group: Group) -> None:
        names = [sample.name for sample in group.left]
        ranks = range(self.gpus)
        if group.together:
            lanes: list[tuple[tuple[int, ...], int | None]] = [(tuple(ranks), None)]
        else:
            busy = min(self.gpus, max(1, self._shards(group.samples[0])))
            lanes = [((rank,), rank) for rank in ranks[:busy]]
            if busy < self.gpus:
                lanes.append((tuple(ranks[busy:]), HOST))
        for own, owner in lanes:
            keys = tuple(f"{rank}|{name}" for name in names for rank in own)
            task = Task("lane", keys, self.driver)
            self._lanes.append((group, task, owner))
        group.open_lanes = len(lanes)

    def _task(self, job: str, group: Group) -> tuple[Group, Task]:
        return group, Task(job, tuple(sample.name for sample in group.left), self.driver)
