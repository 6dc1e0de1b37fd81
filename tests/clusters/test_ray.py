"""The same assets on a real Ray cluster: four machines made of namespaces, one of which dies at work."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import dagster as dg
import pytest

from tests.assets.conftest import make_platform, run
from tests.clusters.machines import enclosed, possible
from tests.support import ROOT
from virnucpro_assets.graph.partitions import SAMPLES, lane_key
from virnucpro_core.models.profiles import DEMO
from virnucpro_core.samples.sample import register

pytest.importorskip("dagster_ray", reason="Ray is not installed: pip install 'virnucpro[ray]'")
SHARD_ROWS = 4
NAME = "genomes"


@pytest.mark.ray
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not possible(), reason="this system does not let us make network namespaces")
def test_a_machine_that_dies_at_work_changes_no_byte(tmp_path: Path) -> None:
    local, shared = make_platform(tmp_path / "local"), make_platform(tmp_path / "shared")
    samples = [
        register(p.folder, NAME, [DEMO / "viral.fa"], p.sample_settings(shard_rows=SHARD_ROWS))
        for p in (local, shared)
    ]
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions(str(SAMPLES.name), [NAME])
        for platform in (local, shared):
            run("sequences", NAME, instance, platform)
        for rank in range(2):
            run("lane", lane_key(NAME, rank), instance, local)

    environment = dict(os.environ) | {
        "VIRNUCPRO_HOME": str(shared.folder),
        "DAGSTER_HOME": str(tmp_path / "dagster"),
        "VIRNUCPRO_GPUS": "2",
        "VIRNUCPRO_DEVICE": "",
        "VIRNUCPRO_PROFILE": "demo",
        "VIRNUCPRO_WORKERS": "0",
        "PYTHONPATH": str(ROOT),
    }
    command = enclosed("tests.clusters.ray_campaign", str(tmp_path), NAME)
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=1500
    )
    seen = json.loads(ended.stdout.splitlines()[-1])

    assert seen["launcher"] == "RayRunLauncher"
    assert seen["runs"] == ["SUCCESS", "SUCCESS"]
    assert "esm_embeddings" in seen["retried"]
    assert seen["kept"], "what was on disk before the machine died was computed again"
    assert seen["devices"] in ("0", "1")
    assert seen["locks"][:2] == [3, 0]
    assert seen["locks"][2] == "the lock of machine-1 works here"
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions(str(SAMPLES.name), [NAME])
        for platform in (local, shared):
            run("results", NAME, instance, platform)
    expected = digests(samples[0].folder)
    assert len(expected) > 40
    assert digests(samples[1].folder) == expected


def digests(sample: Path) -> dict[str, str]:
    """sha256 of every shard and result file."""
    files = [*sample.glob("*/*.h5"), *(sample / "results").glob("*")]
    return {str(f.relative_to(sample)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
