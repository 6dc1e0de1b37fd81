"""A backfill of several partitions, as the web UI launches it: few runs, each sample recorded, a bad one stops none."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.support.live_platform import Server, Site, wait_until, web_ui
from torture.pipeline import write_reads
from virnucpro_assets.running.runs import latest_failures

LAUNCH = """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) { __typename
  ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
STATUS = """query ($id: String!) { partitionBackfillOrError(backfillId: $id) { __typename
  ... on PartitionBackfill { status } } }"""
RUNS = "{ runsOrError { ... on Runs { results { runId status jobName tags { key value } } } } }"
REGISTER = """
import sys
from pathlib import Path
from virnucpro_assets.platform.instance import open_instance
from virnucpro_assets.platform.resource import platform_from_environment
from virnucpro_core.samples.sample import register
platform = platform_from_environment()
with open_instance() as instance:
    for file in sorted(Path(sys.argv[1]).iterdir()):
        instance.add_dynamic_partitions("sample", [file.stem])
        register(platform.folder, file.stem, [file], platform.sample_settings())
"""


def backfill(server: Server, assets: list[str], keys: list[str]) -> str:
    """The backfill's status once it has ended."""
    params = {"assetSelection": [{"path": [asset]} for asset in assets], "partitionNames": keys}
    launched = server.ask(LAUNCH, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched

    def ended() -> str:
        status = str(server.ask(STATUS, id=launched["backfillId"])["partitionBackfillOrError"]["status"])
        return "" if status == "REQUESTED" else status

    return wait_until(ended, seconds=600, what="the end of the backfill")


def runs_of(server: Server) -> list[dict[str, Any]]:
    found = server.ask(RUNS)["runsOrError"]["results"]
    return [run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]


@pytest.mark.timeout(1500)
def test_a_backfill_of_many_samples_is_a_few_runs(tmp_path: Path) -> None:
    site = Site(tmp_path / "home", extra={"VIRNUCPRO_DEVICE": "cpu", "OMP_NUM_THREADS": "1"})
    (tmp_path / "in").mkdir()
    names = [f"s{number}" for number in range(5)]
    for number, name in enumerate(names):
        write_reads(tmp_path / "in" / f"{name}.fa", records=3, seed=number)
    (tmp_path / "in" / "s2.fa").write_text(">a\nACGT\n>a\nACGT\n")
    site.run("-W", "ignore", "-c", REGISTER, str(tmp_path / "in"))
    good = [name for name in names if name != "s2"]
    with web_ui(site) as server:
        assert backfill(server, ["chunks", "translations"], names) == "COMPLETED_FAILED"
        [run] = runs_of(server)
        assert run["status"] == "SUCCESS"
        assert "line 3" in run["tags"]["virnucpro/failed"]
        lanes = ["dnabert_embeddings", "esm_embeddings", "merged_features", "predictions"]
        keys = [f"{rank}|{name}" for rank in (0, 1) for name in good]
        assert backfill(server, lanes, keys) == "COMPLETED_SUCCESS"
        shared = [
            r for r in runs_of(server) if r["tags"].get("virnucpro/keys") and r["runId"] != run["runId"]
        ]
        assert shared
        assert {r["status"] for r in shared} == {"SUCCESS"}
    with dg.DagsterInstance.from_config(str(site.home / "dagster")) as instance:
        done = {
            asset: instance.get_materialized_partitions(dg.AssetKey(asset)) for asset in ["chunks", *lanes]
        }
        assert "line 3" in latest_failures(instance, names)["s2"]
        assert not latest_failures(instance, good)
    assert "No cursor" not in (site.home / "ui.log").read_text()  # the log of a first start is quiet
    assert done == {"chunks": set(good)} | {asset: set(keys) for asset in lanes}
