"""Which runs of an instance are ours: others may keep their runs on it, and other homes of this project theirs.

What lists runs asks here; what is not ours is neither counted nor touched.
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from virnucpro_assets.platform.tags import DRIVER_TAG, HOME_TAG, OWN_TAG, OWN_TAGS

PACKAGE = __name__.partition(".")[0]
PAGE = 100


def is_own(run: dg.DagsterRun) -> bool:
    """Whether the run is of this project: by the tag that its jobs and its queue give, or by the code it is made of."""
    if OWN_TAG in run.tags or DRIVER_TAG in run.tags:
        return True
    # Launched from an asset's page, on an instance without this project's queue.
    return run.job_code_origin is not None and PACKAGE in run.job_code_origin.get_repo_pointer().describe()


def is_of_home(run: dg.DagsterRun, home: Path) -> bool:
    """Whether a run that `is_own` may be worked on below this home: nothing says that it is of another one."""
    return run.tags.get(HOME_TAG, str(home)) == str(home)


def own_records(
    instance: dg.DagsterInstance, wanted: dg.RunsFilter, limit: int | None = None
) -> Iterator[dg.RunRecord]:
    """Records of this project's runs, the newest first, at most `limit`."""
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
    """How many tagged runs of this project have the status; counted by the database, however many there are."""
    return instance.get_runs_count(dg.RunsFilter(statuses=[status], tags=OWN_TAGS))
