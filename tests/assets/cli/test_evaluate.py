"""`evaluate`, `calibrate` and `train` as people type them; the results of one are the input of the next."""

import csv
import html
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from tests.assets.cli.test_main import Shell
from tests.support.genomes import LABELS_TABLE, write_genomes
from virnucpro_assets.cli.main import app
from virnucpro_core.errors import StoreError, VirnucproError
from virnucpro_core.files.outputs import one_command
from virnucpro_core.models.classifier import load_classifier
from virnucpro_core.models.profiles import DEMO, NO_MEANING
from virnucpro_core.results.calibration import read_calibration

MEANINGLESS = "demo profile: these figures carry no biological meaning"


@dataclass(frozen=True)
class Site:
    """A home with an evaluation and a calibration of a copy of the demo's classifier for chunks of 300 bases."""

    shell: Shell
    words: tuple[object, ...]
    evaluated: str
    calibrated: str

    @property
    def folder(self) -> Path:
        return self.shell.folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    shell = Shell(tmp_path_factory.mktemp("site"))
    labelled = write_genomes(shell.folder)
    (shell.folder / "all.fa").write_text("".join(file.read_text() for file in labelled.files))
    (shell.folder / "labels.tsv").write_text(LABELS_TABLE)
    shutil.copytree(DEMO / "classifier_300", shell.folder / "classifier")
    data = ("all.fa", "--labels", "labels.tsv", "--lengths", "300,350,400,450")
    models = ("--profile", "demo", "--chunk-size", 300, "--classifier", "classifier")
    words = (*data, *models, "--bootstrap", 20)
    evaluated = shell.good("evaluate", *words, "--out", "evaluation")
    return Site(shell, words, evaluated, shell.good("calibrate", *words, "--out", "calibration"))


def test_an_evaluation_says_how_good_and_that_the_demo_means_nothing(site: Site) -> None:
    assert "AUROC: 0." in site.evaluated
    assert MEANINGLESS in site.evaluated
    assert f"\nevaluation: {site.folder}/evaluation/evaluation.html\n" in site.evaluated
    page = html.unescape((site.folder / "evaluation" / "evaluation.html").read_text())
    assert NO_MEANING in page
    assert "need a calibration; this classifier has no calibration" in page
    assert "http" not in page.replace("http-equiv", "")
    facts = json.loads((site.folder / "evaluation" / "evaluation.json").read_text())
    groups = {group["name"]: group for group in facts["groups"]}
    assert len(groups) == 9
    assert [one["name"] for one in facts["confusion"]] == ["cut-off 0.5"]
    with (site.folder / "evaluation" / "evaluation.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert {row["level"] for row in rows} == {"records", "chunks", "groups", "calls"}
    assert all((row["value"] == "") <= (row["reason"] != "") for row in rows)


def test_a_calibration_lies_beside_the_classifier_and_reuses_the_scores(site: Site) -> None:
    assert "were done before" in site.calibrated
    assert MEANINGLESS in site.calibrated
    assert f"calibration: {site.folder}/classifier/calibration-300.json" in site.calibrated
    made = read_calibration(site.folder / "classifier" / "calibration-300.json")
    assert made.classifier == load_classifier(site.folder / "classifier").fingerprint
    assert made.facts["note"] == NO_MEANING
    assert made.facts["held_out"]["records"] > 50
    facts = json.loads((site.folder / "calibration" / "evaluation.json").read_text())
    assert [one["name"][:8] for one in facts["confusion"]] == ["cut-off ", "conserva", "relaxed "]
    assert [one["name"] for one in facts["reliability"]] == ["score", "probability, held-out groups"]


def test_a_calibration_whose_evaluation_failed_is_completed_by_the_same_command(site: Site) -> None:
    file, page = site.folder / "classifier/calibration-300.json", site.folder / "calibration/evaluation.html"
    before = (file.read_bytes(), page.read_bytes())
    page.unlink()
    (site.folder / "calibration" / "evaluation.json").unlink()
    (site.folder / "calibration" / "evaluation.tsv").unlink()
    site.shell.good("calibrate", *site.words, "--out", "calibration")
    assert (file.read_bytes(), page.read_bytes()) == before


def test_two_commands_with_one_out_are_not_mixed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site.folder)
    for name, value in site.shell.environment.items():
        monkeypatch.setenv(name, value)
    data = ("--virus", "virus.fa", "--others", "others.fa")
    models = ("--dnabert", DEMO / "dnabert_s", "--esm2", DEMO / "esm2", "--device", "cpu")
    save = ("--save", "mine.json", "--lengths", "300")
    for busy, words in (
        ("e/evaluation.json", ("evaluate", *data, "--profile", "demo", "--out", "e")),
        ("e/evaluation.json", ("calibrate", *data, "--profile", "demo", *save, "--out", "e")),
        ("mine.json", ("calibrate", *data, "--profile", "demo", *save, "--out", "another")),
        ("t", ("train", *data, *models, "--out", "t")),
        ("e.h5", ("embed", "esm2", "virus.fa", "--weights", DEMO / "esm2", "--out", "e.h5")),
    ):
        with one_command([site.folder / busy]), pytest.raises(StoreError, match="another command writes"):
            app([str(word) for word in words], standalone_mode=False)
        assert not (site.folder / busy).exists()


