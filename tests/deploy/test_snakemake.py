"""The Snakemake module, run by a real Snakemake: tasks side by side, with one model store that they only read."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import virnucpro_core
from tests.deploy.conftest import listing
from tests.support import ROOT
from virnucpro_core.models.profiles import DEMO

MODULE = ROOT / "deploy" / "snakemake"
# Its requirements do not go together with those of other tools: `make test` gives it an environment of its own.
OWN = Path(sys.prefix) / "snakemake/bin/snakemake"
SNAKEMAKE = str(OWN) if OWN.exists() else shutil.which("snakemake")
pytestmark = pytest.mark.skipif(SNAKEMAKE is None, reason="Snakemake is not installed")
PAIR = ("pair_R1.fastq", "pair_R2.fastq")
TASKS = 3


def snakemake(
    folder: Path,
    variables: dict[str, str],
    configuration: dict[str, Any],
    *words: str,
    snakefile: Path = MODULE / "Snakefile",
) -> str:
    """Run Snakemake in a folder with this configuration. Returns what it said."""
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration))
    command = [
        str(SNAKEMAKE),
        "--snakefile",
        str(MODULE / "Snakefile"),
        "--configfile",
        "config.yaml",
        *words,
    ]
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=280
    )
    logs = "".join(log.read_text() for log in folder.glob("results/logs/*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return done.stdout + done.stderr


def reads(folder: Path) -> None:
    """Two files of mates from the demo's first genome."""
    genome = "".join((DEMO / "viral.fa").read_text().split(">")[1].splitlines()[1:])
    for mate, name in enumerate(PAIR):
        starts = range(200 * mate, 8000, 400)
        pieces = [genome[start : start + 300] for start in starts]
        rows = (f"@r{n}/{mate + 1}\n{dna}\n+\n{'I' * 300}\n" for n, dna in enumerate(pieces))
        (folder / name).write_text("".join(rows))


@pytest.mark.timeout(600)
def test_tasks_side_by_side(tmp_path: Path, models: Path, outside: dict[str, str]) -> None:
    work = tmp_path / "work"
    work.mkdir()
    reads(work)
    shutil.copy(DEMO / "viral.fa", work / "one.fa")
    samples = {"one": "one.fa", "two": ["one.fa"], "pair": list(PAIR)}
    before = listing(models)
    options = {"threads": 1, "models": str(models), "extra": "--profile esm2-3b --chunk-size 300"}
    snakemake(work, outside, {"samples": samples, **options}, "--cores", str(TASKS))

    for sample, files in samples.items():
        made = {path.name for path in (work / "results" / sample).iterdir()}
        assert made >= {"contigs.tsv", "report.html", "run.json"}
        assert ("pairs.tsv" in made) == (len(files) == 2)
        assert json.loads((work / "results" / sample / "run.json").read_text())["sample"] == sample
    assert listing(models) == before
    calls = [(work / "results" / sample / "contigs.tsv").read_bytes() for sample in ("one", "two")]
    assert calls[0] == calls[1]
    # Nothing is left outside of the results, and nothing inside of what only the task needed.
    assert list(Path(outside["TMPDIR"]).glob("virnucpro*")) == []
    assert {path.name for path in Path(outside["HOME"]).iterdir()} <= {".cache", ".config"}  # Snakemake's own
    assert list(Path(outside["HOME"]).rglob("*virnucpro*")) == []
    assert {path.name for path in work.iterdir()} == {
        ".snakemake", "config.yaml", "one.fa", "results", *PAIR,
    }  # fmt: skip
    assert list((work / "results/.home").iterdir()) == []

    # Results of the earlier settings are replaced.
    other = options | {"extra": "--profile esm2-3b --chunk-size 300 --cutoff 0.9"}
    snakemake(work, outside, {"samples": {"one": "one.fa"}, **other}, "--cores", "1", "--forcerun", "predict")
    assert (work / "results/one/contigs.tsv").read_bytes() != calls[0]


def test_a_plan_for_gpus(tmp_path: Path, outside: dict[str, str]) -> None:
    (tmp_path / "a.fa").write_text(">a\nACGT\n")
    told = snakemake(tmp_path, outside, {"samples": {"a": "a.fa"}, "gpus": 2}, "--cores", "4", "-n", "-p")
    assert "--device cuda --gpus 2" in told
    assert "gpu=2" in told
    assert "threads: 4" in told


def test_the_page_about_workflows(tmp_path: Path, outside: dict[str, str]) -> None:
    """Its configuration is the example beside the module, and the lines for somebody's own workflow work with it."""
    page, example = (ROOT / "docs/workflows.md").read_text(), (MODULE / "config.yaml").read_text()
    assert f"```yaml\n{example}```" in page
    [lines] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    own = tmp_path / "Snakefile"
    own.write_text(
        lines.replace("path/to/deploy/snakemake", str(MODULE)) + "rule all:\n    default_target: True\n"
        '    input: expand("results/{s}/contigs.tsv", s=config["virnucpro"]["samples"])\n'
    )
    configuration = yaml.safe_load(example) | {"models": "models"}
    for given in configuration["samples"].values():
        for name in [given] if isinstance(given, str) else given:
            (tmp_path / name).touch()
    (tmp_path / "models").mkdir()
    told = snakemake(tmp_path, outside, {"virnucpro": configuration}, "--cores", "4", "-n", snakefile=own)
    assert "rule virnucpro_predict" in told
    assert "gut_R1.fastq.gz, gut_R2.fastq.gz" in told


def test_the_module_asks_for_this_version() -> None:
    [asked] = [
        Requirement(text.replace(" =", "=="))
        for text in yaml.safe_load((MODULE / "virnucpro/environment.yaml").read_text())["dependencies"]
    ]
    assert virnucpro_core.__version__ in asked.specifier
