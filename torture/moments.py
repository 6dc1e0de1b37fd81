"""Stop runs at chosen moments of each product: terminate them in the web UI, or stop `virnucpro predict` by a signal.

`hook/sitecustomize.py` holds the process at that moment. It can also swallow the interrupt, as Python or a library may.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.live_platform import ROOT, Server, wait_until, web_ui
from torture.launched import ENDED, SAMPLE, TERMINATE, launch, status_of
from torture.site import LANES, PRODUCTS, SHARD_ROWS, Site, write_genomes
from virnucpro_assets.platform.tags import driver_tags

RUN_WORKER, GPU, HOST = (
    "spawn_main",
    "virnucpro_assets.running.worker gpu",
    "virnucpro_assets.running.worker host",
)
HOW = ("raised", "ignored", "caught", "an error")
# A lane that does not end by itself is killed after 20 s.
SETTLE_SECONDS, END_SECONDS, LONG_SECONDS = 0.5, 18.0, 240.0
CORE, ASSETS = "virnucpro_core", "virnucpro_assets"


@dataclass(frozen=True, slots=True)
class Moment:
    """A call or an import in a job's run.

    starts: the run is not recorded as started yet, so the server refuses to terminate it.
    """

    job: str
    at: str
    call: int = 1
    starts: bool = False


# In the order in which a sample reaches them.
MOMENTS = {
    "chunks: imports": Moment("sequences", f"{ASSETS}.definitions", starts=True),
    "chunks: the run's lock": Moment("sequences", f"{ASSETS}.platform.presence:hold_presence"),
    "chunks: reading": Moment("sequences", f"{CORE}.pipeline.steps:chunk_sample"),
    "chunks: checks": Moment("sequences", f"{ASSETS}.graph.checks:sample_findings"),
    "translations: translating": Moment("sequences", f"{CORE}.pipeline.steps:translate_sample"),
    "translations: checks": Moment("sequences", f"{ASSETS}.graph.checks:sample_findings", 2),
    "dnabert_embeddings: loading": Moment("lane", f"{CORE}.encoders.loaded:cached_encoder"),
    "dnabert_embeddings: first batch": Moment("lane", f"{CORE}.encoders.batches:Pass.run"),
    "dnabert_embeddings: a shard is handed over": Moment(
        "lane", f"{CORE}.engine.writing:WriteBehind.submit", 2
    ),
    "dnabert_embeddings: a shard is recorded": Moment("lane", f"{ASSETS}.graph.records:observe_shard", 2),
    "dnabert_embeddings: freeing": Moment("lane", f"{CORE}.encoders.loaded:free_encoders"),
    "dnabert_embeddings: checks": Moment("lane", f"{CORE}.pipeline.audit:audit_lane"),
    "esm_embeddings: loading": Moment("lane", f"{CORE}.encoders.loaded:cached_encoder", 2),
    "esm_embeddings: first shard": Moment("lane", f"{CORE}.engine.inference:embed_shards", 2),
    "esm_embeddings: freeing": Moment("lane", f"{CORE}.encoders.loaded:free_encoders", 2),
    "esm_embeddings: results for the web UI": Moment("lane", f"{ASSETS}.graph.records:throughput_picture", 2),
    "esm_embeddings: checks": Moment("lane", f"{CORE}.pipeline.audit:audit_lane", 2),
    "merged_features: merging": Moment("lane", f"{CORE}.pipeline.score:merge_lane"),
    "merged_features: checks": Moment("lane", f"{CORE}.pipeline.audit:audit_lane", 3),
    "predictions: looking": Moment("lane", f"{CORE}.pipeline.score:score_lane"),
    "predictions: scoring": Moment("lane", f"{CORE}.pipeline.at_hand:take_scores", 2),
    "predictions: checks": Moment("lane", f"{CORE}.pipeline.audit:audit_lane", 4),
    "consensus: calls": Moment("results", f"{CORE}.pipeline.steps:call_sample"),
    "consensus: writing": Moment("results", f"{CORE}.results.folder:write_results"),
    "consensus: checks": Moment("results", f"{CORE}.pipeline.audit:audit_results"),
}


class Holder:
    """Holds a site's processes at one moment and sets how an interrupt ends there; holds nothing at first."""

    def __init__(self, site: Site) -> None:
        self.folder = site.folder / "moment"
        hook = ROOT / "torture" / "hook"
        inherited = os.environ.get("PYTHONPATH", "")
        site.extra |= {
            "TORTURE_MOMENT": str(self.folder),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), str(hook), inherited))),
        }

    def hold(self, moment: Moment, how: str, word: str) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        order = {"at": moment.at, "call": moment.call, "how": how, "word": word}
        (self.folder / "moment.json").write_text(json.dumps(order))

    def wait(self) -> None:
        wait_until((self.folder / "reached").exists, seconds=LONG_SECONDS, what="the moment")

    def release(self) -> None:
        (self.folder / "go").touch()


