"""Collects the metrics of this platform for Prometheus. Each scrape reads the current values.

The figures come from sample folders and their telemetry, the Dagster instance, NVML and the disk. They are for
monitoring only; no other part of the program uses them.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import dagster as dg
import pynvml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from virnucpro_assets.platform.environment import dagster_home
from virnucpro_assets.platform.instance import database_errors, open_instance
from virnucpro_assets.platform.ownership import count_own
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.pipeline.overview import Overview, SampleState, overviews

RUNS = ("QUEUED", "STARTING", "STARTED", "CANCELING", "SUCCESS", "FAILURE", "CANCELED")


class PlatformCollector(Collector):
    """Collects all metrics of the platform with the VIRNUCPRO_HOME `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics. Raises StoreError for an error of the disk or of the Dagster instance's database."""
        with disk_errors(self.folder):
            found = list(overviews(self.folder))
        yield from _samples(found)
        yield from _lanes(found)
        yield from _disk(self.folder)
        yield from _runs()
        yield from _gpus()


def exposition(folder: Path) -> bytes:
    """All metrics as text in Prometheus' format."""
    return generate_latest(registry(folder))


def registry(folder: Path) -> CollectorRegistry:
    """A registry with only this platform's collector, without metrics of the exporter process itself."""
    # With auto_describe, registering would read every sample once more.
    made = CollectorRegistry(auto_describe=False)
    made.register(PlatformCollector(folder))
    return made


def _samples(found: list[Overview]) -> Iterator[Metric]:
    states = Counter(one.state for one in found)
    samples = GaugeMetricFamily("virnucpro_samples", "Samples by state.", labels=["state"])
    for state in get_args(SampleState):
        samples.add_metric([state], states[state])
    yield samples
    sizes: Counter[str] = Counter()
    for one in found:
        sizes.update(one.bytes)
    used = GaugeMetricFamily(
        "virnucpro_sample_bytes", "Bytes of all samples by product, estimated.", labels=["product"]
    )
    for product, size in sorted(sizes.items()):
        used.add_metric([product], size)
    yield used


def _lanes(found: list[Overview]) -> Iterator[Metric]:
    """Metrics of the lanes that compute now. Idle ranks have no line."""
    labels = ["sample", "product", "rank"]
    families = {
        "sequences_per_second": "Unique frames embedded per second, over the latest batches.",
        "tokens_per_second": "Tokens embedded per second, over the latest batches.",
        "seconds_left": "Seconds until the lane is done, at its pace so far.",
    }
    for name, text in families.items():
        family = GaugeMetricFamily(f"virnucpro_lane_{name}", text, labels=labels)
        for one in found:
            for lane in (lane for lane in one.lanes if lane.state == "working"):
                value = getattr(lane, name)
                if value is not None:
                    family.add_metric([one.name, lane.product, str(lane.rank)], value)
        yield family


def _disk(folder: Path) -> Iterator[Metric]:
    with disk_errors(folder):
        usage = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists()))
    yield GaugeMetricFamily(
        "virnucpro_disk_free_bytes", "Free on the disk of VIRNUCPRO_HOME.", value=usage.free
    )
    yield GaugeMetricFamily("virnucpro_disk_bytes", "Size of the disk of VIRNUCPRO_HOME.", value=usage.total)


def _runs() -> Iterator[Metric]:
    """Number of runs by status. Nothing before the Dagster instance is first used."""
    if not (dagster_home() / "dagster.yaml").exists():
        return
    family = GaugeMetricFamily(
        "virnucpro_runs", "This project's runs on the Dagster instance by status.", labels=["status"]
    )
    with database_errors(), open_instance() as instance:
        for status in RUNS:
            family.add_metric([status.lower()], count_own(instance, dg.DagsterRunStatus[status]))
    yield family


def _gpus() -> Iterator[Metric]:
    """Metrics of every GPU that the driver shows. Nothing on a machine without a GPU."""
    labels = ["gpu", "name"]
    busy = GaugeMetricFamily(
        "virnucpro_gpu_utilisation",
        "Share of the last second in which the GPU was busy, 0 to 1.",
        labels=labels,
    )
    used = GaugeMetricFamily("virnucpro_gpu_memory_used_bytes", "GPU memory in use.", labels=labels)
    size = GaugeMetricFamily("virnucpro_gpu_memory_bytes", "Size of the GPU memory.", labels=labels)
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            label = [str(index), str(pynvml.nvmlDeviceGetName(device))]
            memory = pynvml.nvmlDeviceGetMemoryInfo(device)
            used.add_metric(label, memory.used)
            size.add_metric(label, memory.total)
            busy.add_metric(label, pynvml.nvmlDeviceGetUtilizationRates(device).gpu / 100)
    except pynvml.NVMLError:
        pass  # a lost GPU, or MIG without utilisation: report the values that could be read
    finally:
        pynvml.nvmlShutdown()
    yield from (busy, used, size)
