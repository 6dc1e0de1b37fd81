"""Stop runs that Dagster launched: terminate them through its API, kill their worker, kill their code server.

The run must be recorded as ended, its lane's locks must be free and its processes must have ended. In the end the lane
must be materialized, by the daemon's retry or by a second launch, with the bytes of an undisturbed run.
"""

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from tests.support import ROOT
from tests.support.live_platform import Server, web_ui
from torture.site import SAMPLE, SHARD_ROWS, Site, undisturbed, write_genomes
from torture.table import Row, Task, campaign
from virnucpro_core.files.locks import is_locked

LAUNCH = """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TERMINATE = "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"
RUNS = "{ runsOrError { ... on Runs { results { runId status } } } }"
RELOAD = "mutation { reloadWorkspace { __typename } }"
PLACE = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
ENDED = ("SUCCESS", "FAILURE", "CANCELED")
END_SECONDS, HOLD_SECONDS, POLL_SECONDS, LOOK_SECONDS = 180.0, 4.0, 0.25, 0.02
NO_TAGS: Mapping[str, str] = MappingProxyType({})
STRIKES = ("terminate", "kill the run worker", "kill the code server")


@campaign("launched", share=1)
def launched(task: Task) -> Sequence[Row]:
    """Apply the strikes in turn, to one lane after another, until the time is used up; each at least once."""
    began, row = time.monotonic(), Row("Dagster runs terminated, killed")
    ends: Counter[str] = Counter()
    while row.points < len(STRIKES) or time.monotonic() < began + task.seconds - END_SECONDS:
        strike = STRIKES[row.points % len(STRIKES)]
        status, problems = strike_once(task.folder, strike, seed=task.seed + row.points)
        row.points += 1
        ends[f"{strike}: {status}"] += 1
        row.wrong += len(problems)
        row.findings += [f"{strike}: {problem}" for problem in problems]
    row.seconds = time.monotonic() - began
    row.note = ", ".join(f"{end} ({count})" for end, count in sorted(ends.items()))
    return (row,)


def strike_once(folder: Path, strike: str, *, seed: int) -> tuple[str, list[str]]:
    """Apply one strike in a new site in `folder`. Returns the run's recorded status and the problems found."""
    alone = undisturbed(folder / "undisturbed")
    site = Site(folder / f"{strike} {seed}".replace(" ", "-"))
    site.begin()
    with _platform(site) as server:
        status, problems = _one_strike(site, server, strike, random.Random(seed))
    return status, problems + _different(alone, site)


@contextlib.contextmanager
def _platform(site: Site) -> Any:
    """Start the web UI and the daemon in a site whose sample is ready for its lanes."""
    live = site.platform
    fasta = site.folder / f"{SAMPLE}.fa"
    write_genomes(fasta)
    live.run(str(ROOT / "tests" / "support" / "live_platform.py"), SAMPLE, str(fasta), str(SHARD_ROWS))
    with web_ui(live) as server:
        yield server


def _one_strike(site: Site, server: Server, strike: str, draw: random.Random) -> tuple[str, list[str]]:
    """Apply one strike. Returns the run's recorded status and the problems found."""
    rank = draw.randrange(2)
    run, more = launch(server, rank), draw.randint(0, 8)
    _wait(lambda: _has_begun(site, rank, more), every=LOOK_SECONDS)
    worker = _child_of(site, "grpc")
    inside = [worker, *worker.children(recursive=True)] if worker else []
    expected = {"FAILURE", "SUCCESS"}
    if strike == "terminate" and worker:
        with _held(worker):
            accepted = server.ask(TERMINATE, id=run)["terminateRun"]["__typename"] == "TerminateRunSuccess"
        expected = {"CANCELED"} if accepted else {"SUCCESS"}
    elif worker:
        victim = worker if strike == "kill the run worker" else psutil.Process(worker.ppid())
        victim.kill()
    if strike == "kill the code server":  # Dagster starts a new one only after a reload
        psutil.wait_procs(inside, timeout=END_SECONDS)
        server.ask(RELOAD)
    _wait(lambda: status_of(server, run) in ENDED)
    _, alive = psutil.wait_procs(inside, timeout=30)
    status = status_of(server, run)
    problems = [] if status in expected else [f"run {run} ends as {status}"]
    problems += [f"{p} of the run is still running" for p in alive]
    _wait(lambda: _all_ended(server))  # the daemon retries failed runs
    for other in (0, 1):
        again = launch(server, other)
        _wait(lambda: status_of(server, again) in ENDED)  # noqa: B023 - called before the loop goes on
        if status_of(server, again) != "SUCCESS":
            problems.append(f"launched again, lane {other} ends as {status_of(server, again)}")
    held = [str(path) for path in site.sample.glob("locks/*.lock") if is_locked(path)]
    return status, problems + [f"{path} is locked" for path in held]


