"""What a person is told when samples get their names: how each is called, and what `--fresh` deletes."""

from dataclasses import replace
from pathlib import Path

import pytest

from virnucpro_assets.platform.instance import open_instance
from virnucpro_assets.platform.resource import Platform, platform_from_environment
from virnucpro_assets.running.predict import RunFailedError
from virnucpro_assets.running.registration import planned_samples, registered
from virnucpro_assets.running.request import Request, Wanted
from virnucpro_core.samples.sample import list_samples, open_sample
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.samples.sheet_faults import SheetError

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


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VIRNUCPRO_GPUS", "1")
    monkeypatch.setenv("DAGSTER_HOME", "")
    return platform_from_environment()


def fasta(folder: Path, name: str, letters: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f">a\n{letters}\n")
    return folder / name


def _rows(platform: Platform, *rows: tuple[str, Path, int]) -> Request:
    """A request for a sheet with these rows: sample, file, chunk size."""
    out = platform.folder.parent / "out"
    wanted = tuple(
        Wanted(name, (file,), replace(SETTINGS, chunk_size=size), out / name, (line,))
        for line, (name, file, size) in enumerate(rows, start=2)
    )
    return Request(platform, wanted, {}, named=True, sheet=Path("s.csv"))


@pytest.mark.parametrize("fresh", [False, True])
def test_two_rows_that_become_one_sample_are_told_before_anything_begins(
    platform: Platform, tmp_path: Path, *, fresh: bool
) -> None:
    file = fasta(tmp_path, "x.fa", "ACGT")
    registered(_rows(platform, ("x", file, 500), ("y", file, 500)), fresh=False)
    registered(_rows(platform, ("x", file, 300)), fresh=False)
    known = list_samples(platform.folder)
    assert known == ["x", "x-300", "y"]
    request = _rows(platform, ("y", file, 500), ("x", file, 300), ("x-300", file, 300))
    for begin in (planned_samples, registered):
        with pytest.raises(
            SheetError, match=r"row 4 \(x-300\): it would become sample 'x-300', and 'x' becomes"
        ):
            begin(request, fresh=fresh)
    assert list_samples(platform.folder) == known


def test_a_row_whose_sample_fresh_deletes_for_another_row_is_told(platform: Platform, tmp_path: Path) -> None:
    file, other = fasta(tmp_path, "x.fa", "ACGT"), fasta(tmp_path, "other.fa", "ACGG")
    for size in (500, 300):
        registered(_rows(platform, ("x", file, size)), fresh=False)
    request = _rows(platform, ("x-300", file, 300), ("x", other, 500))
    with pytest.raises(
        SheetError, match=r"row 2 \(x-300\): --fresh deletes sample 'x-300' for the new seq.*'x'"
    ):
        registered(request, fresh=True)
    assert [open_sample(platform.folder, "x").inputs[0].path, *list_samples(platform.folder)] == [
        file, "x", "x-300"
    ]  # fmt: skip
    # What --fresh is for is not refused: other sequences under the name.
    with open_instance() as instance:
        instance.add_dynamic_partitions("sample", ["x", "x-300", "another"])
    known, failed = registered(_rows(platform, ("x", other, 500)), fresh=True)
    assert (known["x"].inputs[0].path, failed) == (other, {})
    assert list_samples(platform.folder) == ["x"]
    with open_instance() as instance:  # the key of the deleted variant is deleted, and only that
        assert sorted(instance.get_dynamic_partitions("sample")) == ["another", "x"]


def test_a_file_that_vanished_is_told_for_all_rows_also_with_fresh(
    platform: Platform, tmp_path: Path
) -> None:
    file = fasta(tmp_path, "x.fa", "ACGT")
    registered(_rows(platform, ("x", file, 500)), fresh=False)
    request = _rows(platform, ("x", file, 500), ("gone", tmp_path / "gone.fa", 500))
    with pytest.raises(SheetError, match=r"row 3 \(gone\): .*gone\.fa"):
        registered(request, fresh=True)
    assert list_samples(platform.folder) == ["x"]


def test_two_files_that_are_one_sample_already_are_not_mixed_up(
    platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, copy = fasta(tmp_path / "A", "contigs.fa", "ACGT"), fasta(tmp_path / "B", "A_contigs.fa", "ACGT")
    out = tmp_path / "out"
    (first, second) = (
        Wanted("contigs", (file,), SETTINGS, out / "contigs"),
        Wanted("A_contigs", (copy,), SETTINGS, out / "A_contigs"),
    )
    registered(Request(platform, (replace(first, name="A_contigs"),), {}), fresh=False)
    known, failed = registered(Request(platform, (first, second), {}), fresh=False)
    assert [*known] == ["contigs"]
    assert "it would become sample 'A_contigs', and 'contigs' becomes" in str(failed["A_contigs"])
    assert capsys.readouterr().err.count("would become") == 1


def test_a_failure_says_once_how_to_go_on() -> None:
    worker = "a/chunks: disk error: full (1 kB free); make room on this disk, then run the same command again"
    for what in (worker, "the worker was ended by signal 9"):
        assert str(RunFailedError(what, where="a", exit_code=3)).count("run the same command again") == 1
    assert "again" not in str(RunFailedError("two records have the id a", where="a", exit_code=2))
