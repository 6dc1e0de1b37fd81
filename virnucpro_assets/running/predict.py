"""`virnucpro predict`: a sample layer by layer through the graph; every lane is a process of its own.

The layers are runs on the Dagster instance. What is done already is found by the manifests, so the same
command resumes whatever stopped it.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from virnucpro_assets.platform.environment import export
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.platform.startup import lasting_imports
from virnucpro_assets.platform.tags import driver_tags
from virnucpro_assets.running.workers import Worker, at_work
from virnucpro_core.engine.telemetry import Progress, read_progress
from virnucpro_core.errors import UsageError, VirnucproError
from virnucpro_core.files.locks import locked
from virnucpro_core.pipeline.layers import open_layers
from virnucpro_core.samples.products import EMBEDDINGS
from virnucpro_core.samples.sample import Sample

POLL_SECONDS = 0.2
LANE = "virnucpro_assets.running.lane"


class RunFailedError(VirnucproError):
    """A run of the graph ended without its product. exit_code 2: refused input; 3: resumable."""

    def __init__(self, what: str, *, where: str, exit_code: int) -> None:
        self.exit_code = exit_code
        remedy = "" if exit_code == 2 else "run the same command again: what is finished is kept"
        super().__init__(what, where=where, remedy=remedy)


@dataclass(frozen=True, slots=True)
class Watch:
    """What the driver tells while it works: the layer that begins, and how far the lanes are."""

    layer: Callable[[str], None]
    lanes: Callable[[list[Progress]], None]


def predict(sample: Sample, platform: Platform, watch: Watch) -> None:
    """Bring the sample to its results folder. Raises RunFailedError; KeyboardInterrupt leaves everything resumable."""
    export(platform)
    with lasting_imports():  # the definitions read what was exported
        from virnucpro_assets.graph.partitions import SAMPLES
        from virnucpro_assets.platform.instance import database_errors, open_instance
        from virnucpro_assets.platform.presence import mark_dead_runs, mark_tagged_runs
        from virnucpro_assets.running.runs import run_job

    with locked(sample.lock("driver"), busy=f"sample {sample.name!r} is being predicted by another process"):
        if platform.sample(sample.name) != sample:
            raise UsageError(
                f"sample {sample.name!r} was given other settings by another process just now",
                where=sample.folder,
                remedy="run the command again",
            )
        layers = open_layers(platform.lane(sample.name, 0))
        with database_errors(), open_instance() as instance:
            mark_tagged_runs(instance, platform.folder, driver_tags(sample.name))
            mark_dead_runs(instance, platform.folder)
            instance.add_dynamic_partitions(str(SAMPLES.name), [sample.name])
        if not layers:
            watch.layer("results are whole and intermediates were released: nothing to compute")
        if "sequences" in layers:
            watch.layer("reading and translating")
            _expect(run_job("sequences", sample.name, sample.name), sample.name)
        if "lane" in layers:
            watch.layer("embedding")
            _run_lanes(sample, platform, watch)
        if "results" in layers:
            watch.layer("writing results")
            _expect(run_job("results", sample.name, sample.name), sample.name)
        with (
            open_instance() as instance
        ):  # orphans of an earlier driver that were still ending at the beginning
            mark_tagged_runs(instance, platform.folder, driver_tags(sample.name))


def _run_lanes(sample: Sample, platform: Platform, watch: Watch) -> None:
    for rank in range(platform.gpus):
        for product in EMBEDDINGS:
            sample.telemetry(product, rank).unlink(missing_ok=True)
    logs = sample.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    lanes_of = [
        Worker([LANE, sample.name, str(rank)], f"lane {rank}|{sample.name}", logs / f"lane-{rank}")
        for rank in range(platform.gpus)
    ]
    with at_work(lanes_of) as lanes:
        while any([lane.goes_on() for lane in lanes]):  # noqa: C419 - every lane is looked after
            watch.lanes(list(_progress(sample, platform.gpus)))
            time.sleep(POLL_SECONDS)
        watch.lanes(list(_progress(sample, platform.gpus)))
        failed = [(rank, lane) for rank, lane in enumerate(lanes) if lane.process.returncode]
    for rank, lane in failed:
        code = lane.process.returncode
        raise RunFailedError(
            lane.last_words(), where=f"lane {rank}|{sample.name}", exit_code=2 if code == 2 else 3
        )


def _progress(sample: Sample, gpus: int) -> Iterator[Progress]:
    for rank in range(gpus):
        for product in EMBEDDINGS:
            state = read_progress(sample.telemetry(product, rank))
            if state is not None:
                yield state


def _expect(outcome: Any, sample: str) -> None:
    if outcome.failure:
        raise RunFailedError(outcome.failure, where=sample, exit_code=outcome.exit_code)
