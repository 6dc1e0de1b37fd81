"""Decides which shard a lane computes next: its own shards, then shards stolen from other lanes, then the rest.

"The rest" are own shards that other lanes had claimed. A lane claims a shard (`Claims`) right before it computes it,
not when the loader begins to prepare it. A prepared shard that another lane has claimed in the meantime is skipped.
Knows shard numbers and claims; reads no product.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from virnucpro_core.files.locks import Claims

Phase = Literal["own", "steal", "remaining"]


class OwnShards:
    """No stealing: every shard of `own` once, in order. The loader iterates over this object once for each phase."""

    def __init__(self, own: Sequence[int]) -> None:
        self.own = own
        self._phases = iter(self._plan())

    def __len__(self) -> int:
        return len(self.own)

    def __iter__(self) -> Iterator[int]:
        """Shards to prepare in this phase."""
        return iter(self.own)

    def _plan(self) -> Iterator[Phase]:
        yield "own"

    def next_phase(self) -> bool:
        """Go to the next phase; False if there is none. Call it only when every claimed shard is finished."""
        return next(self._phases, None) is not None

    def claim(self, shard: int) -> bool:  # noqa: ARG002 - see Share
        """Claim a prepared shard. False if this lane must not compute it."""
        return True

    def finish(self, shard: int) -> None:
        """Call this after the shard is published: releases the claim."""

    def owns(self, shard: int) -> bool:  # noqa: ARG002 - see Share
        """Whether the shard is one of this lane's own."""
        return True


class Share(OwnShards):
    """The own shards of a lane, with work stealing between lanes that run at the same time.

    others: returns the shards of each other lane that runs now. looks_done: checks the manifest entry only; is_done:
    verifies every byte. `given`: own shards that other lanes computed.
    """

    def __init__(
        self,
        own: Sequence[int],
        claims: Claims,
        *,
        others: Callable[[], Sequence[Sequence[int]]],
        looks_done: Callable[[int], bool],
        is_done: Callable[[int], bool],
    ) -> None:
        super().__init__(own)
        self.claims, self.others = claims, others
        self.given: set[int] = set()
        self._looks_done, self._is_done = looks_done, is_done
        self._own = set(own)
        self._computed: set[int] = set()
        self._damaged: set[int] = set()
        self._closed: set[int] = set()
        self._phase: Phase = "own"
        self._draw = random.Random(min(own, default=0))  # noqa: S311 - each lane has its own seed

    def __iter__(self) -> Iterator[int]:
        shards = {"own": self._open_own, "steal": self._stolen, "remaining": self._remaining}
        return shards[self._phase]()

    def _plan(self) -> Iterator[Phase]:
        yield "own"
        while self._offer(set()) is not None:
            self._phase = "steal"
            yield "steal"
        if self._own - self._computed - self.given:
            self._phase = "remaining"
            yield "remaining"

    def needed(self) -> bool:
        """Whether the lane still needs a device. While it waited, other lanes may have computed all its shards."""
        for shard in self.own:
            if shard in self.given:
                continue
            if shard in self._damaged or not self._looks_done(shard):
                return True
            if not self._is_done(shard):
                self._damaged.add(shard)  # do not verify it again at each call
                return True
            self.given.add(shard)
        return False

    def owns(self, shard: int) -> bool:
        return shard in self._own

    def claim(self, shard: int) -> bool:
        """Claim the shard. False if another lane is computing it, or has published it since it was prepared."""
        if not self.claims.take(shard):
            return False
        if not self._looks_done(shard):
            return True
        if self.owns(shard):
            if not self._is_done(shard):
                return True
            self.given.add(shard)
        self.claims.release(shard)
        return False

    def finish(self, shard: int) -> None:
        self._computed.add(shard)
        self.claims.release(shard)

    def _open_own(self) -> Iterator[int]:
        return (k for k in self.own if self._is_open(k))

    def _stolen(self) -> Iterator[int]:
        offered: set[int] = set()
        while (shard := self._offer(offered)) is not None:
            offered.add(shard)
            yield shard

    def _offer(self, offered: set[int]) -> int | None:
        """A shard to steal: an open shard of the lane with most open shards; None if there is none.

        It is a random one of the second half, which the owner reaches last, so that lanes seldom choose the same one.
        """
        lanes = [[k for k in lane if k not in offered and self._is_open(k)] for lane in self.others()]
        most = max(lanes, key=len, default=[])
        return self._draw.choice(most[len(most) // 2 :]) if most else None

    def _remaining(self) -> Iterator[int]:
        """Own shards that another lane claimed, or that look done: wait, verify, and compute those that fail.

        A lane holds no other claim here, so two lanes cannot wait for each other.
        """
        for shard in self.own:
            if shard in self._computed or shard in self.given:
                continue
            self.claims.wait(shard)
            if self._looks_done(shard) and self._is_done(shard):
                self.given.add(shard)
                self.claims.release(shard)
            else:
                yield shard

    def _is_open(self, shard: int) -> bool:
        if shard in self._closed:
            return False
        if self._looks_done(shard):
            self._closed.add(shard)
            return False
        return not self.claims.is_taken(shard)
