"""The run queue: Dagster's own, with every run marked for its turn as it enters.

A sample's priority is what was asked for (`virnucpro priority`), else one less for a large sample, so that small ones
need not wait for its lanes; a priority that the run has already, from the launchpad, stays. Runs of a whole sample
are told from lanes, so that reading many samples leaves room for the GPUs' runs. Named in dagster.yaml.
"""

import contextlib
from collections.abc import Sequence

import dagster as dg
from dagster._core.run_coordinator import SubmitRunContext

from virnucpro_assets.platform.environment import home_folder
from virnucpro_assets.platform.tags import LAYER_TAG, PRIORITY_TAG, RANK_TAG, SAMPLE_TAGS
from virnucpro_core.errors import VirnucproError
from virnucpro_core.samples.priority import read_priority, write_priority
from virnucpro_core.samples.sample import Sample, open_sample

LARGE_SAMPLE_PRIORITY = -1


class SampleQueue(dg.QueuedRunCoordinator):  # type: ignore[type-arg]
    """Dagster's queue; see the module."""

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        run = context.dagster_run
        tags = {} if RANK_TAG in run.tags else {LAYER_TAG: "sample"}
        name = next((run.tags[tag] for tag in SAMPLE_TAGS if tag in run.tags), "")
        if name and PRIORITY_TAG not in run.tags:
            with contextlib.suppress(VirnucproError):  # no sample of ours: the run itself will say so
                tags |= {PRIORITY_TAG: str(priority_of(open_sample(home_folder(), name)))}
        self._instance.add_run_tags(run.run_id, tags)
        return super().submit_run(context)


def priority_of(sample: Sample) -> int:
    """What was asked for; else 0, and LARGE_SAMPLE_PRIORITY for a large sample."""
    asked = read_priority(sample)
    if asked is not None:
        return asked
    return 0 if sample.is_small else LARGE_SAMPLE_PRIORITY


def set_priority(instance: dg.DagsterInstance, samples: Sequence[Sample], priority: int) -> int:
    """Remember the samples' priority, and give it to their runs in the queue; how many those were."""
    changed = 0
    for sample in samples:
        write_priority(sample, priority)
        for tag in SAMPLE_TAGS:
            queued = dg.RunsFilter(tags={tag: sample.name}, statuses=[dg.DagsterRunStatus.QUEUED])
            for run in instance.get_runs(queued):
                instance.add_run_tags(run.run_id, {PRIORITY_TAG: str(priority)})
                changed += 1
    return changed
