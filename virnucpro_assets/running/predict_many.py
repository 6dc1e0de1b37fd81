"""`virnucpro predict` of several samples: small ones share model loads, each ends by itself, a bad one stops none.

A batch is a process a GPU, which takes its share of the small samples whole, and then of what others have not begun.
What a batch leaves, and what is large, goes through the graph one sample at a time, on all GPUs.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from virnucpro_assets.graph.turns import open_turns
from virnucpro_assets.platform.environment import export
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.platform.startup import lasting_imports
from virnucpro_assets.platform.tags import batch_tags
from virnucpro_assets.running.predict import POLL_SECONDS, RunFailedError
from virnucpro_assets.running.workers import Worker, at_work
from virnucpro_core.errors import VirnucproError
from virnucpro_core.pipeline.retention import is_cleaned
from virnucpro_core.samples.sample import Sample

if TYPE_CHECKING:
    import dagster as dg

WORKER = "virnucpro_assets.running.batch_worker"
# Samples that batches work on at a time: their names are each one's arguments and its run's configuration.
MOST_SAMPLES = 2000


def predict_each(
    samples: Sequence[Sample],
    platform: Platform,
    *,
    deliver: Callable[[Sample], None],
    alone: Callable[[Sample], None],
) -> dict[str, VirnucproError]:
    """Bring every sample to its results: `deliver` is called for one that a batch has finished, `alone` predicts one.

    Returns why samples failed. KeyboardInterrupt leaves everything resumable.
    """
    small = [s for s in samples if s.is_small and not is_cleaned(s)]
    finished: set[str] = set()
    if len(small) > platform.gpus:
        export(platform)
        for start in range(0, len(small), MOST_SAMPLES):
            for sample in _batches(small[start : start + MOST_SAMPLES], platform):
                if sample.name not in finished:  # a worker that was started anew says it again
                    deliver(sample)
                    finished.add(sample.name)
    failures: dict[str, VirnucproError] = {}
    for sample in samples:
        if sample.name not in finished:
            try:
                alone(sample)
            except VirnucproError as error:
                failures[sample.name] = error
                sys.stderr.write(f"virnucpro: {error}\n")
    return failures


def several_failed(failures: dict[str, VirnucproError], samples: int) -> RunFailedError:
    """The one error of a command whose samples did not all end well: 3 if any of them can be resumed."""
    code = max(error.exit_code for error in failures.values())
    shown = ", ".join(list(failures)[:5]) + (", ..." if len(failures) > 5 else "")
    return RunFailedError(f"{len(failures)} of {samples} samples failed", where=shown, exit_code=code)


def _batches(samples: Sequence[Sample], platform: Platform) -> Iterator[Sample]:
    """Samples in the order in which the batches finish them. One whose process died is not among them."""
    with lasting_imports():  # they read what was exported
        from virnucpro_assets.graph.partitions import SAMPLES
        from virnucpro_assets.platform.instance import database_errors, open_instance
        from virnucpro_assets.platform.presence import mark_dead_runs, mark_tagged_runs

    def mark_dead_batches(instance: "dg.DagsterInstance") -> None:
        for rank in range(platform.gpus):
            mark_tagged_runs(instance, platform.folder, batch_tags(rank))

    with database_errors(), open_instance() as instance:
        mark_dead_runs(instance, platform.folder)
        mark_dead_batches(instance)
        instance.add_dynamic_partitions(str(SAMPLES.name), [s.name for s in samples])
    by_name = {s.name: s for s in samples}
    names = [s.name for s in sorted(samples, key=lambda s: -s.bytes)]
    folder = platform.folder / "logs"
    logs = [folder / f"batch-{os.getpid()}-{rank}" for rank in range(platform.gpus)]
    read = [0] * len(logs)
    with open_turns(folder, len(names)) as turns:
        workers = [
            Worker([WORKER, str(rank), str(turns), *names], f"batch {rank}", log)
            for rank, log in enumerate(logs)
        ]
        with at_work(workers):
            working = True
            while working:
                time.sleep(POLL_SECONDS)
                working = any([worker.goes_on() for worker in workers])  # noqa: C419 - every one is looked after
                for rank, log in enumerate(logs):
                    lines, read[rank] = _new_lines(log.with_suffix(".out"), read[rank])
                    yield from (by_name[line[5:]] for line in lines if line.startswith("done "))
            for worker in workers:
                if worker.process.returncode:
                    sys.stderr.write(f"virnucpro: {worker.name}: {worker.last_words()}\n")
                else:
                    worker.log.with_suffix(".out").unlink()
                    worker.log.with_suffix(".err").unlink()
    with (
        database_errors(),
        open_instance() as instance,
    ):  # those killed here, and orphans that were still ending
        mark_dead_batches(instance)


def _new_lines(path: Path, start: int) -> tuple[list[str], int]:
    """Whole lines behind byte `start`, and where the next ones begin."""
    with path.open("rb") as stream:
        stream.seek(start)
        text = stream.read()
    whole = text[: text.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines(), start + len(whole)
