"""A private home for a prediction: start `virnucpro predict` in it, and inspect its processes, locks and files."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from tests.support import ROOT
from tests.support.digests import digest_of
from tests.support.live_platform import Site as Platform
from virnucpro_core.engine.telemetry import read_lines
from virnucpro_core.files.locks import is_locked
from virnucpro_core.files.publish import TEMPORARY
from virnucpro_core.models.profiles import DEMO
from virnucpro_core.results.batch import INDEX, SUMMARY
from virnucpro_core.results.multiqc import MULTIQC_FILES

GENOMES = ("NC_001422.1", "HM138502.1", "KF527485.1")
PRODUCTS = ("dnabert_embeddings", "esm_embeddings", "merged_features", "predictions")
SAMPLE, LANES, SHARD_ROWS, END_SECONDS = "genomes", 2, 2, 40.0
ROLES = {
    "virnucpro_assets.cli.main": "driver",
    "virnucpro_assets.running.worker gpu-": "lane",
    "virnucpro_assets.running.worker host": "host",
    "multiprocessing.forkserver": "worker server",
    "resource_tracker": "tracker",
}


@dataclass
class Site:
    """A folder with a home, an input file and the results folder."""

    folder: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def sample(self) -> Path:
        return self.home / "samples" / SAMPLE

    @property
    def platform(self) -> Platform:
        """The platform of this home, with its environment: on the CPU, two lanes, one thread each."""
        own = {"VIRNUCPRO_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        return Platform(self.home, LANES, own | self.extra)

    def begin(self, instance: Path | None = None) -> None:
        """Empty the site. With `instance`, copy this Dagster instance, so that the first start need not make one."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.home.mkdir(parents=True)
        write_genomes(self.folder / f"{SAMPLE}.fa")
        if instance is not None:
            shutil.copytree(instance, self.home / "dagster")

    def start(
        self, *, file: str = f"{SAMPLE}.fa", out: str = "out", number: int = 0, options: tuple[str, ...] = ()
    ) -> "Started":
        """Start `virnucpro predict` for the sample or another file of the folder; always the same command."""
        words = ["-m", "virnucpro_assets.cli.main", "predict", str(self.folder / file)]
        words += ["--profile", "demo", "--chunk-size", "300", "--gpus", str(LANES)]
        words += ["--shard-rows", str(SHARD_ROWS), "--out", str(self.folder / out), "--quiet", *options]
        said = self.folder / f"said-{number}.err"
        with said.open("wb") as err, said.with_suffix(".out").open("wb") as stdout:
            process = subprocess.Popen(
                [sys.executable, *words],
                env=self.platform.environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=err,
            )
        return Started(process, said)

    def start_seconds(self) -> float:
        """Seconds from `begin` to the first shard."""
        began = (self.folder / f"{SAMPLE}.fa").stat().st_mtime
        return min(time for _, time in self.finished_shards().values()) / 1e9 - began

    def finished_shards(self) -> dict[Path, tuple[int, int]]:
        """Shards that have an entry, with inode and time of their files, which change if a shard is made again."""
        found = {}
        for product in PRODUCTS:
            for entry in self.home.glob(f"samples/*/{product}/[0-9]*.json"):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.with_suffix(".h5").stat()
                    found[entry.with_suffix(".h5")] = (status.st_ino, status.st_mtime_ns)
        return found

    def content(self) -> dict[str, str]:
        """sha256 of every shard and of every file of both results folders; of run.json without the date."""
        samples = self.home / "samples"
        files = [*samples.glob("*/*/*.h5"), *samples.glob("*/results/*"), *self.out.rglob("*")]
        # The tables and the page across samples show how many seconds each sample took.
        timed = {self.out / name for name in (SUMMARY, INDEX, *MULTIQC_FILES)}
        several = any(folder.is_dir() for folder in self.out.glob("*"))
        files = [f for f in files if f.is_file() and not (several and f in timed)]
        return {str(f.relative_to(self.folder)): digest_of(f) for f in files}

    def left(self) -> list[str]:
        """Everything that a finished prediction must not leave: processes, locks, temporary files, open runs."""
        _, alive = psutil.wait_procs(self.platform.processes(), timeout=END_SECONDS)
        found = [f"process {p.pid} ({role(p)}) is left" for p in alive]
        found += [f"{lock} is locked" for lock in self.home.rglob("*.lock") if is_locked(lock)]
        found += [f"{file} is left" for file in self.folder.rglob(f"{TEMPORARY}*")]
        return found + [f"run {run} is recorded as in progress" for run in self.open_runs()]

    def open_runs(self) -> list[str]:
        """Runs that are recorded as in progress; none before a command has made Dagster's folder."""
        if not (self.home / "dagster").is_dir():
            return []
        with self._instance() as (dg, instance):
            from virnucpro_assets.platform.presence import IN_PROGRESS  # noqa: PLC0415 - imports dagster

            return [run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS))]

    def materializations(self, asset: str, samples: list[str]) -> dict[str, int]:
        """How often an asset was materialized for each of the samples."""
        with self._instance() as (dg, instance):
            records = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=samples)
            found = instance.fetch_materializations(records, limit=10 * len(samples) + 10).records
            keys = Counter(record.partition_key for record in found)
            return {name: keys[name] for name in samples}

    @contextlib.contextmanager
    def _instance(self) -> Iterator[Any]:
        import dagster as dg  # noqa: PLC0415 - slow, and its warnings are switched off by the definitions

        with (
            mock.patch.dict(os.environ, self.extra),
            dg.DagsterInstance.from_config(str(self.home / "dagster")) as instance,
        ):
            yield dg, instance

    def files(self) -> int:
        """Number of files of the sample and its results, a frame store counting as one: a measure of progress."""
        found = (
            name for folder in (self.sample, self.out) for _, _, names in os.walk(folder) for name in names
        )
        return sum(not name.endswith((".bin", ".lock", ".claims", ".jsonl")) for name in found)

    def embeds_since(self, began: float) -> bool:
        """Whether a lane has reached an encoder and its loader workers after that time."""
        found = (self.sample / "telemetry").glob("*_embeddings-*.jsonl")
        with contextlib.suppress(FileNotFoundError):
            return any(f.stat().st_mtime > began for f in found)
        return False

    def unpublished(self, rank: int) -> float:
        """Upper bound of the shards (by rows, hence a fraction) that an ended lane had computed but not published."""
        worst = 0.0
        for telemetry in (self.sample / "telemetry").glob(f"*_embeddings-{rank}.jsonl"):
            lines = list(read_lines(telemetry))
            begun = sum(line["sequences"] for line in lines if line["event"] == "batch")
            published = sum(line["rows"] for line in lines if line["event"] == "shard")
            worst = max(worst, (begun - published) / SHARD_ROWS)
        return worst


