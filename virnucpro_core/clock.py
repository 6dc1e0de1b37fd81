"""How long the device computed, and how long it stood idle between batches: by its own events, not by sampling.

On a GPU the marks are CUDA events on the compute stream, read after the device has passed them, so nothing waits
for them. On the CPU they are readings of a clock.
"""

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

Mark = torch.cuda.Event | float


class DeviceClock:
    """Marks around every batch. `read` adds up the spans that have been passed since it was last called."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._spans: list[tuple[Mark, Mark]] = []
        self._last: Mark | None = None

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Around the work of one batch, the copy of its tokens to the device included."""
        start = self._mark()
        yield
        self._spans.append((start, self._mark()))

    def take(self) -> list[tuple[Mark, Mark]]:
        """The spans so far, with the gap before the first one told by a span of no length; then begins anew."""
        spans = ([(self._last, self._last)] if self._last is not None else []) + self._spans
        self._last, self._spans = (self._spans[-1][1] if self._spans else self._last), []
        return spans

    def _mark(self) -> Mark:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def busy_and_idle(spans: list[tuple[Mark, Mark]]) -> tuple[list[float], float]:
    """Seconds of each span, and seconds between them; on a GPU only once the last one has been passed."""
    busy = [_seconds(start, stop) for start, stop in spans]
    idle = sum(_seconds(before[1], after[0]) for before, after in itertools.pairwise(spans))
    return busy, idle


def _seconds(earlier: Mark, later: Mark) -> float:
    if isinstance(earlier, float) and isinstance(later, float):
        return later - earlier
    assert isinstance(earlier, torch.cuda.Event)
    assert isinstance(later, torch.cuda.Event)
    return float(earlier.elapsed_time(later)) / 1e3
