"""What a lane computes next: its own shards, then open ones of other lanes, then what is left of its own.

Every shard is claimed right before it is computed (`Claims`), not when the loader begins to prepare it: what
another lane has taken meanwhile is left out. Knows shard numbers and claims; reads no product.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from virnucpro_core.files.locks import Claims

Turn = Literal["own", "others", "left"]


class Alone:
    """No stealing: every shard, once, in order. The loader iterates over it, once for each turn."""

    def __init__(self, own: Sequence[int]) -> None:
        self.own = own
        self._turns = iter(self._plan())

    def __len__(self) -> int:
        return len(self.own)

    def __iter__(self) -> Iterator[int]:
        """Shards to prepare in this turn."""
        return iter(self.own)

    def _plan(self) -> Iterator[Turn]:
        yield "own"

    def next_turn(self) -> bool:
        """Whether there is another turn. Every shard that was begun must have been ended."""
        return next(self._turns, None) is not None

    def begin(self, shard: int) -> bool:  # noqa: ARG002 - see Share
        """Whether the shard, prepared by now, is this lane's to compute."""
        return True

    def end(self, shard: int) -> None:
        """The shard is published."""

    def owns(self, shard: int) -> bool:  # noqa: ARG002 - see Share
        """Whether the shard is one of the lane's own."""
        return True


class Share(Alone):
    """What a lane has to see done, `own`, and its part in balancing the lanes that work beside it.

    others: the shards of each lane that is at work now. looks_done: by a look at the manifest; is_done: by every byte.
    `given` are own shards that others computed.
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
        self._turn: Turn = "own"
        self._draw = random.Random(min(own, default=0))  # noqa: S311 - other lanes draw others

    def __iter__(self) -> Iterator[int]:
        turns = {"own": self._open_own, "others": self._of_others, "left": self._left}
        return turns[self._turn]()

    def _plan(self) -> Iterator[Turn]:
        yield "own"
        while self._offer(set()) is not None:
            self._turn = "others"
            yield "others"
        if self._own - self._computed - self.given:
            self._turn = "left"
            yield "left"

    def needed(self) -> bool:
        """Whether the lane needs a device: others may have done everything while it waited for one."""
        for shard in self.own:
            if shard in self.given:
                continue
            if shard in self._damaged or not self._looks_done(shard):
                return True
            if not self._is_done(shard):
                self._damaged.add(shard)  # not to be read again each time
                return True
            self.given.add(shard)
        return False

    def owns(self, shard: int) -> bool:
        return shard in self._own

    def begin(self, shard: int) -> bool:
        """Claim the shard. False: another lane computes it, or has done so since it was prepared."""
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

    def end(self, shard: int) -> None:
        self._computed.add(shard)
        self.claims.release(shard)

    def _open_own(self) -> Iterator[int]:
        return (k for k in self.own if self._is_open(k))

    def _of_others(self) -> Iterator[int]:
        offered: set[int] = set()
        while (shard := self._offer(offered)) is not None:
            offered.add(shard)
            yield shard

    def _offer(self, offered: set[int]) -> int | None:
        """An open shard of the lane that has most of them, far from where its owner is.

        Drawn from the far half, so that several lanes seldom prepare the same one.
        """
        lanes = [[k for k in lane if k not in offered and self._is_open(k)] for lane in self.others()]
        most = max(lanes, key=len, default=[])
        return self._draw.choice(most[len(most) // 2 :]) if most else None

    def _left(self) -> Iterator[int]:
        """Own shards that others had claimed, or that only look done: theirs once they verify, else computed here.

        A lane comes here without a claim, so no two lanes can wait for each other.
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
