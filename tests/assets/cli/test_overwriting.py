"""No command replaces what it reads, nor, without --force, files that are not its own."""

import shutil
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from tests.assets.cli.test_main import Shell
from tests.support.genomes import LABELS_TABLE, write_genomes
from virnucpro_assets.cli.main import app
from virnucpro_core.errors import VirnucproError
from virnucpro_core.models.profiles import DEMO

Refused = Callable[..., str]
COMPUTING = ("--profile", "demo", "--chunk-size", 300, "--bootstrap", 0)


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Runs a command in this process, in a folder with labelled genomes. It must change no file in it."""
    write_genomes(tmp_path)
    (tmp_path / "all.fa").write_text("".join((tmp_path / f"{n}.fa").read_text() for n in ("virus", "others")))
    (tmp_path / "labels.tsv").write_text(LABELS_TABLE)
    monkeypatch.chdir(tmp_path)
    for name, value in Shell(tmp_path).environment.items():
        monkeypatch.setenv(name, value)

    def run(*words: object) -> str:
        before = _files(tmp_path)
        with pytest.raises((VirnucproError, click.ClickException)) as caught:
            app([str(word) for word in words], standalone_mode=False)
        assert caught.value.exit_code == 2
        assert _files(tmp_path) == before
        return str(caught.value)

    return run


def _files(folder: Path) -> dict[Path, bytes]:
    """The bytes of all files but those of the platform's home."""
    files = (f for f in folder.rglob("*") if f.is_file() and folder / "home" not in f.parents)
    return {file: file.read_bytes() for file in files}


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_labelled_files_are_never_outputs(
    refused: Refused, tmp_path: Path, command: str, force: tuple[str, ...]
) -> None:
    own = tmp_path / "in"
    (own / "predictions").mkdir(parents=True)
    save = ("--save", "c.json") if command == "calibrate" else ()
    for name in ("pieces.fa", "evaluation.json", "predictions/viral.fasta"):
        shutil.copy("virus.fa", own / name)
        files = ("--virus", own / name, "--others", "others.fa")
        line = refused(command, *COMPUTING, *files, "--lengths", 300, "--out", own, *save, *force)
        assert line == f"{own / name}: is read by this command, and would be replaced; give another --out"
        (own / name).unlink()
    shutil.copy("labels.tsv", own / "evaluation.tsv")
    words = ("all.fa", "--labels", own / "evaluation.tsv", "--out", "in", *save, *force)
    assert "in/evaluation.tsv: is read by this command" in refused(command, *COMPUTING, *words)


def test_other_files_are_replaced_only_by_force(refused: Refused, tmp_path: Path) -> None:
    files = ("--virus", "virus.fa", "--others", "others.fa", "--lengths", 300)
    out = tmp_path / "mine"
    out.mkdir()
    for name in ("pieces.fa", "evaluation.html", "evaluation.tsv", "evaluation.json"):
        (out / name).write_text("not of VirNucPro")
        line = refused("evaluate", *COMPUTING, *files, "--out", out)
        assert f"{out}: holds " in line
        assert name in line or "the evaluation of 'something else'" in line
        assert line.endswith("give another --out, or --force to replace it")
        (out / name).unlink()
    (out / "evaluation.html").mkdir()
    line = refused("evaluate", *COMPUTING, *files, "--out", out, "--force")
    assert line == f"{out}/evaluation.html: is a folder; give another --out"


def test_a_calibration_is_not_saved_over_a_file_that_is_read(refused: Refused, tmp_path: Path) -> None:
    shutil.copytree(DEMO / "classifier_300", tmp_path / "classifier")
    words = ("--virus", "virus.fa", "--others", "others.fa", "--classifier", "classifier", "--lengths", 300)
    for save in ("virus.fa", "classifier/model.safetensors", "classifier/manifest.json"):
        line = refused("calibrate", *COMPUTING, *words, "--out", "c", "--save", save, "--force")
        assert line == f"{save}: is read by this command, and would be replaced; give another --save FILE"
    for save in ("c/evaluation.json", "c/pieces.fa", "c/predictions/run.json"):
        line = refused("calibrate", *COMPUTING, *words, "--out", "c", "--save", save, "--force")
        assert line == f"{save}: is a file of the evaluation; give another --save FILE"
    (tmp_path / "saved").mkdir()
    assert "saved: is a folder" in refused("calibrate", *COMPUTING, *words, "--out", "c", "--save", "saved")


def test_no_command_replaces_its_input_even_by_force(refused: Refused, tmp_path: Path) -> None:
    models = ("--dnabert", DEMO / "dnabert_s", "--esm2", DEMO / "esm2", "--device", "cpu")
    (tmp_path / "t").mkdir()
    shutil.copy("virus.fa", tmp_path / "t" / "v.fa")
    files = ("--virus", "t/v.fa", "--others", "others.fa")
    assert "t/v.fa in it is read" in refused("train", *files, *models, "--out", "t", "--force")
    shutil.copytree(DEMO / "esm2", tmp_path / "esm2")
    line = refused("embed", "esm2", "virus.fa", "--weights", "esm2", "--out", "esm2/config.json", "--force")
    assert "this command reads the folder" in line
    line = refused("embed", "dnabert-s", "virus.fa", "--weights", "esm2", "--out", "virus.fa", "--force")
    assert "virus.fa: is read by this command" in line
    line = refused("models", "import", "esm2", "esm2", "--out", "esm2", "--force")
    assert "esm2: is read by this command" in line
    assert "virus.fa: is read by" in refused("consensus", "virus.fa", "--out", "virus.fa", "--force")
    (tmp_path / "r").mkdir()
    shutil.copy("virus.fa", tmp_path / "r" / "viral.fasta")
    line = refused("predict", "r/viral.fasta", "--profile", "demo", "--out", "r", "--force")
    assert "r/viral.fasta: is read by this command" in line
    (tmp_path / "r" / "summary.tsv").write_text("sample,fasta\na,../virus.fa\nb,../others.fa\n")
    line = refused("predict", "--sheet", "r/summary.tsv", "--profile", "demo", "--out", "r", "--force")
    assert "r/summary.tsv: is read by this command" in line
