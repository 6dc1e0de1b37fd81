"""The process of a run, as a launcher starts it: `python -m tests.clusters.slurm_run JOB PARTITION`. Prints the id."""

import importlib
import sys

import dagster as dg
from dagster._utils.interrupts import capture_interrupts

from virnucpro_assets.definitions import defs
from virnucpro_assets.platform.instance import open_instance


def sequences() -> dg.JobDefinition:
    return defs.resolve_job_def("sequences")


def main(job: str, key: str) -> None:
    found = dg.reconstructable(globals()[job])
    tags = {"dagster/partition": key}
    with (
        open_instance() as instance,
        capture_interrupts(),
        dg.execute_job(found, instance=instance, tags=tags, raise_on_error=False) as result,
    ):
        sys.stdout.write(f"{result.run_id}\n")


if __name__ == "__main__":
    # The steps import this module by its name.
    importlib.import_module("tests.clusters.slurm_run").main(*sys.argv[1:])
