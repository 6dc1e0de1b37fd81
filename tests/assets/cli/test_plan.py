"""`virnucpro plan` says what samples will need, and leaves nothing behind."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from virnucpro_assets.cli.main import app
from virnucpro_core.errors import UsageError
from virnucpro_core.models.profiles import DEMO

DEMO_FILES = (DEMO / "viral.fa", DEMO / "non_viral.fa")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home" / "dagster"))
    return tmp_path / "home"


def plan(*words: object) -> Result:
    return CliRunner().invoke(app, ["plan", *map(str, words)])


def test_samples_are_estimated_for_people_and_for_programs(home: Path) -> None:
    words = (*DEMO_FILES, "--profile", "demo", "--chunk-size", "300")
    shown = plan(*words)
    assert shown.exit_code == 0, shown.output
    assert "186, of which 186 differ and are computed" in shown.output
    assert "not known: no large sample was predicted here with demo, float32, cpu" in shown.output
    assert shown.output.splitlines()[-1].startswith("2 samples: about ")
    viral, others = map(json.loads, plan(*words, "--json").output.splitlines())
    assert (viral["sample"], viral["records"], viral["unique_frames"]) == ("viral", 6, 186)
    assert others["sample"] == "non_viral"
    assert viral["total_seconds"] is None
    assert not (home / "samples").exists()
    home.mkdir(exist_ok=True)
    each = {step: {"demo, float32, cpu": 0.1} for step in viral["seconds"]}
    (home / "pace.json").write_text(json.dumps(each))
    assert "about 1 m 33 s in 1 lane" in plan(*words, "--gpus", "1").output


def test_a_file_without_sequences_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "x.fa").write_text("no sequence")
    refused = plan(tmp_path / "x.fa", "--profile", "demo", "--chunk-size", "300")
    assert "neither FASTA nor FASTQ" in str(refused.exception)
    assert isinstance(plan().exception, UsageError)
    assert "a pipe cannot be estimated" in str(plan("-", "--profile", "demo").exception)
