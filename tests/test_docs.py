"""Documentation says what is so: paths, links, commands, options, make verbs, modules and variables in it exist."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.support import ROOT
from virnucpro_assets.cli.main import app
from virnucpro_assets.platform.environment import VARIABLES

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / ".github").rglob("*.md"),
        ROOT / "deploy/Dockerfile",
    ]
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
TEXT = {name: page.read_text() for name, page in zip(NAMES, PAGES, strict=True)}
ROOMS = (
    "virnucpro_core",
    "virnucpro_assets",
    "tests",
    "docs",
    "benchmarks",
    "deploy",
    "examples",
    "tools",
    "torture",
)
# Parts of programs that are ours: what stands before them in a line is a path or a prompt.
PROGRAM = re.compile(r"(?:^|[\s`(/;&|])virnucpro(?=[ `\n]|$)")
BLOCK = re.compile(r"^```(?:sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")


def _code(text: str) -> Iterator[str]:
    """Every command line of a page: those of its blocks, joined where `\\` continues them, and inline code."""
    for block in BLOCK.findall(text):
        yield from re.sub(r"\\\n\s*", "", block).splitlines()
    for code in INLINE.findall(re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        yield code.replace("\n", " ")


def _words(line: str) -> list[str]:
    """The line as a shell would split it, without its comment; brackets of optional parts are dropped."""
    line = re.sub(r"(^|\s)#.*$", "", line)
    try:
        return shlex.split(re.sub(r"(?<=\s)\[|\](?=\s|$)", " ", line))
    except ValueError:
        return line.split()


def _commands(text: str) -> Iterator[list[str]]:
    """Arguments of each `virnucpro` in the page."""
    for line in _code(text):
        words = _words(line)
        for at, word in enumerate(words):
            is_name = (
                any(words[at - 1].endswith(w) for w in ("useradd", "User", "createuser")) if at else False
            )
            if word == "virnucpro" or word.endswith("/bin/virnucpro"):
                rest = words[at + 1 :]
                if at and (
                    is_name or words[at - 1] in ("--pwprompt", "--owner", "--constraint", "requirements.lock")
                ):
                    continue  # the name of a user or of the package
                if at > 1 and words[0] in ("helm", "apt-get", "pip"):
                    continue
                ends = [i for i, w in enumerate(rest) if w in ("|", "&&", ";", "||")]
                yield rest[: ends[0]] if ends else rest


def _problem(arguments: list[str]) -> str:
    """What is wrong with a command line, or nothing. Names of files and samples are anything."""
    command: click.Command = app
    context = click.Context(app)
    while arguments and isinstance(command, click.Group):
        word = arguments[0]
        if word.startswith("-"):
            if not _takes(command, word):
                return f"{command.name or 'virnucpro'} has no option {word}"
            arguments = arguments[1:]
            continue
        found = command.get_command(context, word)
        if found is None:
            if command.name == "samples":  # `samples NAME` is `samples show NAME`
                command = command.commands["show"]
                break
            return "" if word in ("...", "…") else f"no command {word!r}"
        command, arguments = found, arguments[1:]
    for at, word in enumerate(arguments):
        option = word.partition("=")[0]
        if not option.startswith("--") or option == "--":
            continue
        taken = _takes(command, option)
        if taken is None:
            return f"{command.name} has no option {option}"
        value = arguments[at + 1] if at + 1 < len(arguments) else ""
        if isinstance(taken.type, click.Choice) and not set(value.split("|")) <= set(taken.type.choices):
            return f"{option} cannot be {value!r}"
    return ""


def _takes(command: click.Command, option: str) -> click.Parameter | None:
    if option == "--help":
        return click.Option(["--help"], is_flag=True)
    return next((p for p in command.params if option in [*p.opts, *p.secondary_opts]), None)


@pytest.mark.parametrize("page", NAMES)
def test_commands_and_options_exist(page: str) -> None:
    wrong = {" ".join(c): said for c in _commands(TEXT[page]) if (said := _problem(c))}
    assert not wrong


def test_commands_are_found() -> None:
    """The test above looks at something, and notices what is wrong."""
    assert len([c for page in NAMES for c in _commands(TEXT[page])]) > 80
    assert _problem(["predict", "x.fa", "--nowhere"])
    assert _problem(["predictt"])
    assert _problem(["predict", "x.fa", "--precision", "fp9"])
    assert not _problem(["samples", "NAME", "--json"])


@pytest.mark.parametrize("page", NAMES)
def test_make_verbs_exist(page: str) -> None:
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set()
    for line in _code(TEXT[page]):
        words = _words(line)
        if words and words[0] == "make":
            named |= {w for w in words[1:] if re.fullmatch(r"[a-z]+", w)}
    assert named <= verbs


@pytest.mark.parametrize("page", NAMES)
def test_paths_exist(page: str) -> None:
    """Of paths that begin with a folder of the repository, also with `*`."""
    starts = "|".join(ROOMS)
    named = set(re.findall(rf"(?<![\w./-])((?:{starts})/[\w./*-]*[\w/*])", TEXT[page]))
    assert not {path for path in named if not list(ROOT.glob(path.rstrip("/")))}


def _anchors(text: str) -> set[str]:
    """Headings as a link names them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        found.add(re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", [n for n in NAMES if n.endswith(".md")])
def test_links_lead_somewhere(page: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXT[page]):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists() or (anchor and anchor not in _anchors(file.read_text())):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", NAMES)
def test_modules_exist(page: str) -> None:
    named = set(re.findall(rf"-m ((?:{'|'.join(ROOMS)})[\w.]*)", TEXT[page]))
    assert not {module for module in named if importlib.util.find_spec(module) is None}


def test_no_page_names_a_variable_that_is_none() -> None:
    read = {variable.name for variable in VARIABLES}
    modules = "".join(file.read_text() for file in (ROOT / "deploy/nextflow").rglob("main.nf"))
    processes = set(re.findall(r"^process (VIRNUCPRO_\w+)", modules, re.MULTILINE))
    misspelt = {"VIRNUCPRO_CHUNKSIZE"}  # the changelog's example
    for page in NAMES:
        assert set(re.findall(r"VIRNUCPRO_[A-Z_]*[A-Z]", TEXT[page])) <= read | processes | misspelt, page


def test_tree_of_the_folders_shows_every_room() -> None:
    tree = re.findall(r"^```\n(virnucpro_core/.*?)^```", TEXT["CONTRIBUTING.md"], re.MULTILINE | re.DOTALL)[0]
    for package in ("virnucpro_core", "virnucpro_assets"):
        rooms = {p.parent.name for p in (ROOT / package).glob("*/__init__.py")}
        rooms |= {p.name for p in (ROOT / package).glob("*.py")} - {"__init__.py", "queue.py"}
        part = re.findall(rf"^{package}/.*?(?=^\S)", tree, re.MULTILINE | re.DOTALL)[0]
        shown = set(re.findall(r"^  (\w+(?=/)|\w+\.py)", part, re.MULTILINE)) - {"demo"}
        assert shown == rooms


# Sentences over which readers stumbled once; each says in the clear what it means now.
RIDDLES = (
    "From the second",
    "what it showed was mended",
    "no GPU was broken for it",
    "none was sliced",
    "verybody's batches",
    "whole at one look",
    "What is no sequence file",
    "nobody is there to ask",
    "told by",
    "are called right",
    "taken their news for nobody's",
    "Nobody holds a GPU for nobody",
    "let go",
    "lets go",
    "held against",
    "machines on paper",
    "made anew",
    "looked at anew by",
)


@pytest.mark.parametrize("page", [n for n in NAMES if n.endswith(".md")])
def test_no_riddles(page: str) -> None:
    text = " ".join(TEXT[page].split())
    assert not [words for words in RIDDLES if words in text]


def test_decisions_are_short_and_listed() -> None:
    for record in Path(ROOT / "docs/decisions").glob("0*.md"):
        assert record.name in TEXT["docs/decisions/README.md"]
        assert len(record.read_text().split()) < 400, "half a page"


def test_the_readme_is_for_a_first_reader() -> None:
    """What it is, two commands, one picture, one table, where to go on: less than two screens."""
    text = TEXT["README.md"]
    assert len(text.splitlines()) < 70
    assert text.count("![") == 1
    assert len(re.findall(r"^\|---", text, re.MULTILINE)) == 1
    [block] = BLOCK.findall(text)
    assert len(block.splitlines()) == 2
