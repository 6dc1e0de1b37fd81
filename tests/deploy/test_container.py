"""The container file, and how its proof reads it. The proof itself needs root, debootstrap and a package index."""

import importlib.util
import re
import shlex
import tomllib
from types import ModuleType

import pytest

from tests.support import ROOT

FOLDER = ROOT / "deploy"
TEXT = (FOLDER / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def prove() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prove", FOLDER / "prove.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


def test_continued_lines_and_comments(prove: ModuleType) -> None:
    text = "# no\nRUN a \\\n # between the lines\n && b\n\nUSER 1:1\n"
    assert list(prove.instructions(text)) == [("RUN", "a  && b"), ("USER", "1:1")]


def test_an_unknown_instruction_is_refused(
    prove: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    file = ROOT / "nowhere"
    monkeypatch.setattr(
        prove, "DOCKERFILE", type("File", (), {"read_text": lambda _: "HEALTHCHECK NONE\n"})()
    )
    asked = type("Asked", (), {"build_arg": [], "only_demo": False})()
    with pytest.raises(ValueError, match="HEALTHCHECK is not known"):
        prove.build(prove.Image(), file, asked)


def test_every_instruction_is_known_and_the_user_is_not_root(prove: ModuleType) -> None:
    found = list(prove.instructions(TEXT))
    assert {name for name, _ in found} == {"FROM", "ARG", "ENV", "RUN", "COPY", "USER", "WORKDIR", "CMD"}
    after_user = [name for name, _ in found[[name for name, _ in found].index("USER") :]]
    assert set(after_user) == {"USER", "WORKDIR", "ENV", "CMD"}
    assert [rest for name, rest in found if name == "USER"] == ["10001:10001"]
    for name, rest in found:
        if name == "ENV":
            assert all("=" in word for word in shlex.split(rest))


def test_it_installs_the_tested_torch_and_extras_that_exist() -> None:
    makefile = re.findall(r"^TORCH \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^ARG TORCH=(\S+)$", TEXT, re.MULTILINE) == makefile
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"EXTRAS=([\w,]+)", TEXT)
    assert named
    assert {extra for words in named for extra in words.split(",")} <= set(extras)


def test_the_context_holds_what_is_copied() -> None:
    copied = {word for line in re.findall(r"^COPY (.+)$", TEXT, re.MULTILINE) for word in line.split()[:-1]}
    kept = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line.removeprefix("!") for line in kept if line.startswith("!")} == copied
