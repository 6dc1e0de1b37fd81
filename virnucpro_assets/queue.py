"""The old name of the run queue, for the `dagster.yaml` of an existing DAGSTER_HOME. See automation/queue.py."""

from virnucpro_assets.automation.queue import SampleQueue

__all__ = ["SampleQueue"]
