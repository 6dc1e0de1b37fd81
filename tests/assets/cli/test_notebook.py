"""docs/api.md, run as it stands, calls what `virnucpro predict` calls, byte for byte; `embed` as people type it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from virnucpro_core.models.profiles import DEMO

BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL | re.MULTILINE
)


def virnucpro(folder: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    environment = dict(os.environ) | {
        "VIRNUCPRO_HOME": str(folder / "home"),
        "DAGSTER_HOME": "",
        "VIRNUCPRO_GPUS": "1",
        "VIRNUCPRO_PROFILE": "demo",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "virnucpro_assets.cli.main", *map(str, words)]
    return subprocess.run(
        command, cwd=folder, env=environment, text=True, capture_output=True, timeout=240, check=False
    )


def test_the_docs_notebook_calls_what_predict_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's genomes: every table of the notebook's results folder is that of `virnucpro predict`."""
    genomes = [(DEMO / name).read_bytes() for name in ("viral.fa", "non_viral.fa")]
    (tmp_path / "contigs.fa").write_bytes(b"".join(genomes) + b">empty\n")
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == 2
    assert "embed" in BLOCKS[0]
    assert len(re.findall(r"^\w", BLOCKS[1], re.MULTILINE)) <= 13  # ten lines, the imports and a check
    for block in BLOCKS:
        exec(compile(block, "docs/api.md", "exec"), {})
    done = virnucpro(
        tmp_path, "predict", "contigs.fa", "--profile", "demo", "--chunk-size", 500, "--out", "predicted"
    )
    assert done.returncode == 0, done.stderr
    tables = [f for f in Path("predicted").iterdir() if f.suffix in (".tsv", ".txt", ".csv", ".fasta")]
    assert len(tables) >= 4
    for table in tables:
        assert (Path("results") / table.name).read_bytes() == table.read_bytes(), table.name


def test_a_record_alone_has_the_scores_that_it_has_among_others(tmp_path: Path) -> None:
    """Short reads: a handful of frames a file, the batches for which MKL takes other kernels."""
    genome = (DEMO / "viral.fa").read_text().split(">")[1].split("\n", 1)[1].replace("\n", "")
    reads = {f"r{n}": genome[900 * n : 900 * n + 40 * (n + 1)] for n in range(6)}
    (tmp_path / "all.fa").write_text("".join(f">{name}\n{read}\n" for name, read in reads.items()))
    for name, read in reads.items():
        (tmp_path / f"{name}.fa").write_text(f">{name}\n{read}\n")
    files = ["all.fa", *(f"{name}.fa" for name in reads)]
    done = virnucpro(tmp_path, "predict", *files, "--profile", "demo", "--chunk-size", 300, "--out", "out")
    assert done.returncode == 0, done.stderr
    together = (tmp_path / "out" / "all" / "contigs.tsv").read_text().splitlines()
    alone = [(tmp_path / "out" / name / "contigs.tsv").read_text().splitlines()[1] for name in reads]
    assert together[1:] == alone


def test_embed_says_what_it_left_out_and_names_the_option_that_was_typed(tmp_path: Path) -> None:
    (tmp_path / "a.faa").write_text(">g_1 # 1 # 60\nMKTAYIAKQRW*\n>g_2\nMKVW*\n")
    words = ("embed", "esm2", "a.faa", "--weights", DEMO / "esm2", "--out", "a.h5")
    done = virnucpro(tmp_path, *words)
    assert done.returncode == 0
    assert done.stderr == "2 proteins with a stop (*) at the end: the stop was left out\n"
    assert done.stdout == "2 embeddings of 64 columns in a.h5\n"
    assert "a.h5: already exists" in virnucpro(tmp_path, *words).stderr
    refused = virnucpro(tmp_path, *words, "--force", "--precision", "fp8")
    assert refused.returncode == 2
    assert "fp8 was requested; use --precision float32" in refused.stderr
    (tmp_path / "a.faa").write_text(">g_1\nMKTAYIAKQRW\n>g_2\nMK\nVJ\n")
    refused = virnucpro(tmp_path, *words, "--force")
    assert refused.returncode == 2
    assert refused.stderr.startswith("virnucpro: a.faa, record 'g_2', line 5: letter 'J' at residue 4 is not")
    assert len(refused.stderr.splitlines()) == 1
