"""No pinned version, and no lower bound of our own, lies below what requirements-advisories.md asks for."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.support import ROOT

ROWS = re.findall(
    r"^\| ([a-z0-9-]+) \| ([0-9.]+) \|", (ROOT / "requirements-advisories.md").read_text(), re.MULTILINE
)
LOCK = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE))


def _declared() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


@pytest.mark.parametrize(("package", "bound"), ROWS)
def test_versions_are_not_below_the_bound(package: str, bound: str) -> None:
    pinned, declared = LOCK.get(package), _declared().get(package)
    if pinned is None:  # PyTorch's build depends on the machine: the Makefile pins it
        pinned = re.findall(rf"{package}==(\S+)", (ROOT / "Makefile").read_text())[0]
    assert Version(pinned) >= Version(bound)
    if declared is not None:
        least = [Version(s.version) for s in declared.specifier if s.operator in (">=", "==")]
        assert max(least) >= Version(bound), f"{package}: raise the lower bound in pyproject.toml"


def test_the_list_is_read() -> None:
    assert len(ROWS) > 10
    assert {"torch", "transformers"} <= {package for package, _ in ROWS}
