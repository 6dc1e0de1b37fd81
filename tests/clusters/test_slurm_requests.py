"""What the job of each step asks Slurm for. No Slurm is needed."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support import ROOT
from virnucpro_assets.cli.main import app
from virnucpro_assets.definitions import defs
from virnucpro_assets.graph.engines import DEVICE_TAG, device_step, host_step
from virnucpro_assets.platform.places import job_environment
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.slurm.jobs import option_words
from virnucpro_assets.slurm.requests import Requests, read_requests, site_requests
from virnucpro_assets.slurm.steps import defaults_of, job_name
from virnucpro_core.errors import UsageError

STEPS = ["chunks", "esm_embeddings"]
TEXT = """
setup = "module load cuda"
[all]
account = "p1"
mem = "9G"
[device]
partition = "gpu"
mem = false
[host]
partition = "cpu"
[steps.esm_embeddings]
partition = "big"
exclusive = true
nodes = 1
"""


def read(folder: Path, text: str) -> Requests:
    (folder / "slurm.toml").write_text(text)
    return read_requests(folder / "slurm.toml", STEPS, required=True)


def test_the_nearest_table_wins(tmp_path: Path) -> None:
    requests, defaults = read(tmp_path, TEXT), {"mem": "8G", "cpus-per-task": "1"}
    assert option_words(requests.options("chunks", defaults, device=False)) == [
        "--mem=9G",
        "--cpus-per-task=1",
        "--account=p1",
        "--partition=cpu",
    ]
    assert option_words(requests.options("esm_embeddings", defaults, device=True)) == [
        "--cpus-per-task=1",
        "--account=p1",
        "--partition=big",
        "--exclusive",
        "--nodes=1",
    ]
    assert requests.setup == "module load cuda"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[device]\ntime = 04:00:00",
            "time in [device] is '04:00:00', not a text or number; put it in quotes",
        ),
        ("[steps.esm]\nmem = 1", "[steps.esm] is not known; choose from chunks, esm_embeddings"),
        ("[gpu]\nmem = 1", "gpu is not known; choose from all, check_seconds, device, host, setup, steps"),
        ("[all]\n--mem = '1'", "--mem in [all] is not an option"),
        ("[all]\noutput = 'x'", "output in [all] is set by virnucpro itself"),
        ('[all]\nmem = "1G\\n--wrap=x"', "mem in [all] is"),
        ("all = 3", "all is not a table"),
        ("check_seconds = 0", "check_seconds is 0"),
        ("check_seconds = true", "check_seconds is True"),
        ("setup = 3", "setup is not a text"),
        ("[all", "cannot be read as TOML"),
        ("[all]\ntime = 24:00:00", "texts and times stand in quotes"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(tmp_path, text)
    assert words in str(refused.value)
    assert str(tmp_path / "slurm.toml") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_was_named_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path))
    assert site_requests() == Requests()
    monkeypatch.setenv("VIRNUCPRO_SLURM", str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match="no such file; correct or unset VIRNUCPRO_SLURM"):
        site_requests()


def test_a_mistake_is_told_before_the_web_ui_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRNUCPRO_EXECUTOR", "slurm")
    (tmp_path / "slurm.toml").write_text("[esm_embeddings]\n")
    done = CliRunner().invoke(app, ["ui", "--home", str(tmp_path)])
    assert isinstance(done.exception, UsageError)
    assert "esm_embeddings is not known" in str(done.exception)
    assert not (tmp_path / "dagster").exists()


def test_every_step_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [defs.resolve_job_def(name) for name in ("sequences", "lane", "results", "clean_up")]
    steps = [node.definition.name for job in jobs for node in job.nodes]
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path))
    (tmp_path / "slurm.toml").write_text("".join(f"[steps.{step}]\nmem = '1G'\n" for step in steps))
    assert set(site_requests().steps) == set(steps)


def test_the_example_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRNUCPRO_SLURM", str(ROOT / "deploy" / "slurm" / "slurm.toml"))
    asked = site_requests().options("esm_embeddings", {"gres": "gpu:1"}, device=True)
    assert asked == {"gres": "gpu:1", "time": "2-00:00:00"}


def test_steps_that_compute_ask_for_a_gpu_unless_they_compute_on_the_cpu() -> None:
    tags = device_step(Platform(home="/nowhere"))
    assert DEVICE_TAG in tags
    assert defaults_of(tags) == {"cpus-per-task": "4", "mem": "32G", "gres": "gpu:1"}
    assert "gres" not in defaults_of(device_step(Platform(home="/nowhere", device="cpu")))
    assert defaults_of(host_step()) == {"cpus-per-task": "1", "mem": "8G"}


def test_jobs_of_one_lane_have_one_name_and_others_another() -> None:
    lane, home = {"dagster/partition": "0|sampleA"}, Path("/home/a")
    name = job_name(home, "esm_embeddings", lane, "run1")
    assert name.startswith("esm_embeddings.0.sampleA.")
    assert name == job_name(home, "esm_embeddings", lane, "run2")
    others = [
        job_name(Path("/home/b"), "esm_embeddings", lane, "run1"),
        job_name(home, "esm_embeddings", {"dagster/partition": "1|sampleA"}, "run1"),
        job_name(home, "esm_embeddings", {"virnucpro/keys": '["0|a", "0|b"]'}, "run1"),
        job_name(home, "esm_embeddings", {}, "run1"),
        job_name(home, "esm_embeddings", {}, "run2"),
    ]
    assert len({name, *others}) == 6


def test_a_job_does_not_inherit_from_the_job_that_submits_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = {
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURM_JOB_ID": "7",
        "SBATCH_PARTITION": "interactive",
        "SLURM_MEM_PER_NODE": "1",
        "CUDA_VISIBLE_DEVICES": "3",
        "VIRNUCPRO_POSTGRES_URL": "postgresql+psycopg2://u@h/d",
    }
    for name, value in outer.items():
        monkeypatch.setenv(name, value)
    given = job_environment(Platform(home=str(tmp_path), executor="slurm"))
    assert given["VIRNUCPRO_HOME"] == str(tmp_path)
    assert given["VIRNUCPRO_EXECUTOR"] == "slurm"
    assert given["PATH"] == os.environ["PATH"]
    assert {name for name in outer if name in given} == {"SLURM_CONF", "VIRNUCPRO_POSTGRES_URL"}
