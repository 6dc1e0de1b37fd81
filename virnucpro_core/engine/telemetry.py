"""Writes and reads a lane's telemetry: one JSON line for each batch and shard, and a summary.

The file serves progress, remaining time and plots. It never decides which shards are done: the manifest does. Times
are in seconds, memory in bytes; tokens include the two special tokens of each sequence.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from virnucpro_core.errors import StoreError
from virnucpro_core.files.disk import disk_errors

if TYPE_CHECKING:  # torch is not needed to read telemetry
    from virnucpro_core.engine.monitor import Reading

TAIL_BYTES = 4096


@dataclass(slots=True)
class LaneSummary:
    """The summary of one lane's run of one product.

    sequences, tokens: computed in this run; those found done on resuming are not counted. shards_given: own shards that
    other lanes computed. shards_taken: shards of other lanes that this lane computed. gpu_*: from the driver's counters
    (monitor.py): mean utilisation (percent), mean power (watts), largest memory (bytes).
    """

    product: str
    rank: int
    world_size: int
    device: str
    precision: str
    attention: str
    shards: int = 0
    shards_resumed: int = 0
    shards_given: int = 0
    shards_taken: int = 0
    sequences: int = 0
    sequences_resumed: int = 0
    sequences_total: int = 0
    tokens: int = 0
    batches: int = 0
    seconds: float = 0.0
    load_seconds: float = 0.0
    packing_efficiency: float = 0.0
    io_wait_p50_ms: float = 0.0
    io_wait_p99_ms: float = 0.0
    peak_memory: int = 0
    device_busy_seconds: float = 0.0
    device_idle_seconds: float = 0.0
    overlong: int = 0
    oom_backoffs: int = 0
    fp32_recomputed: int = 0
    gpu_utilisation: float | None = None
    gpu_memory: int | None = None
    gpu_power: float | None = None

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def device_utilisation(self) -> float:
        """Part of the time between the first and the last batch in which the device computed, 0 to 1."""
        whole = self.device_busy_seconds + self.device_idle_seconds
        return self.device_busy_seconds / whole if whole else 0.0

    @property
    def sequences_per_second(self) -> float:
        return self.sequences / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Recorder:
    """Writes the telemetry file and keeps the running summary. Use as a context manager."""

    path: Path
    summary: LaneSummary
    budget_tokens: int = 0
    waits: list[float] = field(default_factory=list)
    _started: float = 0.0
    _stream: IO[str] = field(init=False)

    def __enter__(self) -> Self:
        # Create a new file. A dying process that still has the old file open cannot write into the new one.
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            self._stream = self.path.open("x", buffering=1, encoding="utf-8")
        self._started = time.monotonic()
        self._line("start", **asdict(self.summary))
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close()
        # If the lane failed, its error is raised, not a disk error of this last line.
        with contextlib.suppress(*((StoreError,) if kind else ())), disk_errors(self.path):
            self._line("end", **asdict(self.summary))
            self._stream.close()

    def elapsed(self) -> float:
        """Seconds since the lane started."""
        return time.monotonic() - self._started

    def begin(self, sequences: int, *, own: bool) -> None:
        """The lane begins to compute a shard. A stolen shard adds to the total of this lane."""
        if not own:
            self.summary.shards_taken += 1
            self.summary.sequences_total += sequences

    def given(self, shards: int, sequences: int) -> None:
        """Other lanes computed some of this lane's shards."""
        self.summary.shards_given += shards
        self.summary.sequences_total -= sequences

    def batch(
        self, *, tokens: int, sequences: int, budget: int, wait: float, counters: "Reading | None" = None
    ) -> None:
        """One batch was issued to the device after waiting `wait` seconds for the loader.

        counters: the driver's latest sample of the device, up to a second old.
        """
        self.summary.batches += 1
        self.summary.tokens += tokens
        self.summary.sequences += sequences
        self.budget_tokens += max(budget, tokens)
        self.waits.append(wait)
        known = {"gpu": counters.utilisation, "memory": counters.memory} if counters else {}
        self._line("batch", tokens=tokens, sequences=sequences, budget=budget, wait=round(wait, 6), **known)

    def device(self, busy: list[float], idle: float) -> None:
        """Seconds that the device computed in each batch, and that it was idle between batches (clock.py)."""
        self.summary.device_busy_seconds += sum(busy)
        self.summary.device_idle_seconds += idle

    def shard(self, shard: int, rows: int, sha256: str, memory: int, batches: list[float]) -> None:
        """One shard is on disk and in the manifest. batches: device seconds of each of its batches."""
        self.summary.shards += 1
        self.summary.peak_memory = max(self.summary.peak_memory, memory)
        seconds = [round(s, 5) for s in batches]
        self._line("shard", shard=shard, rows=rows, sha256=sha256, memory=memory, batch_seconds=seconds)

    def counters(self, samples: "Sequence[Reading]") -> None:
        """Summarise the samples of the driver's counters."""
        for name, combine in (("utilisation", np.mean), ("memory", np.max), ("power", np.mean)):
            known = [getattr(s, name) for s in samples if getattr(s, name) is not None]
            if known:
                setattr(self.summary, f"gpu_{name}", type(known[0])(combine(known)))

    def close(self) -> None:
        """Compute the values of the summary that need all batches."""
        self.summary.seconds = self.elapsed()
        if self.waits:
            p50, p99 = np.percentile(np.asarray(self.waits) * 1e3, [50, 99])
            self.summary.io_wait_p50_ms, self.summary.io_wait_p99_ms = float(p50), float(p99)
        if self.budget_tokens:
            self.summary.packing_efficiency = self.summary.tokens / self.budget_tokens

    def _line(self, event: str, **values: Any) -> None:
        seconds = round(self.elapsed(), 4)
        done = {"done": self.summary.sequences, "total": self.summary.sequences_total}
        line = {"event": event, "t": seconds} | done | values
        with disk_errors(self.path):
            self._stream.write(json.dumps(line) + "\n")


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a lane: sequences `done` of `total`; `resumed` of the done ones were found done at the start.

    The two rates are those of the latest batches, from the last TAIL_BYTES of the file; 0 with fewer than two batches.
    """

    product: str
    rank: int
    world_size: int
    device: str
    done: int
    resumed: int
    total: int
    seconds: float
    ended: bool
    sequences_per_second: float
    tokens_per_second: float

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the speed of this run so far; None before the first batch.

        The estimate is good because all shards have the same mix of lengths.
        """
        computed = self.done - self.resumed
        return (self.total - self.done) * self.seconds / computed if computed else None


