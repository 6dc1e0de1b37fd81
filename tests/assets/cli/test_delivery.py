"""Where results go and what stays behind, by the commands that people type."""

import csv
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.assets.cli.test_main import Shell
from tests.support.rights import without_rights
from virnucpro_assets.cli.main import app
from virnucpro_core.errors import StoreError
from virnucpro_core.results.multiqc import MULTIQC_FILES
from virnucpro_core.samples.home import OWN
from virnucpro_core.samples.standard_input import KEPT

LETTERS = "ACCAGGACAGGCAAGCACGACCAGCAGGACACCGACAAGGCAAGCA" * 8


def fasta(file: Path, first: int, *ids: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f">{name}\n{LETTERS[first : first + 150]}\n" for name in ids or ("r",)))
    return file


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    shell.environment["VIRNUCPRO_CHUNK_SIZE"] = "300"
    return shell


def piped(shell: Shell, text: bytes, *words: str) -> int:
    command = shell.command("predict", "-", *words)
    done = subprocess.run(
        command, cwd=shell.folder, env=shell.environment, input=text, capture_output=True, check=False
    )
    return done.returncode


def test_results_and_their_names_from_the_first_command_to_a_removed_sample(shell: Shell) -> None:
    home = shell.folder / "home"
    for n, file in enumerate(("other/pat1.fa", "flat/pat1.fa", "flat/pat2.fa")):
        fasta(shell.folder / file, 3 * n)
    shell.good("predict", "other/pat1.fa", "-o", "other-results")
    assert {entry.name for entry in home.iterdir()} <= set(OWN)

    # --out in the home's own folders: refused, and nothing is lost.
    results = home / "samples" / "pat1" / "results"
    before = {file.name: file.read_bytes() for file in results.iterdir()}
    (shell.folder / "link").symlink_to(home / "samples")
    for out in ("home/samples/pat1/results", "home/samples/new", "link/new", "home/inbox/x", "home"):
        assert "home" in shell.refused("predict", "other/pat1.fa", "-o", out, "--check")
    assert "keeps for itself" in shell.refused("predict", "other/pat1.fa", "-o", results, "--force")
    for words in (("summary",), ("export", "translations", "pat1")):
        assert "keeps for itself" in shell.refused(*words, "-o", "home/logs/x", "--force")
    assert {file.name: file.read_bytes() for file in results.iterdir()} == before
    assert sorted(entry.name for entry in (home / "samples").iterdir()) == ["pat1"]

    # The name that a person knows: folder, table and MultiQC agree, and the same command again changes nothing.
    fasta(shell.folder / "flat" / "bad.fa", 0, "r", "r")
    for _ in range(2):
        done = shell.run("predict", "flat", "-o", "o", "--json")
        assert done.returncode == 2
        shown = {one["name"]: one for one in map(json.loads, done.stdout.splitlines())}
        assert {name: one["sample"] for name, one in shown.items()} == {
            "pat1": "flat_pat1", "pat2": "pat2", "bad": "bad",
        }  # fmt: skip
        assert shown["bad"]["exit_code"] == 2
        assert "the same id as at line 1" in shown["bad"]["error"]
    with (shell.folder / "o" / "summary.tsv").open(newline="") as stream:
        rows = {row["sample"]: row["state"] for row in csv.DictReader(stream, delimiter="\t")}
    assert rows == {"pat1": "called", "pat2": "called", "bad": "failed"}
    for name in MULTIQC_FILES:
        assert set(json.loads((shell.folder / "o" / name).read_text())["data"]) == {"pat1", "pat2"}
        assert set(json.loads((shell.folder / "o" / "pat1" / name).read_text())["data"]) == {"pat1"}
    assert "<title>pat1 · " in (shell.folder / "o" / "pat1" / "report.html").read_text()

    # What was refused leaves nothing, and the advice of its error works without a word about the earlier try.
    assert not list((home / "contents").rglob("bad"))
    assert "is not known" not in shell.good("predict", "flat/bad.fa", "--duplicates", "rename", "-o", "bad")


def test_a_pipe_that_was_refused_or_only_checked_leaves_nothing(shell: Shell) -> None:
    kept, text = shell.folder / "home" / KEPT, fasta(shell.folder / "a.fa", 0).read_bytes()

    def names() -> int:
        return len(list(kept.iterdir())) if kept.exists() else 0

    assert piped(shell, b"no sequences\n", "--sample", "x", "-o", "x") == 2
    assert names() == 0
    assert piped(shell, text, "--sample", "x", "-o", "x", "--check") == 0
    assert names() == 0
    assert piped(shell, text, "--sample", "x", "-o", "x") == 0
    assert names() == 1
    other = fasta(shell.folder / "b.fa", 9).read_bytes()
    assert piped(shell, other, "--sample", "x", "-o", "y") == 2  # the name stands for other sequences
    assert names() == 1
    assert piped(shell, other, "--sample", "x", "-o", "x", "--fresh") == 0
    [left] = kept.iterdir()
    assert left.read_bytes() == other


