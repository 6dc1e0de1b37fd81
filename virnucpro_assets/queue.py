"""The name by which the `dagster.yaml` of an existing DAGSTER_HOME finds the queue: see automation/queue.py."""

from virnucpro_assets.automation.queue import SampleQueue

__all__ = ["SampleQueue"]
