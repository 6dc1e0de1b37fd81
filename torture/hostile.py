"""The product started from a folder whose files are called as what Python imports: none of them may run.

Every way in: the console script, `python -m`, lanes, batches, loader workers, the probe of the storage, the web UI
with its daemon and code server.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.live_platform import web_ui
from torture.pipeline import write_reads
from torture.site import Site
from torture.table import Row, Task, campaign
from virnucpro_core.models.profiles import DEMO

TIMEOUT = 300.0
MODULES = (
    *("random", "tokenize", "typing", "json", "queue", "select", "signal", "tempfile", "pickle", "logging"),
    *("torch", "numpy", "h5py", "pandas", "click", "rich", "yaml", "psutil", "pynvml", "sqlalchemy", "dnaio"),
    *("sitecustomize", "usercustomize", "matplotlibrc", "schedules", "definitions", "conftest", "setup"),
)
PACKAGES = (
    "dagster",
    "dagster_webserver",
    "dagster_shared",
    "multiprocessing",
)
OWN = ("virnucpro_core", "virnucpro_assets")
MARK = "it_ran"
# As the console script does: it puts its own folder on the path, not the one where the user stands.
SCRIPT = ("-P", "-c", "from virnucpro_assets.cli.main import main; main()")
# What `python -m` itself imports before any module of ours can be asked is Python's own matter.
MODULE = ("-m", "virnucpro_assets.cli.main")
PREDICT = ("--profile", "demo", "--chunk-size", "300", "--gpus", "1")
Check = Callable[[Site], list[str]]


@campaign("hostile folder", share=1)
def hostile(task: Task) -> Sequence[Row]:
    """Every command once, whatever the time."""
    return hostile_points(task, CHECKS)


def hostile_points(task: Task, checks: Sequence[Check]) -> Sequence[Row]:
    """These checks, in one folder."""
    began, row, site = time.monotonic(), Row("hostile working folder"), Site(task.folder / "hostile")
    site.begin()
    fill(_here(site), _here(site) / MARK)
    for check in checks:
        row.points += 1
        problems = check(site)
        mark = _here(site) / MARK
        if mark.exists():
            problems.append(f"imported from the folder: {mark.read_text().split()}")
            mark.unlink()
        row.wrong += len(problems)
        row.findings += [f"{check.__name__.strip('_')}: {problem}" for problem in problems]
    row.seconds = time.monotonic() - began
    row.note = f"{len(MODULES) + len(PACKAGES)} names; {', '.join(c.__name__.strip('_') for c in checks)}"
    return (row,)


def fill(folder: Path, mark: Path, packages: Sequence[str] = (*PACKAGES, *OWN)) -> None:
    """Modules and packages that say by the file `mark` that they were run."""
    folder.mkdir(parents=True)
    files = [folder / f"{name}.py" for name in MODULES] + [folder / name / "__init__.py" for name in packages]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        said = f"{file.parent.name if file.stem == '__init__' else file.stem}\\n"
        file.write_text(f'open({str(mark)!r}, "a").write("{said}")\n')
    (folder / ".env").write_text("VIRNUCPRO_PROFILE=hostile\nVIRNUCPRO_KEEP=hostile\n")
    (folder / "dagster.yaml").write_text("nothing: that Dagster knows\n")
    (folder / "workspace.yaml").write_text("load_from: [{python_file: random.py}]\n")
    (folder / "pyproject.toml").write_text('[tool.dagster]\nmodule_name = "random"\n')


def _here(site: Site) -> Path:
    return site.folder / "here"


def _run(site: Site, *words: str, start: Sequence[str] = SCRIPT, folder: Path | None = None) -> list[str]:
    """What is wrong with how `virnucpro WORDS` ends there."""
    environment = dict(site.platform.environment) | {"PYTHONPATH": "", "VIRNUCPRO_WORKERS": "1"}
    done = subprocess.run(
        [sys.executable, *start, *words],
        cwd=folder or _here(site),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return [] if done.returncode == 0 else [f"{words[0]}: exit {done.returncode}, {done.stderr[-500:]}"]


def _lane(site: Site) -> list[str]:
    return _run(site, "predict", f"{site.folder}/genomes.fa", *PREDICT, "--out", f"{site.folder}/lane")


def _batch(site: Site) -> list[str]:
    files = [str(write_reads(site.folder / f"s{number}.fa", seed=number)) for number in range(3)]
    return _run(site, "predict", *files, *PREDICT, "--out", f"{site.folder}/batch")


def _embed(site: Site) -> list[str]:
    words = ("embed", "dnabert-s", f"{site.folder}/genomes.fa", "--weights", str(DEMO / "dnabert_s"))
    return _run(site, *words, "--out", f"{site.folder}/genomes.h5")


def _quick(site: Site) -> list[str]:
    commands = (("samples",), ("models", "list"), ("metrics",), ("samples", "clean", "--keep", "scores"))
    return [problem for words in commands for problem in _run(site, *words)]


def _doctor(site: Site) -> list[str]:
    return _run(site, "doctor", "--profile", "demo", "--chunk-size", "300")


def _module(site: Site) -> list[str]:
    """What it is asked to run it has to look for where the user stands, so our own names are not there."""
    folder = site.folder / "module"
    fill(folder, _here(site) / MARK, PACKAGES)
    return _run(site, "samples", start=MODULE, folder=folder)


def _web_ui(site: Site) -> list[str]:
    with web_ui(site.platform, folder=_here(site), start=SCRIPT) as server:
        found = server.ask("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")
        time.sleep(5)  # the daemon's first ticks
    return [] if found["repositoriesOrError"]["nodes"] else ["the web UI shows nothing"]


CHECKS: tuple[Check, ...] = (_lane, _batch, _embed, _quick, _doctor, _module, _web_ui)
