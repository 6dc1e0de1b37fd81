"""The run queue: Dagster's own queue, which also tags each run as it enters. `dagster.yaml` names this class.

The tags are:
- Priority. `virnucpro priority` sets it. Otherwise a large sample gets -1 and a small one 0, so that small samples need
  not wait for the lanes of a large one. A priority that was set in the launchpad stays.
- Layer, for runs of whole samples. `dagster.yaml` limits these, so that the GPUs' runs always have room.
- GPU rank, for runs of lanes. One run at a time computes on each rank.
- Partition keys, for runs over a range of partitions.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence

import dagster as dg
from dagster._core.run_coordinator import SubmitRunContext

from virnucpro_assets.platform.environment import home_folder
from virnucpro_assets.platform.ownership import is_own, own_runs
from virnucpro_assets.platform.tags import (
    DEVICE_TAG,
    HOME_TAG,
    KEYS_TAG,
    LAYER_TAG,
    OWN_TAGS,
    PRIORITY_TAG,
    RANK_TAG,
    SAMPLE_TAGS,
    keys_between,
    keys_in,
)
from virnucpro_core.errors import VirnucproError
from virnucpro_core.samples.priority import read_priority, write_priority
from virnucpro_core.samples.sample import Sample, open_sample

LARGE_SAMPLE_PRIORITY = -1


class SampleQueue(dg.QueuedRunCoordinator):  # type: ignore[type-arg]
    """Dagster's queue, which also tags the runs of this project. The module's docstring lists the tags."""

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        run = context.dagster_run
        if not is_own(run):  # the run belongs to another project on the same instance
            return super().submit_run(context)
        tags = OWN_TAGS | {HOME_TAG: str(home_folder())} | self._keys(run.tags)
        ranks = [key.partition("|")[0] for key in keys_in(dict(run.tags) | tags) if "|" in key]
        rank = run.tags.get(RANK_TAG) or next(iter(ranks), "")
        tags |= {DEVICE_TAG: run.tags.get(DEVICE_TAG, rank)} if rank else {LAYER_TAG: "sample"}
        name = next((run.tags[tag] for tag in SAMPLE_TAGS if tag in run.tags), "")
        if name and PRIORITY_TAG not in run.tags:
            # An unknown sample raises here too; the run itself will report it.
            with contextlib.suppress(VirnucproError):
                tags |= {PRIORITY_TAG: str(priority_of(open_sample(home_folder(), name)))}
        self._instance.add_run_tags(run.run_id, tags)
        return super().submit_run(context)

    def _keys(self, tags: Mapping[str, str]) -> dict[str, str]:
        """List the keys of a run over a range. Samples that are added or removed while it is queued change nothing."""
        keys = [] if KEYS_TAG in tags else keys_between(tags, self._instance.get_dynamic_partitions("sample"))
        return {KEYS_TAG: json.dumps(keys)} if keys else {}


def priority_of(sample: Sample) -> int:
    """The priority that the user set; otherwise LARGE_SAMPLE_PRIORITY for a large sample and 0 for a small one."""
    asked = read_priority(sample)
    if asked is not None:
        return asked
    return 0 if sample.is_small else LARGE_SAMPLE_PRIORITY


def set_priority(instance: dg.DagsterInstance, samples: Sequence[Sample], priority: int) -> int:
    """Store the samples' priority and set it on their queued runs. Returns the number of these runs."""
    changed = 0
    for sample in samples:
        write_priority(sample, priority)
        for tag in SAMPLE_TAGS:
            queued = dg.RunsFilter(tags={tag: sample.name}, statuses=[dg.DagsterRunStatus.QUEUED])
            for run in own_runs(instance, queued):
                instance.add_run_tags(run.run_id, {PRIORITY_TAG: str(priority)})
                changed += 1
    return changed