@dataclass(frozen=True, slots=True)
class Struck:
    """A run that was stopped: the problems found, and the seconds that it took to end."""

    problems: list[str]
    seconds: float


@dataclass(frozen=True, slots=True)
class Terminator:
    """A site with its web UI, in which runs are terminated."""

    site: Site
    server: Server
    holder: Holder

    def strike(self, moment: Moment, how: str) -> Struck:
        """Launch the moment's job without earlier products and terminate it there; it must soon be recorded so."""
        self._forget(moment.job)
        self.holder.hold(moment, how, RUN_WORKER)
        run = self.launch(moment.job)
        self.holder.wait()
        answer = self.server.ask(TERMINATE, id=run)["terminateRun"]["__typename"]
        time.sleep(SETTLE_SECONDS)
        self.holder.release()
        began = time.monotonic()
        status = self.end_of(run)
        seconds = time.monotonic() - began
        expected = (
            ("TerminateRunFailure", "SUCCESS") if moment.starts else ("TerminateRunSuccess", "CANCELED")
        )
        problems = [] if (answer, status) == expected else [f"{answer}: {status}"]
        if seconds > END_SECONDS:
            problems.append(f"the run ended {seconds:.0f} s after it was terminated")
        return Struck(problems, seconds)

    def finish(self, job: str) -> list[str]:
        """Launch the job again for all lanes, undisturbed. Returns the problems found."""
        runs = [self.launch(job, rank) for rank in range(LANES if job == "lane" else 1)]
        ends = [self.end_of(run) for run in runs]
        return [f"{job}, launched again, ends as {end}" for end in ends if end != "SUCCESS"]

    def launch(self, job: str, rank: int = 0) -> str:
        return launch(self.server, rank, job=job, more=driver_tags(SAMPLE))

    def end_of(self, run: str) -> str:
        """The run's recorded status, after it has ended."""

        def ended() -> str:
            status = status_of(self.server, run)
            return status if status in ENDED else ""

        return wait_until(ended, seconds=LONG_SECONDS, what=f"the end of run {run}")

    def _forget(self, job: str) -> None:
        """Delete the products of the job."""
        made = {
            "sequences": ("chunks", "translations"),
            "lane": (*PRODUCTS, "telemetry"),
            "results": ("results",),
        }
        for name in made[job]:
            shutil.rmtree(self.site.sample / name, ignore_errors=True)


@contextlib.contextmanager
def terminator(folder: Path) -> Iterator[Terminator]:
    """Start the web UI and the daemon in a new site in `folder`, with one sample."""
    site = Site(folder)
    site.begin()
    holder = Holder(site)
    fasta = site.folder / f"{SAMPLE}.fa"
    write_genomes(fasta)
    site.platform.run(
        str(ROOT / "tests" / "support" / "live_platform.py"), SAMPLE, str(fasta), str(SHARD_ROWS)
    )
    with web_ui(site.platform) as server:
        yield Terminator(site, server, holder)


def stop_predict(folder: Path, moment: Moment, how: str, number: signal.Signals, alone: Site) -> Struck:
    """Stop `virnucpro predict` by the signal at the moment, start it again and compare the results with `alone`."""
    site = Site(folder)
    site.begin(alone.home / "dagster")
    holder = Holder(site)
    holder.hold(moment, how, GPU if moment.job == "lane" else HOST)
    run = site.start()
    holder.wait()
    run.process.send_signal(number)
    began = time.monotonic()
    time.sleep(SETTLE_SECONDS)
    holder.release()
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.process.wait(LONG_SECONDS)
    seconds, code = time.monotonic() - began, run.process.poll()
    problems = [] if code == 130 else [f"exit {code}: {run.errors()[:3]}"]
    if seconds > END_SECONDS:
        problems.append(f"the command ended {seconds:.0f} s after its signal")
    problems += [f"{line} is shown" for line in run.errors() if "virnucpro: interrupted" not in line]
    psutil.wait_procs(site.platform.processes(), timeout=END_SECONDS)
    again = site.start(number=1)
    if again.process.wait(LONG_SECONDS):
        problems.append(f"the same command fails: {again.errors()[:3]}")
    expected, found = alone.content(), site.content()
    problems += [f"{n} differs" for n in expected.keys() | found.keys() if expected.get(n) != found.get(n)]
    return Struck(problems + site.left(), seconds)