def test_an_evaluation_on_the_data_of_the_calibration_says_so(site: Site) -> None:
    """The same genomes in other files and other pieces."""
    words = ("--virus", "virus.fa", "--others", "others.fa", "--lengths", 300, *site.words[5:])
    done = site.shell.run("evaluate", *words, "--out", "in-sample")
    assert done.returncode == 0
    line = "the calibration was fitted to these very data: 11 of 11 sequences; its probabilities will look too good"
    assert line in done.stderr
    page = " ".join((site.folder / "in-sample/evaluation.html").read_text().split())
    assert "It was fitted to these very data: 11 of 11 sequences." in page
    assert "these very data" not in (site.folder / "evaluation/evaluation.html").read_text()
    assert "these very data" not in (site.folder / "calibration/evaluation.html").read_text()
    facts = json.loads((site.folder / "in-sample/evaluation.json").read_text())
    assert facts["run"]["fitted_on"] == "11 of 11 sequences"
    # The same command again replaces its own files; without the calibration nothing is said of it.
    again = site.shell.run("evaluate", *words, "--calibration", "none", "--out", "in-sample")
    assert again.returncode == 0
    assert "these very data" not in again.stderr
    page = (site.folder / "in-sample/evaluation.html").read_text()
    assert "need a calibration; the calibration was left out by --calibration none" in page
    report = " ".join((site.folder / "in-sample/predictions/report.html").read_text().split())
    assert "no column with probabilities: a calibration was left out by --calibration none." in report


