"""Dagster's own commands, as docs/running.md shows them, on a home with a finished sample."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from tests.support import ROOT

pytestmark = [pytest.mark.torture, pytest.mark.timeout(600)]
BIN = Path(sys.executable).parent
KEY = "0|demo"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where `demo` has been predicted on one rank."""
    home = tmp_path_factory.mktemp("dg")
    reads = home / "reads.fa"
    reads.write_text(">phage\n" + "ATGGCTGCTGCTAAAGCTGCTGGT" * 20 + "\n")
    _run(
        home,
        "virnucpro",
        "predict",
        str(reads),
        "--sample",
        "demo",
        "--profile",
        "demo",
        "--out",
        str(home / "out"),
    )
    return home


def _run(home: Path, program: str, *arguments: str) -> str:
    """The command in the checkout, as docs/running.md says; its standard output."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("VIRNUCPRO_", "DAGSTER_"))}
    variables |= {"VIRNUCPRO_HOME": str(home), "DAGSTER_HOME": str(home / "dagster"), "VIRNUCPRO_GPUS": "1"}
    variables |= {"VIRNUCPRO_DEVICE": "cpu", "VIRNUCPRO_PROFILE": "demo"}
    ended = subprocess.run(
        [str(BIN / program), *arguments], cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def _ended(home: Path) -> list[dg.DagsterRunStatus]:
    """How the runs of the lane that these commands launched ended."""
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        runs = instance.get_runs(dg.RunsFilter(job_name="__ASSET_JOB"))
        return [run.status for run in runs if run.tags.get("dagster/partition") == KEY]


def test_dg_checks_and_lists_the_definitions(home: Path) -> None:
    assert "All definitions loaded successfully" in _run(home, "dg", "check", "defs")
    listed = {
        asset["asset_key"] for asset in json.loads(_run(home, "dg", "list", "defs", "--json"))["assets"]
    }
    assert {"inbox", "chunks", "esm_embeddings", "consensus"} <= listed


def test_a_lane_is_launched_by_either_command(home: Path) -> None:
    _run(home, "dg", "launch", "--assets", "esm_embeddings", "--partition", KEY)
    assert _ended(home) == [dg.DagsterRunStatus.SUCCESS]
    module = ("-m", "virnucpro_assets.definitions")
    _run(home, "dagster", "asset", "materialize", *module, "--select", "esm_embeddings", "--partition", KEY)
    assert _ended(home) == [dg.DagsterRunStatus.SUCCESS] * 2
