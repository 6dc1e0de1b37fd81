"""The architecture page cannot drift: its picture comes from the imports, and what it names exists."""

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.support import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROW = re.compile(r"^\| [A-Z][^|]*\? \| `([\w/.]+\.py)` \| ([^|]+) \|$", re.MULTILINE)
ANSWERS = [(file, name) for file, names in ROW.findall(PAGE) for name in re.findall(r"`([\w.]+)`", names)]


def _rooms() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "rooms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_that_of_the_code() -> None:
    assert _rooms().page(PAGE) == PAGE, "run `make architecture`"


def test_no_room_uses_a_higher_one() -> None:
    """Levels exist, so there are no circles; and nothing of the core uses the Dagster side."""
    rooms = _rooms()
    uses = rooms.arrows()
    level = rooms.levels(uses)
    assert all(level[other] < level[room] for room, used in uses.items() for other in used)
    assert not [r for r in uses if r[0] == "virnucpro_core" for o in uses[r] if o[0] == "virnucpro_assets"]


def test_circles_are_named() -> None:
    a, b = ("virnucpro_core", "a"), ("virnucpro_core", "b")
    with pytest.raises(ValueError, match="virnucpro_core/a, virnucpro_core/b"):
        _rooms().levels({a: {b}, b: {a}})


def test_arrows_that_follow_from_others_are_left_out() -> None:
    a, b, c = (("virnucpro_core", name) for name in "abc")
    assert _rooms().reduced({a: {b, c}, b: {c}, c: set()}) == {a: {b}, b: {c}, c: set()}


def _defined(file: Path) -> set[str]:
    """Names at the top of a module, and `Class.name` of its classes."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def test_there_are_answers() -> None:
    questions = [line for line in PAGE.splitlines() if re.match(r"^\| [A-Z][^|]*\? \|", line)]
    assert len(questions) > 30
    assert len(questions) == len(ROW.findall(PAGE)), "a question without a file and a name"


@pytest.mark.parametrize(("file", "name"), ANSWERS)
def test_each_answer_exists(file: str, name: str) -> None:
    assert (ROOT / file).is_file()
    assert name in _defined(ROOT / file)


def test_the_glossary_has_the_words_of_the_project() -> None:
    for word in ("sample", "record", "chunk", "frame", "unique frame", "shard", "rank", "lane"):
        assert f"| **{word}** |" in PAGE
    assert PAGE.index("## Words") < PAGE.index("## The rooms")
