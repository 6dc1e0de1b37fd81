"""Lanes on a Slurm of three nodes, launched in the web UI: a node dies, jobs are preempted, cancelled and killed."""

import dataclasses
import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.clusters.slurm import Cluster, cluster, possible, wait_until
from tests.clusters.slurm_site import NAME, engine_events, instance_of, register, slurm_site
from tests.support.live_platform import Server, Site, web_ui
from virnucpro_core.files.locks import is_locked
from virnucpro_core.models.profiles import DEMO

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not possible(), reason="this user cannot start a Slurm of our own, or it is not installed"
    ),
]
LAUNCH = """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TERMINATE = "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"
STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
NEWEST = "{ runsOrError(limit: 1) { ... on Runs { results { runId tags { key value } } } } }"
PLACE = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
ENDED = ("SUCCESS", "FAILURE", "CANCELED")
PATIENCE, SHARDS_BEFORE = 600, 2
STEP = "esm_embeddings"
Strike = Callable[["Lanes", dict[str, str]], None]


@dataclasses.dataclass(frozen=True)
class Lanes:
    """A running platform, its cluster, and its one sample."""

    site: Site
    server: Server
    slurm: Cluster

    @property
    def sample(self) -> Path:
        return self.site.home / "samples" / NAME

    def launch(self, rank: int) -> str:
        """Launch a lane, as the button of the web UI does. Returns the run's id."""
        [place] = self.server.ask(PLACE)["repositoriesOrError"]["nodes"]
        tags = {"": f"{rank}|{NAME}", "/gpu_rank": str(rank), "/sample": NAME}
        params = {
            "selector": {
                "repositoryLocationName": place["location"]["name"],
                "repositoryName": place["name"],
                "jobName": "lane",
            },
            "runConfigData": {},
            "executionMetadata": {
                "tags": [{"key": f"dagster/partition{name}", "value": value} for name, value in tags.items()]
            },
        }
        return str(self.server.ask(LAUNCH, params=params)["launchRun"]["run"]["runId"])

    def status(self, run: str) -> str:
        return str(self.server.ask(STATUS, id=run)["runOrError"]["status"])

    def retry_of(self, run: str) -> str:
        """The newer run that the daemon has started in place of this one."""
        found = self.server.ask(NEWEST)["runsOrError"]["results"][0]
        return str(found["runId"]) if {"key": "dagster/parent_run_id", "value": run} in found["tags"] else ""

    def ended(self, run: str) -> str:
        """The run's status once it has ended."""
        wait_until(lambda: self.status(run) in ENDED, PATIENCE, f"the end of run {run}", every=1)
        return self.status(run)

    def at_work(self, rank: int) -> tuple[dict[str, str], dict[Path, int]]:
        """The job that embeds for a rank, once it has written some shards; and these, with their times."""
        lock, store = self.sample / "locks" / f"{STEP}-{rank}.lock", self.sample / STEP

        def job() -> dict[str, str]:
            if not is_locked(lock) or len(list(store.glob("[0-9]*.json"))) < SHARDS_BEFORE:
                return {}
            found = [j for j in self.slurm.jobs() if j["JobName"].startswith(f"{STEP}.{rank}.{NAME}.")]
            return found[-1] if found and found[-1]["JobState"] == "RUNNING" else {}

        found = wait_until(job, PATIENCE, f"shards of rank {rank}", every=0.1)
        return found, {
            p: p.stat().st_mtime_ns for p in [e.with_suffix(".h5") for e in store.glob("[0-9]*.json")]
        }


@pytest.fixture
def lanes(tmp_path: Path) -> Iterator[Lanes]:
    with cluster(tmp_path / "slurm", nodes=3) as slurm:
        site = slurm_site(slurm, tmp_path / "home")
        prepared(site)
        with web_ui(dataclasses.replace(site, extra=site.extra | {"VIRNUCPRO_EXECUTOR": "slurm"})) as server:
            yield Lanes(site, server, slurm)


def prepared(site: Site) -> None:
    """Chunks and translations of the sample; what starts lanes by itself is switched off."""
    register(site, DEMO / "viral.fa")
    code = """
from virnucpro_assets.running.runs import run_task
from virnucpro_assets.running.tasks import Task
outcome = run_task(Task("sequences", (%r,), driver="test"))
assert not outcome.failure, outcome.failure
"""
    site.run("-W", "ignore", "-c", code % NAME)


