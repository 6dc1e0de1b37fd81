"""The recipe for bioconda says what pyproject.toml says."""

import re
import tomllib
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import virnucpro_core
from tests.support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# PyPI's name -> conda's, where they differ.
NAMES = {"isal": "python-isal", "matplotlib": "matplotlib-base", "torch": "pytorch"}


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    """The recipe, its templates filled in as conda-build does it."""
    text = (ROOT / "deploy/conda/meta.yaml").read_text()
    words = {"PYTHON": "python", "pin_subpackage": lambda name, max_pin: f"{name} {max_pin}"}
    return dict(
        yaml.safe_load(jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(text).render(words))
    )


def _of_conda(text: str) -> tuple[str, SpecifierSet]:
    name, _, limits = text.partition(" ")
    return name, SpecifierSet(limits)


def test_requirements(recipe: dict[str, Any]) -> None:
    asked = dict(map(_of_conda, recipe["requirements"]["run"]))
    python = asked.pop("python")
    wanted = {
        NAMES.get(r.name, r.name): r.specifier for r in map(Requirement, PROJECT["project"]["dependencies"])
    }
    assert asked == wanted
    assert SpecifierSet(PROJECT["project"]["requires-python"]) & SpecifierSet("<3.14") == python
    host = dict(map(_of_conda, recipe["requirements"]["host"]))
    assert host["python"] == python
    for text in PROJECT["build-system"]["requires"]:
        assert host[Requirement(text).name] == Requirement(text).specifier


def test_facts(recipe: dict[str, Any]) -> None:
    project = PROJECT["project"]
    assert recipe["package"] == {"name": project["name"], "version": virnucpro_core.__version__}
    assert recipe["about"]["summary"] == project["description"]
    assert recipe["about"]["license"] == project["license"]
    assert (ROOT / recipe["about"]["license_file"]).is_file()
    [[name, target]] = project["scripts"].items()
    assert recipe["build"]["entry_points"] == [f"{name} = {target}"]
    assert recipe["source"]["url"].endswith(f"virnucpro-{virnucpro_core.__version__}.tar.gz")
    assert re.fullmatch(r"[0-9a-f]{64}", recipe["source"]["sha256"])


def test_what_bioconda_asks_for(recipe: dict[str, Any]) -> None:
    """The rules of bioconda's linter that a recipe of this kind can break."""
    assert recipe["build"]["noarch"] == "python"
    assert recipe["build"]["number"] == 0
    assert recipe["build"]["run_exports"]
    assert recipe["test"]["commands"]
    about = SimpleNamespace(**recipe["about"])
    assert about.home
    assert about.license
    assert len(about.summary) < 200
    text = (ROOT / "deploy/conda/meta.yaml").read_text()
    assert "\t" not in text
    assert "defaults" not in text
