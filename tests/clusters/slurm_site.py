"""A home whose steps are jobs of a pretended Slurm, and what its runs said."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from tests.clusters.slurm import Cluster
from tests.support.live_platform import Site

NAME, SHARD_ROWS = "genomes", 2
SETTINGS = """
check_seconds = 1
setup = "echo setup of $SLURM_JOB_ID"
[host]
partition = "cpu"
[device]
partition = "gpu"
[steps.chunks]
time = "00:10:00"
"""


def slurm_site(slurm: Cluster, home: Path) -> Site:
    """A home whose steps may become jobs: commands that ask for that set VIRNUCPRO_EXECUTOR."""
    home.mkdir()
    (home / "slurm.toml").write_text(SETTINGS)
    return Site(home, extra={"VIRNUCPRO_WORKERS": "0", "VIRNUCPRO_DEVICE": ""} | slurm.environment)


def register(site: Site, genomes: Path) -> None:
    code = f"""
from pathlib import Path
from virnucpro_assets.platform.instance import open_instance
from virnucpro_assets.platform.resource import platform_from_environment
from virnucpro_core.samples.sample import register
platform = platform_from_environment()
register(platform.folder, {NAME!r}, [Path({str(genomes)!r})], platform.sample_settings(shard_rows={SHARD_ROWS}))
with open_instance() as instance:
    instance.add_dynamic_partitions("sample", [{NAME!r}])
"""
    site.run("-W", "ignore", "-c", code)


@contextlib.contextmanager
def instance_of(site: Site) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(site.home / "dagster")) as instance:
        yield instance


def engine_events(instance: dg.DagsterInstance, run: str) -> list[tuple[str, str, dict[str, str]]]:
    """(step, message, metadata) of what the executor said."""
    found = []
    for entry in instance.all_logs(run, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        if event is not None:
            metadata = event.engine_event_data.metadata
            texts = {name: str(value.value) for name, value in metadata.items()}
            found.append((event.step_key or "", event.message or "", texts))
    return found
