"""How fast samples went through each step on this machine: noted by `virnucpro predict`, used to estimate times.

`pace.json` in the home folder holds the seconds per unique frame of the latest large sample, by step and kind. Steps
are the products of the encoders, and SEQUENCES, SCORES (merging, checks and scores of a lane) and RESULTS. The kind
says what the speed depends on: profile, precision, and CPU or GPU.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from virnucpro_core.engine.telemetry import read_summary
from virnucpro_core.files.locks import locked
from virnucpro_core.files.publish import publish_json
from virnucpro_core.samples.products import EMBEDDINGS, ESM
from virnucpro_core.samples.sample import Sample
from virnucpro_core.samples.settings import SampleSettings

FILE = "pace.json"
SEQUENCES, LANE, SCORES, RESULTS = "sequences", "lane", "scores", "results"
# Smaller samples say little: starting takes most of their time.
LEAST_FRAMES = 5_000


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds per unique frame: step -> kind -> seconds."""

    seconds: Mapping[str, Mapping[str, float]]

    @classmethod
    def read(cls, home: Path) -> "Pace":
        """What was noted; empty if nothing was, or if the file is damaged: it only serves estimates."""
        with suppress(OSError, ValueError, TypeError, AttributeError):
            noted = json.loads((home / FILE).read_bytes())
            return cls({s: {k: float(v) for k, v in kinds.items()} for s, kinds in noted.items()})
        return cls({})

    def of(self, step: str, kind: str, frames: int) -> float | None:
        """Estimated seconds of the step for so many unique frames; None if nothing was noted for this kind."""
        each = self.seconds.get(step, {}).get(kind)
        return None if each is None else each * frames

    def after(self, step: str, kind: str, *, lane: int, frames: int) -> float | None:
        """Estimated seconds of everything that follows the step. lane: frames of the lane, frames: of the sample.

        None if a step was not noted.
        """
        order = (SEQUENCES, *EMBEDDINGS, SCORES, RESULTS)
        following = order[order.index(step) + 1 :]
        known = [self.of(s, kind, frames if s == RESULTS else lane) for s in following]
        return None if None in known else sum(seconds for seconds in known if seconds is not None)


def kind_of(settings: SampleSettings, device: str) -> str:
    """The kind of a sample with these settings on this device: "cpu" or any other name for a GPU."""
    return f"{settings.profile}, {settings.precision}, {'cpu' if device == 'cpu' else 'GPU'}"


def note(sample: Sample, frames: int, spent: Mapping[str, float], *, since: float) -> None:
    """Note the pace of a sample that one command computed from start to end.

    frames: its unique frames. spent: seconds of the layers SEQUENCES, LANE and RESULTS. since: when the command began,
    in seconds since 1970. Nothing is noted for a small sample, nor if shards were found done or computed by other
    lanes, since the times say little then.
    """
    files = [
        file
        for p in EMBEDDINGS
        if (file := sample.telemetry(p, 0)).exists() and file.stat().st_mtime >= since
    ]
    done = {lane.product: lane for file in files if (lane := read_summary(file)) is not None}
    if frames < LEAST_FRAMES or set(spent) != {SEQUENCES, LANE, RESULTS} or len(done) < len(EMBEDDINGS):
        return
    own = min(lane.sequences for lane in done.values())
    if (
        any(lane.shards_resumed or lane.shards_given or lane.shards_taken for lane in done.values())
        or not own
    ):
        return
    scores = max(0.0, spent[LANE] - sum(lane.seconds for lane in done.values()))
    each = {product: lane.seconds / own for product, lane in done.items()} | {SCORES: scores / own}
    each |= {step: spent[step] / frames for step in (SEQUENCES, RESULTS)}
    home, kind = sample.home, kind_of(sample.settings, done[ESM].device)
    with locked(home / "locks" / "pace.lock", busy="another process notes its pace", wait=True):
        noted = {step: dict(kinds) for step, kinds in Pace.read(home).seconds.items()}
        for step, seconds in each.items():
            noted.setdefault(step, {})[kind] = seconds
        publish_json(home / FILE, noted)
