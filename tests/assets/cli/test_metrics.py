"""The figures in Prometheus' format: what the samples, the queue, the GPUs and the disk are, on loopback only."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import prometheus_client
import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from tests.assets.conftest import NAME, Finished
from virnucpro_assets.cli import metrics
from virnucpro_assets.cli.models import metrics as command
from virnucpro_assets.platform.instance import open_instance
from virnucpro_assets.platform.tags import OWN_TAGS
from virnucpro_core.files.locks import locked
from virnucpro_core.samples.occupancy import shared_lock

Figures = dict[tuple[str, ...], float]


@pytest.fixture
def site(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finished:
    monkeypatch.setenv("VIRNUCPRO_HOME", finished.platform.home)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    return finished


def written(folder: Path) -> Figures:
    """(name, label values by the labels' names) -> value, as a Prometheus server reads what the command wrote."""
    out = folder / "virnucpro.prom"
    done = CliRunner().invoke(command, ["--out", str(out)])
    assert done.exit_code == 0, done.exception
    found = {}
    for family in text_string_to_metric_families(out.read_text()):
        assert family.documentation
        for sample in family.samples:
            found[(sample.name, *(value for _, value in sorted(sample.labels.items())))] = sample.value
    return found


def test_samples_disk_and_lanes(site: Finished, tmp_path: Path) -> None:
    figures = written(tmp_path)
    assert figures["virnucpro_samples", "called"] == 1
    assert figures["virnucpro_samples", "damaged"] == 0
    assert figures["virnucpro_sample_bytes", "esm_embeddings"] > 1000
    assert 0 < figures[("virnucpro_disk_free_bytes",)] < figures[("virnucpro_disk_bytes",)]
    assert not any(name.startswith(("virnucpro_lane", "virnucpro_runs")) for name, *_ in figures)
    shutil.rmtree(site.sample.results)
    with locked(site.sample.lock("esm_embeddings-1"), busy=""), shared_lock(site.sample.folder):
        figures = written(tmp_path)
    assert figures["virnucpro_lane_tokens_per_second", "esm_embeddings", "1", NAME] >= 0
    assert ("virnucpro_lane_tokens_per_second", "esm_embeddings", "0", NAME) not in figures


def test_the_queue_and_the_failures(site: Finished, tmp_path: Path) -> None:
    with open_instance() as instance:
        for status, count in ((dg.DagsterRunStatus.STARTED, 3), (dg.DagsterRunStatus.FAILURE, 2)):
            for _ in range(count):
                instance.add_run(dg.DagsterRun("lane", status=status, tags=OWN_TAGS))
                instance.add_run(dg.DagsterRun("lane", status=status))  # another project's
    figures = written(tmp_path)
    assert figures["virnucpro_runs", "started"] == 3
    assert figures["virnucpro_runs", "failure"] == 2
    assert figures["virnucpro_runs", "queued"] == 0


def test_gpus_are_those_of_the_driver(
    site: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda index: "NVIDIA H200",
        "nvmlDeviceGetMemoryInfo": lambda index: SimpleNamespace(used=10 + index, total=141),
        "nvmlDeviceGetUtilizationRates": lambda index: SimpleNamespace(gpu=97 + index),
    }
    for name, call in driver.items():
        monkeypatch.setattr(metrics.pynvml, name, call)
    figures = written(tmp_path)
    assert figures["virnucpro_gpu_utilisation", "1", "NVIDIA H200"] == 0.98
    assert figures["virnucpro_gpu_memory_used_bytes", "1", "NVIDIA H200"] == 11

    def lost(_: int) -> object:
        raise metrics.pynvml.NVMLError_GpuIsLost

    monkeypatch.setattr(metrics.pynvml, "nvmlDeviceGetUtilizationRates", lost)
    assert ("virnucpro_gpu_memory_bytes", "0", "NVIDIA H200") in written(tmp_path)


def test_it_is_served_on_loopback_only(site: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, str]] = []

    def start(port: int, addr: str, registry: object) -> tuple[object, object]:
        told.append((port, addr))
        return None, SimpleNamespace(join=lambda: None)

    monkeypatch.setattr(prometheus_client, "start_http_server", start)
    assert CliRunner().invoke(command, ["--port", "9200"]).exit_code == 0
    assert told == [(9200, "127.0.0.1")]
    assert CliRunner().invoke(command, ["--port", "9200", "--out", os.devnull]).exit_code != 0
