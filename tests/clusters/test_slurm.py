"""Steps as jobs of a real Slurm on this machine, whose nodes die and whose jobs are preempted, cancelled, requeued."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from tests.assets.platform.test_postgres import SERVER
from tests.clusters.slurm import Cluster, cluster, possible, wait_until
from tests.clusters.slurm_site import NAME, SHARD_ROWS, engine_events, instance_of, register, slurm_site
from tests.support import ROOT
from tests.support.live_platform import Site
from torture.postgres import DATABASE, postgres_storage
from virnucpro_assets.cli.main import app
from virnucpro_assets.platform.environment import POSTGRES_URL
from virnucpro_assets.slurm.jobs import FORGOTTEN, Job, Slurm, SlurmBusyError
from virnucpro_core.errors import UsageError
from virnucpro_core.models.profiles import DEMO

pytestmark = pytest.mark.skipif(
    not possible(), reason="this user cannot start a Slurm of our own, or it is not installed"
)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("slurm"), nodes=3) as made:
        yield made


@pytest.fixture
def commands(slurm: Cluster) -> Slurm:
    return Slurm(dict(os.environ) | slurm.environment)


@pytest.fixture
def genomes(tmp_path: Path) -> Path:
    return Path(shutil.copy(DEMO / "viral.fa", tmp_path / f"{NAME}.fa"))


@pytest.fixture
def site(slurm: Cluster, tmp_path: Path) -> Site:
    return slurm_site(slurm, tmp_path / "home")


def test_a_job_is_submitted_watched_requeued_and_cancelled(
    slurm: Cluster, commands: Slurm, tmp_path: Path
) -> None:
    options = {"job-name": "one", "comment": "first", "requeue": True, "mem": "1G", "output": "/dev/null"}
    number = commands.submit("#!/bin/sh\nsleep 300\n", options)

    def job() -> Job:
        return commands.look(number)

    wait_until(lambda: job().state == "RUNNING", 30, "the job's start")
    assert job().node in slurm.names
    assert not job().ended
    assert commands.find("one", "first") == number
    assert commands.find("one", "second") == ""
    slurm.command("scontrol", "requeue", number)
    wait_until(lambda: job().restarts == 1 and job().state == "RUNNING", 60, "the job's second start")
    commands.cancel(number)
    wait_until(lambda: job().ended, 30, "the job's end")
    assert job().state == "CANCELLED"
    assert commands.find("one", "first") == ""
    assert commands.look("999999") == Job("999999", FORGOTTEN)  # this cluster keeps no accounts


def test_a_job_that_is_preempted_for_good_is_called_that(slurm: Cluster, commands: Slurm) -> None:
    whole = {"gres": "gpu:1", "nodelist": slurm.names[0], "output": "/dev/null"}
    cheap = commands.submit("#!/bin/sh\nsleep 300\n", whole | {"partition": "cheap", "requeue": True})
    wait_until(lambda: commands.look(cheap).state == "RUNNING", 30, "the job's start")
    urgent = commands.submit("#!/bin/sh\n", whole | {"partition": "urgent"})
    wait_until(lambda: commands.look(cheap).ended, 30, "the preemption")
    assert commands.look(cheap).state == "PREEMPTED"
    wait_until(lambda: commands.look(urgent).state == "COMPLETED", 30, "the end of the urgent job")


def test_what_slurm_refuses_is_one_line_and_a_silent_controller_is_not_a_refusal(
    commands: Slurm, tmp_path: Path, slurm: Cluster
) -> None:
    with pytest.raises(UsageError, match=r"^sbatch: Batch job submission failed: Invalid partition"):
        commands.submit("#!/bin/sh\n", {"partition": "nowhere"})
    assert "to start at" in commands.test({"partition": "gpu", "gres": "gpu:1"})
    with pytest.raises(UsageError, match="not available"):
        commands.test({"partition": "gpu", "gres": "gpu:2"})
    text = (slurm.folder / "slurm.conf").read_text()
    [port] = [line for line in text.splitlines() if line.startswith("SlurmctldPort=")]
    (tmp_path / "slurm.conf").write_text(text.replace(port, "SlurmctldPort=1\nMessageTimeout=2"))
    silent = Slurm(dict(commands.environment) | {"SLURM_CONF": str(tmp_path / "slurm.conf")})
    with pytest.raises(SlurmBusyError, match="contact slurm controller"):
        silent.look("1")


def test_without_slurm_on_the_path_one_line_says_so() -> None:
    with pytest.raises(UsageError, match="there is no program sbatch on PATH"):
        Slurm({"PATH": "/nowhere"}).submit("", {})


def test_the_doctor_asks_slurm_whether_it_would_take_the_jobs(
    slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"VIRNUCPRO_EXECUTOR": "slurm", "VIRNUCPRO_GPUS": "2", "VIRNUCPRO_DEVICE": ""}
    for name, value in (settings | slurm.environment).items():
        monkeypatch.setenv(name, value)
    words = ["doctor", "--profile", "demo", "--home", str(tmp_path)]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    assert re.search(r"^ok +slurm host +--cpus-per-task=1 --mem=8G: .*to start at", told.output, re.MULTILINE)
    assert re.search(r"^ok +slurm device .*--gres=gpu:1: .*to start at", told.output, re.MULTILINE)
    (tmp_path / "slurm.toml").write_text('[device]\npartition = "nowhere"\n')
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 2
    assert re.search(r"^MISSING +slurm device .*Invalid partition", told.output, re.MULTILINE)


def test_the_steps_of_a_run_are_jobs_that_its_log_shows(site: Site, slurm: Cluster, genomes: Path) -> None:
    register(site, genomes)
    before = len(slurm.jobs())
    run = run_sequences(site)
    with instance_of(site) as instance:
        found = instance.get_run_by_id(run)
        assert found is not None
        assert found.status is dg.DagsterRunStatus.SUCCESS
        said = engine_events(instance, run)
    steps = ("chunks", "chunks_checks", "translations", "translations_checks")
    jobs = {job["JobName"].partition(".")[0]: job for job in slurm.jobs() if f".{NAME}." in job["JobName"]}
    assert set(jobs) == set(steps)
    for step in steps:
        assert jobs[step]["JobState"] == "COMPLETED"
        assert jobs[step]["Partition"] == "cpu"
        [submitted] = [e for e in said if e[0] == step and "submitted to Slurm" in e[1]]
        assert submitted[2]["job"] == jobs[step]["JobId"]
        log = Path(submitted[2]["log"])
        assert log.read_text().startswith(f"setup of {jobs[step]['JobId']}\n")
    assert jobs["chunks"]["TimeLimit"] == "00:10:00"
    assert jobs["translations"]["TimeLimit"] == "UNLIMITED"

    # The same home, with a partition that does not exist.
    (site.home / "slurm.toml").write_text('check_seconds = 1\n[host]\npartition = "nowhere"\n')
    run = run_sequences(site)
    with instance_of(site) as instance:
        [failure] = instance.all_logs(run, of_type=dg.DagsterEventType.STEP_FAILURE)
    assert failure.step_key == "chunks"
    assert "Slurm refuses the job: sbatch: Batch job submission failed: " in str(failure.dagster_event)
    assert len(slurm.jobs()) == len(jobs) + before


@pytest.mark.slurm
@pytest.mark.skipif(
    not SERVER or not importlib.util.find_spec("dagster_postgres"),
    reason="needs Debian's postgresql and virnucpro[postgres]",
)
def test_jobs_record_their_steps_in_postgresql(
    site: Site, genomes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres_storage(tmp_path / "postgres") as (config, environment):
        port = config.split("port: ")[1].split()[0]
        user, password = environment["VIRNUCPRO_PG_USER"], environment["VIRNUCPRO_PG_PASSWORD"]
        monkeypatch.setenv(
            POSTGRES_URL, f"postgresql+psycopg2://{user}:{password}@127.0.0.1:{port}/{DATABASE}"
        )
        register(site, genomes)
        run = run_sequences(site)
        with instance_of(site) as instance:
            found = instance.get_run_by_id(run)
            assert found is not None
            assert found.status is dg.DagsterRunStatus.SUCCESS
            assert instance.get_latest_materialization_event(dg.AssetKey("translations")) is not None
        assert not (site.home / "dagster" / "history").exists()


def run_sequences(site: Site) -> str:
    """The id of a run of `sequences` whose steps are jobs."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.clusters.slurm_run", "sequences", NAME],
        env=site.environment | {"VIRNUCPRO_EXECUTOR": "slurm"},
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout.split()[-1]


