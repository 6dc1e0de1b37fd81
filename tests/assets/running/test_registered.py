"""What a person is told when samples get their names: how each is called, and what `--fresh` deletes."""

from dataclasses import replace
from pathlib import Path

import pytest

from virnucpro_assets.platform.resource import platform_from_environment
from virnucpro_assets.running.predict import RunFailedError, planned_samples, registered
from virnucpro_assets.running.request import Request, Wanted
from virnucpro_core.samples.sample import list_samples
from virnucpro_core.samples.settings import SampleSettings

SETTINGS = SampleSettings(profile="demo", chunk_size=300)


def test_how_a_sample_is_named_is_said_once_and_as_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VIRNUCPRO_GPUS", "1")
    platform = platform_from_environment()
    for folder, letters in (("A", "ACGT"), ("B", "ACGG"), ("C", "ACGC")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "contigs.fa").write_text(f">a\n{letters}\n")

    def told(
        name: str, folder: str, settings: SampleSettings = SETTINGS, *, fresh: bool = False
    ) -> list[str]:
        said: list[str] = []
        wanted = Wanted(name, (tmp_path / folder / "contigs.fa",), settings, tmp_path / "out")
        request = Request(platform, (wanted,), {})
        before = list_samples(platform.folder)
        plans, refused = planned_samples(request, fresh=fresh)
        assert list_samples(platform.folder) == before
        known, failed = registered(request, fresh=fresh, note=said.append)
        assert {n: one.sample.name for n, one in plans.items()} == {n: one.name for n, one in known.items()}
        assert [str(e) for e in refused.values()] == [str(e) for e in failed.values()]
        assert plans[name].is_new == (plans[name].sample.name not in before)
        return said

    other = replace(SETTINGS, chunk_size=500)
    assert told("A_contigs", "A") == []
    assert told("contigs", "A") == ["these files are sample 'A_contigs' already"]
    assert told("contigs", "B") == []
    assert told("contigs", "C") == [
        "the name 'contigs' stands for other sequences: this sample is named 'C_contigs'"
    ]
    assert told("contigs", "B", other) == [
        "these settings are a variant of sample 'contigs': it is named 'contigs-500'"
    ]
    [deleted, named] = told("contigs", "B", other, fresh=True)
    assert deleted.startswith("--fresh deleted sample 'contigs-500' with all its work and results: ")
    assert "it is named 'contigs-500'" in named


def test_a_failure_says_once_how_to_go_on() -> None:
    worker = "a/chunks: disk error: full (1 kB free); make room on this disk, then run the same command again"
    for what in (worker, "the worker was ended by signal 9"):
        assert str(RunFailedError(what, where="a", exit_code=3)).count("run the same command again") == 1
    assert "again" not in str(RunFailedError("two records have the id a", where="a", exit_code=2))
