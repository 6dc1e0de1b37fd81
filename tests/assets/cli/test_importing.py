"""`import-features`, then `predict`, as a user types them: no encoder is there, and none is asked for."""

import json
from pathlib import Path

import torch

from tests.assets.cli.test_main import Shell
from tests.support import DATA
from tests.support.feature_files import write_published
from virnucpro_core.models.classifier import Classifier, ClassifierNet
from virnucpro_core.models.convert import Origin, write_model_manifest
from virnucpro_core.models.golden import published

RECORDS = DATA / "golden_records.fa"


def classifier(folder: Path) -> None:
    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = ClassifierNet(3328, 16)
    Classifier(net.state_dict(), device=torch.device("cpu"), chunk_size=500).save(folder)
    write_model_manifest(folder, "classifier", Origin(), {})


def test_imported_features_are_predicted_without_encoders(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    classifier(tmp_path / "home/models/virnucpro-500")
    folders = write_published(published(), tmp_path / "old")
    # What is refused leaves nothing behind, and the same name can be used again.
    words = ("--sample", "old", "--profile", "esm2-3b", "--input", RECORDS)
    assert "frames were not found beside the features" in shell.refused("import-features", folders[2], *words)
    assert not (tmp_path / "home/samples/old").exists()
    said = shell.good(
        "import-features", *folders, "--sample", "old", "--profile", "esm2-3b", "--input", RECORDS
    )
    assert "old: 8 vectors of 3 files imported for 8 frames, matched by id and sequence, sha256 " in said
    assert (
        f"next: virnucpro predict {RECORDS} --sample old --profile esm2-3b --chunk-size 500 --device cpu --out DIR\n"
        in said
    )
    out = tmp_path / "out"
    shell.good("predict", RECORDS, "--sample", "old", "--profile", "esm2-3b", "--device", "cpu", "--out", out)
    facts = json.loads((out / "run.json").read_text())
    assert facts["note"].startswith(
        "The embeddings were not computed here: they were imported from reads_nucleotide"
    )
    assert facts["counts"]["frames"] == 8
    rows = (out / "prediction_results.txt").read_text().splitlines()[1:]
    assert sorted(row.split("\t")[0] for row in rows) == sorted(published().ids)
    line = shell.refused(
        "predict", RECORDS, "--sample", "other", "--profile", "esm2-3b", "--device", "cpu", "--out", "other"
    )
    assert "2 of 3 models of profile esm2-3b are missing: dnabert-s, esm2-3b" in line
