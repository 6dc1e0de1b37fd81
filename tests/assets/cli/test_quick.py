"""Commands that only read names and numbers start quickly: they import neither Dagster nor torch nor pandas."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.assets.conftest import Finished
from virnucpro_assets.cli.main import app
from virnucpro_assets.platform.databases import RUNS

SLOW = {"torch", "dagster", "pandas", "matplotlib", "huggingface_hub", "transformers"}
SLOW_FOR_HELP = SLOW | {"numpy", "h5py", "rich", "yaml", "psutil"}
PROBE = """
import atexit, os, sys
atexit.register(lambda: sys.stderr.write("modules: " + " ".join(sys.modules)))
from virnucpro_assets.cli.main import main
main()
"""


def modules_of(home: Path, *words: str) -> set[str]:
    """Top-level modules that the command has imported when it ends well."""
    environment = dict(os.environ) | {"VIRNUCPRO_HOME": str(home), "DAGSTER_HOME": ""}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stderr.partition("modules: ")[2].split()}


@pytest.mark.parametrize(
    "words",
    [
        ("samples",),
        ("samples", "--json"),
        ("samples", "clean", "--keep", "scores", "--dry-run"),
        ("models", "list"),
        ("models", "verify"),
    ],
    ids=" ".join,
)
def test_a_quick_command_imports_nothing_slow(finished: Finished, words: tuple[str, ...]) -> None:
    assert not modules_of(finished.platform.folder, *words) & SLOW


def test_an_unfinished_sample_costs_no_import_of_dagster_unless_a_run_failed(finished: Finished) -> None:
    """Its folder does not say why it is not finished; the records of the runs do."""
    home, records = finished.platform.folder, Path(finished.instance.root_directory)
    shutil.rmtree(finished.sample.results)
    shutil.copytree(records / "history", home / "dagster" / "history")
    (home / "dagster" / "dagster.yaml").touch()
    assert not modules_of(home, "samples") & SLOW
    with contextlib.closing(sqlite3.connect(home / "dagster" / RUNS)) as runs, runs:
        runs.execute("UPDATE runs SET status = 'FAILURE'")
    assert "dagster" in modules_of(home, "samples")


def test_help_of_every_command_imports_next_to_nothing(tmp_path: Path) -> None:
    commands: list[tuple[str, ...]] = [(), *((name,) for name in app.commands)]
    commands += [
        (name, below) for name, group in app.commands.items() for below in getattr(group, "commands", {})
    ]
    assert len(commands) > 15
    for command in commands:
        assert not modules_of(tmp_path, *command, "--help") & SLOW_FOR_HELP, command


def test_the_shell_completes_options_quickly(tmp_path: Path) -> None:
    """As bash asks: the words so far, and which one is being typed."""
    asked = {
        "_VIRNUCPRO_COMPLETE": "bash_complete",
        "COMP_WORDS": "virnucpro predict --pro",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("virnucpro")],
        env={**os.environ, **asked}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "plain,--profile\n"
    script = subprocess.run(
        [Path(sys.executable).with_name("virnucpro"), "completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "_VIRNUCPRO_COMPLETE=bash_complete" in script
