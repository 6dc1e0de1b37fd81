"""Measures how long the device computed and how long it was idle between batches, with CUDA events.

The events are recorded on the compute stream and read after the device has passed them, so nothing waits for them. On
the CPU a clock is used instead.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

Mark = torch.cuda.Event | float


@dataclass(frozen=True, slots=True)
class Spans:
    """Start and end of consecutive batches. `before` is the end of the batch before them."""

    before: Mark | None
    batches: list[tuple[Mark, Mark]]

    def busy(self) -> list[float]:
        """Seconds of each batch. On a GPU, call this only after the device has finished the last batch."""
        return [_seconds(start, stop) for start, stop in self.batches]

    def idle(self) -> float:
        """Idle seconds between the batches and before the first one."""
        ends = [self.before, *(stop for _, stop in self.batches)]
        return sum(
            _seconds(end, start)
            for end, (start, _) in zip(ends[:-1], self.batches, strict=True)
            if end is not None
        )


class DeviceClock:
    """Records start and end of every batch; `take` returns them."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._batches: list[tuple[Mark, Mark]] = []
        self._before: Mark | None = None

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Use around the work of one batch, including the copy of its tokens to the device."""
        start = self._mark()
        yield
        self._batches.append((start, self._mark()))

    def take(self) -> Spans:
        """The batches since the last call."""
        spans = Spans(self._before, self._batches)
        if self._batches:
            self._before, self._batches = self._batches[-1][1], []
        return spans

    def _mark(self) -> Mark:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _seconds(earlier: Mark, later: Mark) -> float:
    if isinstance(earlier, float) and isinstance(later, float):
        return later - earlier
    assert isinstance(earlier, torch.cuda.Event)
    assert isinstance(later, torch.cuda.Event)
    return float(earlier.elapsed_time(later)) / 1e3