@pytest.mark.slurm
def test_one_script_predicts_on_one_node_and_resumes_after_a_requeue(
    site: Site, slurm: Cluster, genomes: Path, tmp_path: Path
) -> None:
    script, out, temporary = ROOT / "deploy" / "slurm" / "predict.sbatch", tmp_path / "out", tmp_path / "node"
    temporary.mkdir()
    environment = site.environment | {
        "TMPDIR": str(temporary),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    del environment["DAGSTER_HOME"]
    options = ["--profile", "demo", "--chunk-size", "300", "--out", str(out), "--shard-rows", str(SHARD_ROWS)]
    submitted = subprocess.run(
        ["sbatch", "--parsable", "--partition=gpu", str(script), str(genomes), *options],
        env=environment,
        cwd=tmp_path,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    number = submitted.stdout.strip()
    shards = site.home / "samples" / NAME / "dnabert_embeddings"
    wait_until(lambda: list(shards.glob("[0-9]*.json")), 200, "the first shard", every=0.02)
    slurm.command("scontrol", "requeue", number)
    wait_until(lambda: slurm.job(number)["JobState"] == "COMPLETED", 250, "the job's end")
    assert slurm.job(number)["Restarts"] == "1"
    assert (out / "contigs.tsv").exists()
    assert not (site.home / "dagster").exists()
    wait_until(lambda: not list(temporary.iterdir()), 30, "the end of the node's scratch folder")