def test_a_dead_node_and_a_preemption_change_no_byte(lanes: Lanes, tmp_path: Path) -> None:
    runs = [lanes.launch(rank) for rank in range(2)]
    victim, kept = lanes.at_work(1)
    lanes.slurm.lose_power(victim["NodeList"])
    say(f"{victim['NodeList']} lost power while job {victim['JobId']} ran there")
    preempted, more = lanes.at_work(0)
    urgent = lanes.slurm.command(
        *("sbatch", "--parsable", "--partition=urgent", "--gres=gpu:1", "--output=/dev/null"),
        *(f"--nodelist={preempted['NodeList']}", "--wrap=sleep 5"),
    ).strip()
    say(f"job {preempted['JobId']} is preempted by job {urgent}")
    assert [lanes.ended(run) for run in runs] == ["SUCCESS", "SUCCESS"]
    say("runs ended")

    jobs = {job["JobId"]: job for job in lanes.slurm.jobs()}
    for job in (victim, preempted):
        assert jobs[job["JobId"]]["JobState"] == "COMPLETED"
        assert int(jobs[job["JobId"]]["Restarts"]) >= 1
    assert jobs[victim["JobId"]]["NodeList"] != victim["NodeList"]
    assert jobs[urgent]["JobState"] == "COMPLETED"
    assert all(path.stat().st_mtime_ns == then for path, then in (kept | more).items())
    with instance_of(lanes.site) as instance:
        for run in runs:
            assert not retries(instance, run)
            assert any(said[2].get("restarts") == "1" for said in engine_events(instance, run))
            for line in engine_events(instance, run):
                say(f"{run[:8]} {line[0]}: {line[1]}")

    alone = Site(tmp_path / "alone", extra={"VIRNUCPRO_WORKERS": "0"})
    alone.home.mkdir()
    prepared(alone)
    alone.run("-W", "ignore", "-c", LOCAL_LANES)
    expected = digests(alone.home / "samples" / NAME)
    assert len(expected) > 20
    assert digests(lanes.sample) == expected


def test_an_interrupt_reaches_the_jobs_and_is_no_retry(lanes: Lanes) -> None:
    run = lanes.launch(0)
    job, kept = lanes.at_work(0)
    answer = lanes.server.ask(TERMINATE, id=run)["terminateRun"]["__typename"]
    assert answer == "TerminateRunSuccess"
    wait_until(lambda: lanes.slurm.job(job["JobId"])["JobState"] == "CANCELLED", 60, "the job's end")
    assert lanes.ended(run) == "CANCELED"
    say("a terminated run has cancelled its job")

    run2 = lanes.launch(0)
    job, more = lanes.at_work(0)
    lanes.slurm.command("scancel", job["JobId"])
    assert lanes.ended(run2) == "FAILURE"
    say("a cancelled job has failed its run")
    with instance_of(lanes.site) as instance:
        assert not retries(instance, run) + retries(instance, run2)
        [failure] = instance.all_logs(run2, of_type=dg.DagsterEventType.STEP_FAILURE)
        assert "cancelled in Slurm" in str(failure.dagster_event)

    run3 = lanes.launch(0)
    job, _ = lanes.at_work(0)
    holder = (lanes.site.home / "locks" / "runs" / f"{run3}.lock").read_text()
    os.kill(int(holder.split()[1]), signal.SIGKILL)
    assert lanes.ended(run3) == "FAILURE"
    say(
        f"the process of a run was killed; its job {job['JobId']} goes on: {lanes.slurm.job(job['JobId'])['JobState']}"
    )
    run4 = wait_until(lambda: lanes.retry_of(run3), PATIENCE, "the daemon's retry", every=1)
    assert lanes.ended(run4) == "SUCCESS"
    assert all(path.stat().st_mtime_ns == then for path, then in (kept | more).items())
    with instance_of(lanes.site) as instance:
        for one in (run, run2, run3, run4):
            for line in engine_events(instance, one):
                say(f"{one[:8]} {line[0]}: {line[1]}")


def test_a_killed_job_is_submitted_again_and_a_silent_controller_is_waited_for(lanes: Lanes) -> None:
    run = lanes.launch(0)
    job, kept = lanes.at_work(0)
    for _ in range(2):  # killed like this, a job is not queued again by Slurm
        lanes.slurm.kill_processes(job["JobId"])
        earlier = job["JobId"]
        job = wait_until(lambda: another(lanes, earlier), PATIENCE, "the next job")  # noqa: B023
        say(f"job {earlier} was killed, job {job['JobId']} goes on")
    lanes.slurm.stop_controller()
    time.sleep(10)
    lanes.slurm.start_controller()
    wait_until(lambda: lanes.slurm.states().get("node1"), 60, "the controller")
    say("the controller was away for 10 s")
    assert lanes.ended(run) == "SUCCESS"
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    with instance_of(lanes.site) as instance:
        assert not retries(instance, run)
        assert any("Slurm does not answer" in line[1] for line in engine_events(instance, run))
        for line in engine_events(instance, run):
            say(f"{run[:8]} {line[0]}: {line[1]}")


LOCAL_LANES = f"""
from virnucpro_assets.running.runs import run_task
from virnucpro_assets.running.tasks import Task
for rank in range(2):
    outcome = run_task(Task("lane", (f"{{rank}}|{NAME}",), driver="test"))
    assert not outcome.failure, outcome.failure
"""


def another(lanes: Lanes, earlier: str) -> dict[str, str]:
    """A newer running job of the same step."""
    found = [j for j in lanes.slurm.jobs() if j["JobName"].startswith(f"{STEP}.0.")]
    return found[-1] if found[-1]["JobId"] != earlier and found[-1]["JobState"] == "RUNNING" else {}


def retries(instance: dg.DagsterInstance, run: str) -> list[Any]:
    return list(instance.all_logs(run, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY))


def digests(sample: Path) -> dict[str, str]:
    """sha256 of every shard."""
    return {
        str(f.relative_to(sample)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sample.glob("*/*.h5")
    }


def say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)
