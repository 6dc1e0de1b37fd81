"""Help and messages: every command and option has a help text, it fits 80 columns, and its examples are valid."""

import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from tests.support import ROOT
from tests.test_docs import RIDDLES, _problem
from virnucpro_assets.cli.main import app
from virnucpro_assets.cli.words import counted


def commands(group: click.Group, *words: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below the group, by the words that call it."""
    for name, command in group.commands.items():
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *words, name)


COMMANDS = {(): app, **dict(commands(app))}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_is_complete_and_reads_well_at_80_columns(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    assert re.search(r"^ *Examples?:$", command.help or "", re.MULTILINE), "every command has an example"
    for option in (p for p in command.params if isinstance(p, click.Option)):
        assert option.help, option.name
        assert "" not in getattr(option.type, "choices", ()), option.name
    shown = CliRunner().invoke(app, [*words, "--help"], terminal_width=80, max_content_width=80).output
    assert max(map(len, shown.splitlines())) <= 80
    listed = shown.partition("Commands:\n")[2]
    assert "..." not in listed, "the first sentence of a command is too long for the list"


def test_examples_of_the_help_are_commands_that_exist() -> None:
    texts = [command.help or "" for command in COMMANDS.values()]
    lines = [line.split() for text in texts for line in re.findall(r"^ +virnucpro (.*)$", text, re.MULTILINE)]
    assert len(lines) > 25
    assert not [said for line in lines if (said := _problem(line))]


def test_one_is_not_many() -> None:
    found = [counted(number, "record") for number in (0, 1, 2, 1200)]
    assert found == ["0 records", "1 record", "2 records", "1,200 records"]


def test_no_riddles_in_the_code() -> None:
    files = [*(ROOT / "virnucpro_assets").rglob("*.py"), *(ROOT / "virnucpro_assets").rglob("*.yaml")]
    found = {
        file.name: words for file in files for words in RIDDLES if words in " ".join(file.read_text().split())
    }
    assert not found


@pytest.mark.parametrize("words", [(), ("export",), ("models",), ("storage",)], ids=" ".join)
def test_a_bare_command_prints_its_help(words: tuple[str, ...]) -> None:
    said = alone(*words)
    assert said.startswith("Usage: ")
    assert "Commands:\n" in said
    assert "\\n" not in said


def test_a_missing_choice_is_told_in_one_line() -> None:
    assert "Choose from: esm2, dnabert-s; see `" in alone("embed")


def alone(*words: str) -> str:
    command = [sys.executable, "-m", "virnucpro_assets.cli.main", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr
