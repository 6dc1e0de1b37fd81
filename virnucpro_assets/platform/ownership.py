"""Finds the runs of this project on a Dagster instance that others may share.

An instance can also hold runs of other projects, and of other VIRNUCPRO_HOMEs. All code that lists runs uses this
module, so runs of other projects are neither counted nor changed.
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from virnucpro_assets.platform.tags import DRIVER_TAG, HOME_TAG, OWN_TAG, OWN_TAGS

PACKAGE = __name__.partition(".")[0]
PAGE = 100


def is_own(run: dg.DagsterRun) -> bool:
    """Whether the run belongs to this project, by the tags of its jobs and its queue, or by the module of its code."""
    if OWN_TAG in run.tags or DRIVER_TAG in run.tags:
        return True
    # Without tags: launched from an asset's page, on an instance without this project's queue.
    return run.job_code_origin is not None and PACKAGE in run.job_code_origin.get_repo_pointer().describe()


def is_of_home(run: dg.DagsterRun, home: Path) -> bool:
    """Whether a run of this project belongs to this home. True if its tags name no home."""
    return run.tags.get(HOME_TAG, str(home)) == str(home)


def own_records(
    instance: dg.DagsterInstance, wanted: dg.RunsFilter, limit: int | None = None
) -> Iterator[dg.RunRecord]:
    """Yield records of this project's runs, newest first, at most `limit` of them."""
    cursor, found = None, 0
    while page := instance.get_run_records(wanted, limit=PAGE, cursor=cursor):
        for record in page:
            if is_own(record.dagster_run):
                yield record
                found += 1
                if found == limit:
                    return
        cursor = page[-1].dagster_run.run_id


def own_runs(
    instance: dg.DagsterInstance, wanted: dg.RunsFilter, limit: int | None = None
) -> list[dg.DagsterRun]:
    """The runs of `own_records`."""
    return [record.dagster_run for record in own_records(instance, wanted, limit)]


def count_own(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> int:
    """How many tagged runs of this project have the status. The database counts them, so this is fast."""
    return instance.get_runs_count(dg.RunsFilter(statuses=[status], tags=OWN_TAGS))