def test_predictions_then_have_probabilities(site: Site, tmp_path: Path) -> None:
    pieces = site.folder / "evaluation" / "pieces.fa"
    with (site.folder / "evaluation" / "predictions" / "contigs.tsv").open(newline="") as stream:
        plain = list(csv.DictReader(stream, delimiter="\t"))
    words = ("predict", pieces, "--profile", "demo", "--chunk-size", 300, "--classifier", "classifier")
    said = site.shell.good(*words, "--relaxed", "--prior", 0.9, "--out", tmp_path / "out")
    assert "probability" in said
    with (tmp_path / "out" / "contigs.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["score"] for row in rows] == [row["score"] for row in plain]
    assert all((row["call"] == "virus") == (row["fdr"] != "" and float(row["fdr"]) <= 0.2) for row in rows)
    assert {"virus", "others"} <= {row["call"] for row in rows}
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (run["settings"]["preset"], run["settings"]["prior"], run["calibration"]["prior"]) == (
        "relaxed",
        0.9,
        0.9,
    )


def test_what_cannot_be_is_refused_before_work_begins(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site.folder)
    for name, value in site.shell.environment.items():
        monkeypatch.setenv(name, value)

    def refused(*words: object) -> str:
        """As `Shell.refused`, but in this process, which is quicker."""
        with pytest.raises((VirnucproError, click.ClickException)) as caught:
            app([str(word) for word in words], standalone_mode=False)
        assert caught.value.exit_code == 2
        return str(caught.value)

    predict = ("predict", "virus.fa", "--profile", "demo", "--out", tmp_path / "no")
    assert "--conservative needs a calibration" in refused(*predict, "--conservative")
    assert "--prior needs a calibration" in refused(*predict, "--prior", "0.5")
    assert "cannot be used together" in refused(*predict, "--relaxed", "--cutoff", "0.5")
    file = site.folder / "classifier" / "calibration-300.json"
    assert "the calibration is for the classifier" in refused(*predict, "--calibration", file)
    both = (*predict, "--classifier", "classifier", "--calibration", file)
    assert "trained on chunks of 300 bases, the sample is cut into chunks of 500" in refused(
        *both, "--chunk-size", 500
    )
    assert "no such file" in refused(*predict, "--calibration", "missing.json")
    assert "--min-open is for open frames; give --frames open" in refused(*predict, "--min-open", 20)
    full_only = (*predict, "--classifier", "classifier", "--chunk-size", 300, "--calibration", file)
    assert "these are of open frames of 30 or more" in refused(*full_only, "--frames", "open")
    assert "min_open is 0" in refused(*predict, "--frames", "open", "--min-open", 0)
    said = refused(*predict, "--frames", "open", "--min-open", 167)
    assert "min_open is 167 amino acids, and chunks of 500 bases have at most 166" in said
    out = ("--out", tmp_path / "no")
    assert "give --virus FASTA --others FASTA, or FASTA --labels" in refused("evaluate", "virus.fa", *out)
    data = ("--virus", "virus.fa", "--others", "others.fa", "--profile", "demo", *out)
    assert "give --save FILE" in refused("calibrate", *data)
    assert "whole numbers" in refused("evaluate", *data, "--lengths", "5,x")
    assert "do not rise" in refused("evaluate", *data, "--length-bins", "500,300")
    said = refused("evaluate", *data[:-1], "evaluation")
    assert "holds the evaluation of 'all-eval-" in said
    assert "--lengths 5: pieces of fewer than 6 bases are no chunks; give 6 to 6,000" in refused(
        "evaluate", *data, "--lengths", "5,300"
    )
    assert "--lengths 7000: no record is as long, the longest has 6,000 bases" in refused(
        "evaluate", *data, "--lengths", "300,7000"
    )
    for words, line in (
        (
            ("--labels", "labels.tsv"),
            "--virus and --others label whole files, so --labels cannot be given as well",
        ),
        (("all.fa",), "--virus and --others label whole files, so FASTA cannot be given as well"),
    ):
        assert line in refused("evaluate", *words, *data)
    for words, line in (
        (("--virus", "virus.fa"), "--others is missing"),
        (("--others", "others.fa"), "--virus is missing"),
        (("all.fa",), "FASTA has no labels"),
        (("--labels", "labels.tsv"), "--labels has no FASTA"),
        ((), "labelled sequences are needed"),
    ):
        said = refused("evaluate", *words, *out)
        assert said == f"{line}; give --virus FASTA --others FASTA, or FASTA --labels TABLE"
    line = refused("samples", "clean", "--dry-run")
    assert line.startswith(
        "VIRNUCPRO_KEEP is all, so there is nothing to delete; give --keep scores (deletes embedd"
    )
    for option, value in (("--cutoff", 2), ("--prior", 0), ("--bootstrap", -1), ("--gpus", 0)):
        assert "is not in the range" in refused("evaluate", *data, option, value)
    few = ("calibrate", *data, "--save", tmp_path / "no" / "c.json", "--chunk-size", 300)
    for words in ((), ("--lengths", 5000)):
        line = refused(*few, *words)
        assert (
            "needs 20 records of each class from 2 groups; the fullest, 3,000 to 9,999 bases, has 5 oth"
            in line
        )
    said = refused("calibrate", *site.words, "--method", "platt", "--out", "calibration")
    assert "calibration-300.json: already exists; give --force to replace it, or --save FILE" in said
    assert not (tmp_path / "no").exists()


def test_training_ends_with_a_page_and_a_card(site: Site) -> None:
    models = ("--dnabert", DEMO / "dnabert_s", "--esm2", DEMO / "esm2", "--device", "cpu")
    words = ("--virus", "virus.fa", "--others", "others.fa", "--chunk-size", 300, "--seeds", 2, "--epochs", 2)
    said = site.shell.good("train", *words, *models, "--lengths", 900, "--augment", 200, "--out", "trained")
    assert said.count("seed 4") == 2
    assert said.count(", kept") == 1
    assert MEANINGLESS in said
    assert (site.folder / "trained" / "evaluation.html").exists()
    assert NO_MEANING in (site.folder / "trained" / "MODEL_CARD.md").read_text()

    # The new classifier knows what it was trained on, also in another file, cut into pieces here.
    words = (*site.words[: site.words.index("--classifier")], "--classifier", "trained", "--bootstrap", 0)
    line = site.shell.refused("calibrate", *words, "--save", "c.json", "--out", "no")
    shared = int(re.search(r"(\d+) of 11 sequences were in the training of this classifier", line)[1])
    assert 4 <= shared < 11
    assert line.endswith("give other sequences; or --allow-training-data")
    assert not (site.folder / "no").exists()
    done = site.shell.run("evaluate", *words, "--out", "seen")
    assert done.returncode == 0
    assert f"{shared} of 11 sequences were in the training of this classifier: the figures" in done.stderr
    page = " ".join((site.folder / "seen" / "evaluation.html").read_text().split())
    assert f"{shared} of the 11 sequences were in the training of this classifier" in page
    facts = json.loads((site.folder / "seen" / "evaluation.json").read_text())
    assert facts["run"]["training"] == {"is_known": True, "shared": shared, "sequences": 11}
    assert facts["run"]["sample"].startswith("all-eval-")


def test_open_frames_from_training_to_the_evaluation(site: Site) -> None:
    """A classifier of other frames is named, and its calibration is not used."""
    files = ("--virus", "virus.fa", "--others", "others.fa", "--chunk-size", 300)
    models = ("--dnabert", DEMO / "dnabert_s", "--esm2", DEMO / "esm2", "--device", "cpu")
    opened = ("--frames", "open", "--min-open", 20)
    fitting = ("--seeds", 1, "--epochs", 2, "--bootstrap", 0, "--lengths", 300)
    said = site.shell.good("train", *files, *models, *fitting, *opened, "--out", "trained-open")
    assert "  with a stop-free frame: " in said
    assert "  open frames only: " in said

    words = (*files, "--profile", "demo", "--lengths", "300", "--bootstrap", 0, *opened)
    fit = site.shell.good(
        "calibrate",
        *words,
        *("--classifier", "trained-open", "--allow-training-data"),
        *("--method", "platt", "--out", "c-open"),
    )
    assert "note: " not in fit
    made = read_calibration(site.folder / "trained-open" / "calibration-300-open20.json")
    assert made.min_open == 20

    # The classifier of the fixture has a calibration, for stop-free frames.
    other = site.shell.good("evaluate", *words, "--classifier", "classifier", "--out", "e-open")
    assert (
        "note: The classifier was trained on stop-free frames only; here it scores open frames of 20" in other
    )
    folder = site.folder / "e-open"
    facts = json.loads((folder / "evaluation.json").read_text())
    assert [one["name"] for one in facts["records"]][-2:] == ["with a stop-free frame", "open frames only"]
    assert [one["name"] for one in facts["confusion"]] == ["cut-off 0.5"]
    assert "trained on stop-free frames only" in (folder / "evaluation.html").read_text()
    report = html.unescape((folder / "predictions" / "report.html").read_text())
    assert "one for stop-free frames is not used" in report