@dataclass
class Started:
    """A `virnucpro predict` that was started."""

    process: "subprocess.Popen[bytes]"
    said: Path
    began: float = field(default_factory=time.time)

    def errors(self) -> list[str]:
        """Lines on standard error, without empty ones (the command prints one after a terminal's `^C`)."""
        return [line for line in self.said.read_text(errors="replace").splitlines() if line.strip()]


def undisturbed(folder: Path) -> Site:
    """A finished, undisturbed prediction, to compare others with. Made if `folder` has none."""
    site = Site(folder)
    if not (site.out / "run.json").exists():
        site.begin()
        run = site.start()
        if run.process.wait():
            raise RuntimeError(f"the undisturbed run fails: {run.errors()}")
    return site


def role(process: psutil.Process) -> str:
    """The role of a process, from its command line; a loader worker has that of the server it is forked from."""
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        name = next((name for word, name in ROLES.items() if word in " ".join(words)), "other")
        forked = name == "worker server" and words == psutil.Process(process.ppid()).cmdline()
        return "loader worker" if forked else name
    return "gone"


def write_genomes(path: Path, genomes: tuple[str, ...] = GENOMES) -> None:
    """Write some of the short genomes that ship with the package as FASTA."""
    entries = (DEMO / "viral.fa").read_text().split(">")[1:]
    path.write_text("".join(f">{entry}" for entry in entries if entry.startswith(genomes)))
