"""The Nextflow modules, without Nextflow: its language is Groovy, so Groovy makes their scripts, and bash runs them.

Not tested here: channels, staging and the `conda` and `container` directives, which only Nextflow itself knows.
"""

import fnmatch
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import virnucpro_core
from tests.deploy.conftest import listing
from tests.support import ROOT
from virnucpro_core.models.profiles import DEMO

NEXTFLOW = ROOT / "deploy" / "nextflow"
PREDICT = NEXTFLOW / "modules/nf-core/virnucpro/predict"
DOWNLOAD = NEXTFLOW / "modules/nf-core/virnucpro/downloadmodels"
SUBWORKFLOW = NEXTFLOW / "subworkflows/nf-core/fastx_classify_virnucpro"
INPUTS = {
    PREDICT: {"meta": {"id": "test"}, "sequences": "genome.fasta", "models": ""},
    DOWNLOAD: {"profile": "esm2-3b"},
}
GROOVY, JAVA = shutil.which("groovy"), shutil.which("java")
needs_groovy = pytest.mark.skipif(not (GROOVY and JAVA), reason="groovy is not installed")


def groovy(*words: str) -> dict[str, Any]:
    """What render.groovy prints."""
    java = Path(str(JAVA)).resolve().parents[1]
    command = [str(GROOVY), str(ROOT / "tests/deploy/render.groovy"), *words]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"JAVA_HOME": str(java)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def rendered(main: Path, folder: Path, **words: Any) -> dict[str, Any]:
    """Script, stub and outputs of a process for these values of its inputs."""
    task = {
        "process": "P",
        "ext": {"args": words.pop("args", "")},
        "accelerator": words.pop("accelerator", None),
    }
    file = folder / "words.json"
    file.write_text(json.dumps({"task": task, **words}))
    return groovy(str(main), str(file))


def run(script: str, folder: Path, variables: dict[str, str]) -> str:
    """Run a task's script as Nextflow does it: by bash, in the folder of the task."""
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def declared(process: dict[str, Any], kind: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Options and pattern (or command) of each output of a kind: path or eval."""
    for output in process["outputs"]:
        yield from ((output["options"], part[kind]) for part in output["parts"] if kind in part)


def missing(process: dict[str, Any], folder: Path) -> set[str]:
    """Outputs that must be there and are not."""
    paths = ((options, pattern) for options, pattern in declared(process, "path"))
    return {
        pattern
        for options, pattern in paths
        if not options.get("optional") and not list(folder.glob(pattern))
    }


@needs_groovy
@pytest.mark.parametrize("main", sorted(NEXTFLOW.rglob("main.nf")), ids=lambda p: p.parent.name)
def test_syntax(main: Path) -> None:
    assert groovy(str(main)) == {}


@needs_groovy
def test_a_task_on_a_cpu_and_on_gpus(
    tmp_path: Path, models: Path, outside: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One real task; what it writes outside of its folder; the versions that it reports."""
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(DEMO / "viral.fa", work / "genome.fasta")
    (work / "store").symlink_to(models)
    words = {"meta": {"id": "a"}, "sequences": "genome.fasta", "models": "store"}
    before, args = listing(models), "--profile esm2-3b --chunk-size 300"
    process = rendered(PREDICT / "main.nf", tmp_path, args=args, **words)
    assert "6 records: " in run(process["script"], work, outside)
    assert missing(process, work) == set()
    assert listing(models) == before
    assert list(Path(outside["HOME"]).iterdir()) == []
    assert list(Path(outside["TMPDIR"]).iterdir()) == []
    assert {path.name for path in work.iterdir()} == {"genome.fasta", "store", "a"}
    versions = {
        options["emit"]: run(command, work, outside).strip() for options, command in declared(process, "eval")
    }
    assert versions["versions_virnucpro"] == virnucpro_core.__version__
    assert set(versions) == {"versions_virnucpro", "versions_torch", "versions_cuda"}

    on_gpus = rendered(PREDICT / "main.nf", tmp_path, accelerator={"request": 2}, **words)
    assert "--device cuda --gpus 2" in on_gpus["script"]


@needs_groovy
@pytest.mark.parametrize("module", INPUTS, ids=lambda module: module.name)
def test_the_stub_makes_what_the_snapshot_says(module: Path, tmp_path: Path, outside: dict[str, str]) -> None:
    work = tmp_path / "work"
    work.mkdir()
    process = rendered(module / "main.nf", tmp_path, **INPUTS[module])
    run(process["stub"], work, outside)
    assert missing(process, work) == set()
    snapshots = json.loads((module / "tests/main.nf.test.snap").read_text())
    [stub] = [snapshot for name, snapshot in snapshots.items() if name.endswith("- stub")]
    made = {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in work.rglob("*") if p.is_file()}
    assert set(_files(stub["content"])) == {f"{name}:md5,{digest}" for name, digest in made.items()}
    reported = {options["emit"] for options, _ in declared(process, "eval")}
    assert reported >= {name for part in stub["content"] for name in part if name.startswith("versions")}


def _files(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield from [content] if ":md5," in content else []
    elif isinstance(content, dict):
        yield from (found for value in content.values() for found in _files(value))
    elif isinstance(content, list):
        yield from (found for value in content for found in _files(value))


@needs_groovy
@pytest.mark.parametrize("module", INPUTS, ids=lambda module: module.name)
def test_meta_yml_describes_every_output(module: Path, tmp_path: Path) -> None:
    process = rendered(module / "main.nf", tmp_path, **INPUTS[module])
    described = yaml.safe_load((module / "meta.yml").read_text())["output"]
    assert list(described) == [output["options"]["emit"] for output in process["outputs"]]
    for name, output in described.items():
        rows = output[0] if isinstance(output[0], list) else output
        for file, about in (pair for row in rows for pair in row.items() if pair[1]["type"] == "file"):
            assert about["ontologies"], f"{name}: no EDAM term"
            assert fnmatch.fnmatch(Path(file).name, about["pattern"])


def test_the_modules_ask_for_this_version() -> None:
    for file in NEXTFLOW.rglob("environment*.yml"):
        assert (
            f"bioconda::virnucpro={virnucpro_core.__version__}"
            in yaml.safe_load(file.read_text())["dependencies"]
        )
    for file in NEXTFLOW.rglob("main.nf"):
        for line in file.read_text().splitlines():
            assert "virnucpro:" not in line or f"virnucpro:{virnucpro_core.__version__}--" in line
    for file in NEXTFLOW.rglob("*.snap"):
        snapshots = json.loads(file.read_text()).values()
        assert {v for s in snapshots for v in _versions(s["content"])} <= {virnucpro_core.__version__}


def _versions(content: Any) -> Iterator[str]:
    for part in content:
        if isinstance(part, dict):
            yield from (row[2] for row in part.get("versions_virnucpro", []))
