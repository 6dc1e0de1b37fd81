"""A platform in a folder of its own: two CPU lanes, the demo profile, a real instance on SQLite."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from virnucpro_assets.definitions import defs
from virnucpro_assets.graph.partitions import SAMPLES, lane_key
from virnucpro_assets.platform.resource import Platform
from virnucpro_core.models.profiles import DEMO
from virnucpro_core.samples.sample import Sample, register

GENOMES = ("NC_001422.1", "HM138502.1", "KF527485.1")
NAME, SHARD_ROWS = "genomes", 4


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return make_platform(tmp_path / "home")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


@pytest.fixture(scope="session")
def genomes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short viral genomes and a record that cannot be scored."""
    text = (DEMO / "viral.fa").read_text()
    entries = [">" + entry for entry in text.split(">") if entry.startswith(GENOMES)]
    assert len(entries) == len(GENOMES)
    file = tmp_path_factory.mktemp("genomes") / "genomes.fa"
    file.write_text("".join(entries) + ">empty\n")
    return file


@pytest.fixture
def sample(platform: Platform, instance: dg.DagsterInstance, genomes: Path) -> Sample:
    """Registered and known to the instance; nothing is computed."""
    return make_sample(platform, instance, genomes)


@dataclass(frozen=True)
class Finished:
    """A sample that has gone through the whole graph on two ranks, and the instance that recorded it."""

    sample: Sample
    platform: Platform
    instance: dg.DagsterInstance


@pytest.fixture(scope="session")
def finished_folder(tmp_path_factory: pytest.TempPathFactory, genomes: Path) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    platform = make_platform(folder / "home")
    (folder / "instance").mkdir()
    with dg.instance_for_test(temp_dir=str(folder / "instance")) as instance:
        whole_graph(make_sample(platform, instance, genomes), instance, platform)
    return folder


@pytest.fixture
def finished(finished_folder: Path, tmp_path: Path) -> Iterator[Finished]:
    """A copy of the finished sample, free to be damaged."""
    shutil.copytree(finished_folder, tmp_path, dirs_exist_ok=True)
    platform = make_platform(tmp_path / "home")
    with dg.instance_for_test(temp_dir=str(tmp_path / "instance")) as instance:
        yield Finished(platform.sample(NAME), platform, instance)


def make_platform(home: Path, gpus: int = 2) -> Platform:
    return Platform(home=str(home), gpus=gpus, device="cpu", profile="demo", chunk_size=300, workers=0)


def make_sample(platform: Platform, instance: dg.DagsterInstance, genomes: Path) -> Sample:
    instance.add_dynamic_partitions(str(SAMPLES.name), [NAME])
    return register(platform.folder, NAME, [genomes], platform.sample_settings(shard_rows=SHARD_ROWS))


def whole_graph(
    sample: Sample, instance: dg.DagsterInstance, platform: Platform
) -> list[dg.ExecuteInProcessResult]:
    """All layers, as the driver runs them."""
    keys = [lane_key(sample.name, rank) for rank in range(platform.gpus)]
    return [
        run("sequences", sample.name, instance, platform),
        *(run("lane", key, instance, platform) for key in keys),
        run("results", sample.name, instance, platform),
    ]


def run(
    job: str, key: str, instance: dg.DagsterInstance, platform: Platform, **options: object
) -> dg.ExecuteInProcessResult:
    """One of the real jobs for one partition, on this instance and platform."""
    return defs.resolve_job_def(job).execute_in_process(
        partition_key=key,
        instance=instance,
        resources={"platform": platform},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        **options,  # type: ignore[arg-type]
    )