def read_progress(path: Path) -> Progress | None:
    """The progress in a telemetry file, from its first and last lines; None if there is no complete line."""
    try:
        with path.open("rb") as stream:
            first = stream.readline()
            stream.seek(max(len(first), path.stat().st_size - TAIL_BYTES))
            tail = stream.read().split(b"\n")
    except FileNotFoundError:
        return None
    if not first.endswith(b"\n"):
        return None
    start = json.loads(first)
    whole = [line for line in tail[:-1] if line.startswith(b"{") and line.endswith(b"}")]
    last = json.loads(whole[-1]) if whole else start
    batches = [line for line in map(json.loads, whole) if line["event"] == "batch"]
    elapsed = batches[-1]["t"] - batches[0]["t"] if batches else 0.0
    sequences, tokens = (
        sum(line[what] for line in batches[1:]) / elapsed if elapsed > 0 else 0.0
        for what in ("sequences", "tokens")
    )
    return Progress(
        product=str(start["product"]),
        rank=int(start["rank"]),
        world_size=int(start["world_size"]),
        device=str(start["device"]),
        done=int(start["sequences_resumed"]) + int(last["done"]),
        resumed=int(start["sequences_resumed"]),
        total=int(last["total"]),
        seconds=float(last["t"]),
        ended=last["event"] == "end",
        sequences_per_second=sequences,
        tokens_per_second=tokens,
    )


def read_summary(path: Path) -> LaneSummary | None:
    """The summary of a lane that finished all its shards; None if it did not, or the file cannot be read."""
    known = {each.name for each in fields(LaneSummary)}
    try:
        *_, last = [{}, *read_lines(path)]
        summary = LaneSummary(**{name: value for name, value in last.items() if name in known})
    except (ValueError, TypeError):
        return None
    done = summary.sequences + summary.sequences_resumed
    return summary if last.get("event") == "end" and done >= summary.sequences_total else None


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of the file as dictionaries, without an incomplete last line."""
    with contextlib.suppress(FileNotFoundError):
        text = path.read_text(encoding="utf-8")
        for line in text.splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)
