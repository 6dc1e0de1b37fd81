"""The driver of `virnucpro predict`: computes one or many samples with worker processes.

Each layer of a sample is a run on the Dagster instance. The manifests say what is finished, so the same command resumes
after any interruption. A sample that fails in a run of several is tried once more alone. The others go on.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from virnucpro_assets.platform.environment import export
from virnucpro_assets.platform.history import results_are_recorded
from virnucpro_assets.platform.instance import database_errors, open_instance
from virnucpro_assets.platform.presence import hold_driver, mark_dead_runs, mark_orphans
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.platform.tags import driver_tags, samples_in
from virnucpro_assets.running.registration import say
from virnucpro_assets.running.schedule import Group, Schedule, groups
from virnucpro_assets.running.tasks import Task
from virnucpro_assets.running.workers import Crew, Worker, at_work
from virnucpro_core.engine.telemetry import Progress, read_progress
from virnucpro_core.errors import DeviceLostError, StoreError, UsageError, VirnucproError
from virnucpro_core.files.locks import locked
from virnucpro_core.pipeline.layers import open_layers
from virnucpro_core.pipeline.pace import note as note_pace
from virnucpro_core.pipeline.retention import is_cleaned
from virnucpro_core.samples.products import EMBEDDINGS
from virnucpro_core.samples.removal import remove_sample
from virnucpro_core.samples.sample import Sample
from virnucpro_core.sequences.frames import Frames

if TYPE_CHECKING:
    from dagster import DagsterInstance

POLL_SECONDS = 0.05
AGAIN = "run the same command again"
FINISHED = "nothing to compute: the results are complete"
LAYERS = {"sequences": "reading and translating", "lane": "embedding", "results": "writing results"}


class RunFailedError(VirnucproError):
    """A run failed. exit_code 2: the input was refused; 3: the same command resumes."""

    def __init__(self, what: str, *, where: str, exit_code: int) -> None:
        self.exit_code = exit_code
        said = exit_code == 2 or AGAIN in what  # `what` may be a whole line of a worker
        super().__init__(what, where=where, remedy="" if said else f"{AGAIN}: finished work is kept")


@dataclass(frozen=True, slots=True)
class Watch:
    """Functions that the driver calls while it works.

    layer: a sample that runs alone starts a layer. lanes: the progress of its lanes. done: a sample's results are
    complete. If `done` raises a VirnucproError, the sample counts as failed.
    """

    layer: Callable[[Sample, str], None]
    lanes: Callable[[Sample, list[Progress]], None]
    done: Callable[[Sample], None]


def predict(
    samples: Sequence[Sample], platform: Platform, watch: Watch, crew: Crew | None = None
) -> dict[str, VirnucproError]:
    """Compute the results of every sample. Returns the errors of failed samples, by name.

    crew: workers that may have been started already; without them they are made here. They have ended afterwards. If
    there are several samples, each error is also printed at once. After a KeyboardInterrupt the work can be resumed.
    """
    export(platform)
    crew = crew or Crew(platform.folder, platform.gpus)
    with at_work(crew.all), hold_driver(platform.folder) as driver:
        _prepare(crew, samples, driver)  # they begin while this process opens the instance
        with database_errors(), open_instance() as instance:
            mark_orphans(instance, platform.folder)
            mark_dead_runs(instance, platform.folder)
            instance.add_dynamic_partitions("sample", [s.name for s in samples])
            recorded = {s.name for s in samples if results_are_recorded(instance, s)}
        prediction = _Prediction(samples, platform, watch, driver, recorded, crew)
        prediction.run()
    with database_errors(), open_instance() as instance:
        # Our own runs, and those of other drivers that had not ended before.
        mark_orphans(instance, platform.folder)
        _forget_refused([s for s in samples if s.name in prediction.failures], instance, driver)
    return prediction.failures


def _prepare(crew: Crew, samples: Sequence[Sample], driver: str) -> None:
    """Start the workers that will have work. The GPUs' workers load the models while the samples are read.

    A sample without results has work, whatever Dagster's records say. Other workers start with their first task.
    """
    new = groups([s for s in samples if not s.results.exists()], len(crew.gpus), is_cleaned)
    if new:
        crew.host.start()
    lanes = sum(1 if group.together or group.samples[0].is_small else len(crew.gpus) for group in new)
    for rank, worker in enumerate(crew.gpus[:lanes]):
        worker.prepare(f"{rank}|{new[0].samples[0].name}", driver)


def several_failed(failures: Mapping[str, VirnucproError], samples: int) -> VirnucproError:
    """One error for a command with several samples, some failed. Its exit code is 3 if any of them can be resumed."""
    code = max(error.exit_code for error in failures.values())
    shown = ", ".join(list(failures)[:5]) + (", ..." if len(failures) > 5 else "")
    return RunFailedError(f"{len(failures)} of {samples} samples failed", where=shown, exit_code=code)


class _Prediction:
    """One call of `predict`: its workers, the task of each, and the errors of the samples.

    recorded: samples whose results are in Dagster's records. They are looked at one by one, and need no worker if their
    results verify.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        platform: Platform,
        watch: Watch,
        driver: str,
        recorded: Collection[str],
        crew: Crew,
    ) -> None:
        self.platform, self.watch, self.recorded = platform, watch, recorded
        self.failures: dict[str, VirnucproError] = {}
        self._several, self._started = len(samples) > 1, time.time()
        self._schedule = Schedule(
            groups(samples, platform.gpus, lambda s: s.name in recorded or is_cleaned(s)),
            platform.gpus,
            driver,
            begin=self._begin,
            shards=lambda s: Frames.open(s.translations).n_shards(s.settings.shard_rows),
        )
        self._crew = crew
        self._at: dict[Worker, tuple[Group, Task]] = {}

    def run(self) -> None:
        """Work until every sample has ended."""
        schedule = self._schedule
        try:
            while not schedule.is_done:
                for worker in self._crew.all:
                    self._serve(worker)
                for group in list(schedule.ended()):
                    self._finish(group)
                self._show()
                time.sleep(POLL_SECONDS)
        finally:
            for group in schedule.under_way:
                group.held.close()

    def _serve(self, worker: Worker) -> None:
        """Take the outcome of the worker's task, if it has ended, and give the worker its next task."""
        if worker in self._at:
            group, task = self._at[worker]
            outcome = worker.poll()
            if outcome is None:
                if group.together and task.is_shared and (following := self._schedule.reserve(task.rank)):
                    worker.embed_ahead(following)
                return
            del self._at[worker]
            if outcome.died and group.together:
                say(f"{worker.name}: {outcome.failure}")
            self._schedule.report(group, task, outcome)
            if not (group.together or group.open_lanes or outcome.failure):
                group.spent[task.job] = time.time() - group.began
            if task.job == "lane" and not (group.together or group.open_lanes):
                self.watch.lanes(group.samples[0], list(self._progress(group, ended=True)))
        given = (
            self._schedule.for_host()
            if worker is self._crew.host
            else self._schedule.for_gpu(self._crew.gpus.index(worker))
        )
        if given is not None:
            group, task = self._at[worker] = given
            if not group.together and group.layer != task.job:
                group.layer, group.began = task.job, time.time()
                self.watch.layer(group.samples[0], LAYERS[task.job])
            worker.give(task)

    def _begin(self, group: Group) -> None:
        """Lock the group's samples. One that another process has locked, or has changed, counts as failed."""
        for sample in group.samples:
            try:
                busy = f"sample {sample.name!r} is being predicted by another process"
                group.held.enter_context(locked(sample.lock("driver"), busy=busy))
                if self.platform.sample(sample.name) != sample:
                    raise UsageError(
                        f"another process has just changed the settings of sample {sample.name!r}",
                        where=sample.folder,
                        remedy="run the command again",
                    )
                if not group.together:
                    recorded = sample.name in self.recorded
                    group.layers = open_layers(self.platform.lane(sample.name, 0), recorded=recorded)
                    if not group.layers:
                        self.watch.layer(sample, FINISHED)
            except VirnucproError as error:
                group.failed[sample.name], group.error = str(error), error

    def _finish(self, group: Group) -> None:
        """Unlock the group's samples. Each one has results, has failed, or is tried again alone."""
        group.held.close()
        outcome = group.outcome
        lost = outcome.exit_code == DeviceLostError.exit_code
        for sample in group.samples:
            error = group.error if sample.name in group.failed else None
            if outcome.failure:
                code = 2 if outcome.exit_code == 2 else 3
                error = RunFailedError(outcome.failure, where=group.where or sample.name, exit_code=code)
            elif sample.name not in group.failed:
                error = self._done(group, sample)
            elif group.together:
                error = RunFailedError(group.failed[sample.name], where=sample.name, exit_code=3)
            if error is None:
                continue
            was_alone = len(group.samples) == 1 and not outcome.died and outcome.failure
            if group.together and not lost and not was_alone:
                self._schedule.waiting.append(Group([sample], together=False))
            else:
                self.failures[sample.name] = error
                if self._several:
                    say(str(error))

    def _done(self, group: Group, sample: Sample) -> VirnucproError | None:
        try:
            if group.spent:
                frames = Frames.open(sample.translations).n_unique
                note_pace(sample, frames, group.spent, since=self._started)
            self.watch.done(sample)
        except VirnucproError as error:
            return error
        except OSError as error:  # an error in the folder that the user gave
            what = error.strerror or str(error)
            return StoreError(
                what, where=str(error.filename or ""), remedy="check the path, its permissions and the disk"
            )
        return None

    def _show(self) -> None:
        for group in {g for g, task in self._at.values() if task.job == "lane" and not g.together}:
            self.watch.lanes(group.samples[0], list(self._progress(group)))

    def _progress(self, group: Group, *, ended: bool = False) -> Iterator[Progress]:
        """The progress of the lanes. With `ended`, also of lanes that an earlier run finished, from its telemetry."""
        for rank in range(self.platform.gpus):
            for product in EMBEDDINGS:
                file = group.samples[0].telemetry(product, rank)
                with suppress(FileNotFoundError):
                    is_ours = file.stat().st_mtime >= group.began
                    state = read_progress(file) if is_ours or ended else None
                    if state is not None and is_ours:
                        yield state
                    elif state is not None and state.world_size == self.platform.gpus:
                        yield replace(state, done=state.total, resumed=state.total, ended=True)


def _forget_refused(samples: Sequence[Sample], instance: "DagsterInstance", driver: str) -> None:
    """Remove samples whose files were refused, and the runs that said so. Nothing was computed, the error was printed.

    Samples of the inbox stay until the inbox has moved their files away, and so do their runs: in the web UI they are
    what tells a person why.
    """
    from dagster import DagsterRunStatus, RunsFilter

    removed = set()
    for sample in samples:
        is_of_inbox = any(sample.home / "inbox" in file.path.parents for file in sample.inputs)
        if is_of_inbox or not sample.rejected.exists() or sample.chunks.exists():
            continue
        with suppress(VirnucproError):  # another process works on it now
            remove_sample(sample.home, sample.name)
            instance.delete_dynamic_partition("sample", sample.name)
            removed.add(sample.name)
    if removed:
        failed = RunsFilter(tags=driver_tags(driver), statuses=[DagsterRunStatus.FAILURE])
        for run in instance.get_runs(failed):
            if removed.issuperset(samples_in(run.tags)):
                instance.delete_run(run.run_id)