def test_two_commands_with_one_out_do_not_replace_each_others_results(shell: Shell) -> None:
    for n, name in enumerate(("a", "b")):
        fasta(shell.folder / f"{name}.fa", 5 * n)
    commands = [
        shell.start("predict", f"{name}.fa", "--sample", sample, "-o", "out")
        for name, sample in (("a", "p1"), ("b", "p2"))
    ]
    told = [command.communicate(timeout=240)[1] for command in commands]
    assert sorted(command.returncode for command in commands) == [0, 2], told
    [first] = [n for n, command in enumerate(commands) if command.returncode == 0]
    assert json.loads((shell.folder / "out" / "run.json").read_text())["sample"] == f"p{first + 1}"
    assert f"holds the results of sample 'p{first + 1}'" in told[1 - first].splitlines()[-1]
    assert (shell.folder / "home" / "samples" / f"p{2 - first}" / "results" / "run.json").exists()


def test_a_home_that_cannot_be_written_is_told_before_the_work(shell: Shell) -> None:
    fasta(shell.folder / "a.fa", 0)
    shell.environment["VIRNUCPRO_HOME"] = "/proc/home"
    for check in ((), ("--check",)):
        said = shell.refused("predict", "a.fa", "-o", "out", *check)
        assert said.startswith("virnucpro: /proc: cannot be written")
        assert "give another --home (VIRNUCPRO_HOME)" in said


def test_folders_without_permission_are_told_before_the_work(shell: Shell) -> None:
    def told(*words: object) -> tuple[int, str]:
        done = subprocess.run(
            without_rights(shell.command("predict", *words)),
            cwd=shell.folder, env=shell.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr.splitlines()[-1]

    fasta(shell.folder / "in" / "a.fa", 0)
    fasta(shell.folder / "in" / "sub" / "b.fa", 3)
    fasta(shell.folder / "in" / "deep" / "er" / "c.fa", 6)
    (shell.folder / "in" / ".hidden").mkdir(mode=0)
    shut = [shell.folder / "in" / "sub", shell.folder / "in" / "deep" / "er"]
    shut[0].chmod(0)
    shut[1].chmod(0o444)  # its names can be read, its files not
    for check in ((), ("--check",)):
        code, said = told("in", "-o", "out", *check)
        assert (code, said.partition(":")[0]) == (2, "virnucpro")
        assert "in/deep/er, in/sub: cannot be read: Permission denied; check the permissions, or give" in said
    assert not (shell.folder / "out").exists()
    for folder in shut:
        folder.chmod(0o755)

    shell.good("predict", "in", "-o", "out")
    samples = shell.folder / "home" / "samples"
    for place, mode in ((samples / "a", 0), (samples / "a", 0o555), (samples / "a" / "results", 0o555)):
        before = place.stat().st_mode
        place.chmod(mode)
        code, said = told("in/a.fa", "-o", "out/a", "--check")
        assert code == 2
        assert f"{place}: cannot be read and written: no permission, or the disk is read-only; give" in said
        code, said = told("in", "-o", "out", "--check")  # the other samples are not stopped by it
        assert (code, said) == (2, "virnucpro: a: 1 of 3 samples failed")
        place.chmod(before)
    assert told("in", "-o", "out", "--check")[0] == 0


def test_a_wrong_configuration_ends_every_command(shell: Shell) -> None:
    (shell.folder / "home").mkdir()
    file = shell.folder / "home" / "virnucpro.toml"
    for text, said in (("chunksize = 300\n", "unknown setting 'chunksize'"), ("keep-days = -1.0\n", "-1.0")):
        file.write_text(text)
        for words in (("samples",), ("inbox",), ("summary", "-o", "x"), ("models", "list")):
            assert said in shell.refused(*words)
    shutil.rmtree(file.parent)
    shell.good("samples")


def test_a_disk_without_room_for_the_results_or_for_a_new_home_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VIRNUCPRO_GPUS", "1")
    for name in ("DAGSTER_HOME", "VIRNUCPRO_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("home", "out"):
        (tmp_path / name).mkdir()
    file = fasta(tmp_path / "a.fa", 0)
    free = {"home": 10**9, "out": 10**9}
    usage = shutil.disk_usage

    def disk_usage(path: Path) -> object:
        below = [name for name in free if Path(path).resolve().is_relative_to(tmp_path / name)]
        return usage(path)._replace(free=free[below[0]]) if below else usage(path)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    words = [
        "predict",
        str(file),
        "--profile",
        "demo",
        "--chunk-size",
        "300",
        "--check",
        "-o",
        str(tmp_path / "out"),
    ]
    assert CliRunner().invoke(app, words).exception is None
    free["out"] = 88_000
    told = CliRunner().invoke(app, words).exception
    assert isinstance(told, StoreError)
    assert str(told).startswith(f"{tmp_path / 'out'}: 88.0 kB free, 1.0 MB needed for the results")
    free |= {"home": 6_000_000, "out": 10**9}
    told = CliRunner().invoke(app, words).exception
    assert isinstance(told, StoreError)
    assert "6.0 MB free, 8.0 MB needed for Dagster's records" in str(told)