@contextlib.contextmanager
def _held(worker: psutil.Process) -> Iterator[None]:
    """Suspend the process for HOLD_SECONDS, so that the request to the server reaches it at this point."""
    with contextlib.suppress(psutil.NoSuchProcess):
        worker.suspend()

    def resume() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.resume()

    timer = threading.Timer(HOLD_SECONDS, resume)
    timer.start()
    yield
    timer.join()


def _has_begun(site: Site, rank: int, more: int) -> bool:
    """Whether the lane runs its first encoder and has `more` shards. Reads files only: a server would be too slow."""
    begun = (site.sample / "telemetry" / f"dnabert_embeddings-{rank}.jsonl").exists()
    return begun and len(site.finished_shards()) >= more


def _different(alone: Site, site: Site) -> list[str]:
    expected = {n: d for n, d in alone.content().items() if n.endswith(".h5")}
    found = {n: d for n, d in site.content().items() if n.endswith(".h5")}
    return [f"{n} differs" for n in expected.keys() | found.keys() if expected.get(n) != found.get(n)]


def launch(server: Server, rank: int, *, job: str = "lane", more: Mapping[str, str] = NO_TAGS) -> str:
    """Launch a job for the sample or for its lane of this rank, with additional tags. Returns the run's id."""
    _wait(lambda: bool(_places(server)))  # a reload takes a while
    [place] = _places(server)
    tags = {"dagster/partition": SAMPLE}
    if job == "lane":
        tags = {"": f"{rank}|{SAMPLE}", "/gpu_rank": str(rank), "/sample": SAMPLE}
        tags = {f"dagster/partition{name}": value for name, value in tags.items()}
    params = {
        "selector": {
            "repositoryLocationName": place["location"]["name"],
            "repositoryName": place["name"],
            "jobName": job,
        },
        "runConfigData": {},
        "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in (tags | dict(more)).items()]},
    }
    answer = server.ask(LAUNCH, params=params)["launchRun"]
    assert "run" in answer, answer
    return str(answer["run"]["runId"])


def _places(server: Server) -> list[dict[str, Any]]:
    """The code location's repository; [] as long as the server cannot answer."""
    try:
        return list(server.ask(PLACE)["repositoriesOrError"]["nodes"])
    except (OSError, AssertionError):
        return []


def _runs(server: Server) -> list[dict[str, str]]:
    """All runs; [] as long as the server cannot answer because its code server was killed."""
    try:
        return list(server.ask(RUNS)["runsOrError"]["results"])
    except (OSError, AssertionError):
        return []


def _all_ended(server: Server) -> bool:
    runs = _runs(server)
    return bool(runs) and all(run["status"] in ENDED for run in runs)


def status_of(server: Server, run: str) -> str:
    """The run's recorded status; "" as long as the server cannot answer."""
    return next((r["status"] for r in _runs(server) if r["runId"] == run), "")


def _child_of(site: Site, word: str) -> psutil.Process | None:
    """The process that a code server has started for a run."""
    for process in site.platform.processes():
        with contextlib.suppress(psutil.Error):
            if "spawn_main" in " ".join(process.cmdline()) and word in " ".join(
                psutil.Process(process.ppid()).cmdline()
            ):
                return process
    return None


def _wait(condition: Callable[[], bool], *, every: float = POLL_SECONDS) -> None:
    deadline = time.monotonic() + END_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(every)
