"""What a release holds: the archives' content, one version, and the demo from the wheel alone."""

import os
import re
import socket
import subprocess
import sys
import sysconfig
import tarfile
import time
import tomllib
import urllib.request
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import virnucpro_core
from tests.support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
PACKAGES = ("virnucpro_core", "virnucpro_assets")
MINUTES = 5


def _tracked() -> list[str]:
    """The repository's files; in a source archive, which is no repository, every file."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout: nothing says which files belong to the project")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(source archive, wheel), built from a copy: building writes into the folder that it builds."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in _tracked():
        copy = tree / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    [source], [wheel] = list(out.glob("*.tar.gz")), list(out.glob("*.whl"))
    return source, wheel


def test_wheel_holds_every_file_of_both_packages_and_nothing_else(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[1]) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    ours = {name for name in _tracked() if name.startswith(tuple(f"{p}/" for p in PACKAGES))}
    assert held == {name for name in ours if not name.endswith("ruff.toml")}
    for needed in (
        "virnucpro_core/py.typed",
        "virnucpro_core/results/templates/report.html.j2",
        "virnucpro_core/demo/esm2/model.safetensors",
        "virnucpro_assets/platform/dagster.yaml",
        "virnucpro_assets/platform/postgres.yaml",
        "virnucpro_assets/queue.py",  # the name in users' copies of dagster.yaml
    ):
        assert needed in held


def test_source_archive_holds_the_checkout(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[0]) as source:
        held = {name.partition("/")[2] for name in source.getnames()}
    apart = (".github/", ".ci/", ".gitignore", "MANIFEST.in")  # of the repository, not of the program
    assert {n for n in _tracked() if not n.startswith(apart)} <= held


def test_archives_pass_twine(archives: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, archives)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.torture
@pytest.mark.timeout(MINUTES * 60 + 60)
def test_demo_runs_from_the_wheel_in_an_empty_folder(archives: tuple[Path, Path], tmp_path: Path) -> None:
    """A fresh environment that sees the dependencies of this one, but not this source tree."""
    environment, work = tmp_path / "venv", tmp_path / "work"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    # Paths of a .pth file are searched last, and .pth files within them (editable installs) are not read.
    beside = [p for p in sys.path if p.endswith("site-packages")] or [sysconfig.get_path("purelib")]
    Path(purelib, "dependencies.pth").write_text("".join(f"{p}\n" for p in beside))
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--no-index", "--ignore-installed", str(archives[1])], check=True)

    work.mkdir()
    variables = {
        k: v for k, v in os.environ.items() if not k.startswith(("VIRNUCPRO_", "DAGSTER_", "PYTHON"))
    }
    variables |= {"VIRNUCPRO_HOME": str(work / "home"), "PATH": f"{environment / 'bin'}:{os.defpath}"}

    def run(*command: str) -> str:
        ended = subprocess.run(
            command,
            cwd=work,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=MINUTES * 60,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return (ended.stdout + ended.stderr).strip()

    where = "import virnucpro_core, pathlib; print(pathlib.Path(virnucpro_core.__file__).parent)"
    package = run(str(python), "-P", "-c", where)
    assert package == f"{purelib}/virnucpro_core"
    genomes = f"{package}/demo/viral.fa"
    told = run(
        "virnucpro", "predict", genomes, "--profile", "demo", "--chunk-size", "300", "--out", "results"
    )
    assert "6 records: 6 virus" in told
    assert (work / "results" / "report.html").is_file()
    assert f"version {virnucpro_core.__version__}" in run("virnucpro", "--version")
    assert "viral" in _web_ui(environment / "bin" / "virnucpro", work, variables)


def _web_ui(program: Path, work: Path, variables: dict[str, str]) -> str:
    """The page of results that `virnucpro ui` serves; without a checkout, so with the wheel's own dagster.yaml."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = work / "ui.log"
    with log.open("w") as out, subprocess.Popen(
        [program, "ui", "--port", str(port)], cwd=work, env=variables, stdout=out, stderr=out
    ) as ui:  # fmt: skip
        try:
            for _ in range(MINUTES * 60):
                assert ui.poll() is None, log.read_text()
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/results/", timeout=30) as page:
                        return str(page.read().decode())
                except OSError:
                    time.sleep(1)
            pytest.fail(log.read_text())
        finally:
            ui.terminate()
            ui.wait(60)


def test_one_version() -> None:
    """pyproject.toml is the place; CITATION.cff and CHANGELOG.md follow."""
    version = virnucpro_core.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert any(heading.startswith(f"{version} - ") for heading in headings)


def test_dagster_packages_are_of_one_version() -> None:
    assert LOCK["dagster"] == LOCK["dagster-webserver"] == LOCK["dagster-dg-cli"] == LOCK["dagster-graphql"]
    asked = {
        r.name: r
        for r in map(Requirement, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dg"]])
    }
    for name in ("dagster-webserver", "dagster-dg-cli"):
        assert asked[name].specifier == asked["dagster"].specifier


@pytest.mark.parametrize("name", ["dagster", "dagster-webserver", "dagster-dg-cli", "torch"])
def test_what_may_break_with_a_minor_version_has_an_upper_bound(name: str) -> None:
    asked = {
        r.name: r
        for r in map(Requirement, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dg"]])
    }
    assert [s for s in asked[name].specifier if s.operator == "<"]


def test_the_tested_torch_is_allowed() -> None:
    asked = {r.name: r for r in map(Requirement, PROJECT["dependencies"])}
    tested = re.findall(r"^TORCH \?= torch==(\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0]
    assert Version(tested) in asked["torch"].specifier


def test_pythons_of_the_classifiers_are_those_of_ci() -> None:
    said = {c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if c.startswith("Programming Language")}
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert set(workflow["jobs"]["test"]["strategy"]["matrix"]["python"]) == said
    assert "Operating System :: POSIX :: Linux" in PROJECT["classifiers"]


@pytest.mark.parametrize("name", [p.name for p in (ROOT / ".github/workflows").glob("*.yml")])
def test_actions_are_pinned_by_commit(name: str) -> None:
    text = (ROOT / ".github/workflows" / name).read_text()
    used = re.findall(r"uses: (\S+)(.*)$", text, re.MULTILINE)
    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v[\d.]+", comment), f"{action}: say which version the commit is"
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
