"""A call or a reason for every record, and a results folder that agrees with itself."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.scored import Scored, scored_sample, sequence
from virnucpro_core.errors import StoreError, UsageError
from virnucpro_core.files.digests import sha256_file
from virnucpro_core.results import folder, record_calls
from virnucpro_core.results.calibration import Calibration, Curve, Preset
from virnucpro_core.results.record_calls import chunk_scores

RECORDS = {
    "long": sequence(1000, 1),
    "empty": "",
    "short": "AC",
    "unknown": "N" * 100,
    "across_border": "N" * 58 + "ACGT" + "N" * 58,
    "stopped": "TTAACTAACTAACTAGTTAACTAACTAACTAG" * 3,
    "=cmd()": sequence(90, 2),
    "lower": sequence(130, 3).lower(),
    "twin": sequence(90, 2),
}
FASTA = "".join(f">{name} about {name}\n{letters}\n" for name, letters in RECORDS.items())
AWKWARD = (("#%41", 1), ("track", 1), ("é\u00a0|", 2), ("\u212a~", 1), ("L", 70_000))
NO_CALL = {
    "empty": "empty record",
    "short": record_calls.TOO_SHORT,
    "unknown": record_calls.NO_CODON,
    "across_border": record_calls.NO_CODON,
    "stopped": record_calls.ALL_STOPPED,
}


@pytest.fixture
def sample(tmp_path: Path) -> Scored:
    return scored_sample(tmp_path, FASTA)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_every_record_has_its_row_in_order(sample: Scored, tmp_path: Path) -> None:
    summary = sample.write(tmp_path / "out")
    rows = table(tmp_path / "out" / "contigs.tsv")
    assert [row["record_id"] for row in rows] == list(RECORDS)
    assert [int(row["length"]) for row in rows] == [len(letters) for letters in RECORDS.values()]
    assert {row["record_id"]: row["reason"] for row in rows if row["call"] == "no_call"} == NO_CALL
    assert all((row["score"] == "") == (row["call"] == "no_call") == (row["frames"] == "0") for row in rows)
    calls = [row["call"] for row in rows]
    assert summary.counts.calls == {call: calls.count(call) for call in record_calls.CALLS}
    assert sum(summary.counts.reasons.values()) == summary.counts.calls["no_call"] == len(NO_CALL)


def test_tables_equal_the_plain_loop(sample: Scored, tmp_path: Path) -> None:
    sample.write(tmp_path / "out")
    chunks, frames = sample.chunks, sample.frames
    best: dict[str, list[float]] = {}
    for name, unique in zip(frames.frame_ids(0, frames.n_frames, chunks), frames.frame_unique, strict=True):
        chunk = best.setdefault(name[:-2], [0.0, 0.0])
        chunk[:] = np.maximum(chunk, sample.scores[unique].astype(float)).tolist()
    assert len(best) > 15
    calls = table(tmp_path / "out" / "prediction_results_highestscore.csv")
    assert [(row["Modified_ID"], row["Is_Virus"]) for row in calls] == [
        (name, str(virus >= others)) for name, (others, virus) in sorted(best.items())
    ]
    for row in table(tmp_path / "out" / "contigs.tsv"):
        mine = [s for name, s in best.items() if name.rpartition("_chunk_")[0] == row["record_id"]]
        assert int(row["chunks_scored"]) == len(mine)
        if mine:
            score = np.mean([virus / (others + virus) for others, virus in mine])
            assert float(row["score"]) == pytest.approx(score, rel=1e-14)
            assert row["call"] == ("virus" if float(row["score"]) >= 0.5 else "others")
    predictions = table(tmp_path / "out" / "prediction_results.txt")
    assert [row["Sequence_ID"] for row in predictions] == frames.frame_ids(0, frames.n_frames, chunks)


def test_blocks_do_not_show(sample: Scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sample.write(tmp_path / "whole")
    monkeypatch.setattr(record_calls, "BLOCK_RECORDS", 4)
    monkeypatch.setattr(record_calls, "BLOCK_CHUNKS", 5)
    monkeypatch.setattr(folder, "TABLE_CHUNKS", 3)
    pieces = sample.write(tmp_path / "pieces")
    assert {n: f.sha256 for n, f in pieces.files.items()} == {n: f.sha256 for n, f in whole.files.items()}
    assert pieces.counts == whole.counts


def test_several_processes_write_the_same_bytes_and_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads, contigs of many chunks, one long id and awkward ones, in more blocks than are in flight."""
    entries = [f">read_{k}\n{sequence(50 + k % 40, k)}" for k in range(60)]
    entries += [f">{name * times} of {k}\n{sequence(700, k)}" for k, (name, times) in enumerate(AWKWARD)]
    sample = scored_sample(tmp_path, FASTA + "\n".join(entries) + "\n")
    monkeypatch.setattr(record_calls, "BLOCK_RECORDS", 5)
    monkeypatch.setattr(folder, "TABLE_CHUNKS", 11)
    monkeypatch.setattr(folder, "CHUNKS_A_PROCESS", 1)
    curve = Curve(0, 0, (0.0, 1.0), (-4.0, 5.0))
    calibration = Calibration("f", 60, "line", (curve,), {})
    presets: tuple[Preset, ...] = ("", "relaxed")
    for preset in presets:
        written = [
            sample.write(tmp_path / f"{n}{preset}", calibration=calibration, preset=preset, processes=n)
            for n in (1, 2)
        ]
        assert written[0].counts == written[1].counts
        for name, file in written[0].files.items():
            assert file.path.read_bytes() == written[1].files[name].path.read_bytes(), name
            assert file.sha256 == sha256_file(file.path) == written[1].files[name].sha256
    before = {path.name: sha256_file(path) for path in (tmp_path / "2").iterdir()}
    sample.scores[-1, 0] = np.nan
    with pytest.raises(StoreError, match="not two probabilities"):
        sample.write(tmp_path / "2", processes=2)
    assert {path.name: sha256_file(path) for path in (tmp_path / "2").iterdir()} == before


def test_a_second_run_gives_the_same_bytes_and_keeps_other_files(sample: Scored, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = sample.write(out)
    (out / "notes.txt").write_text("mine")
    assert sample.write(out) == first
    assert sorted(path.name for path in out.iterdir()) == sorted([*first.files, "notes.txt"])
    run = json.loads((out / "run.json").read_text())
    assert {name: file["sha256"] for name, file in run["files"].items()} == {
        name: sha256_file(out / name) for name in first.files if name != "run.json"
    }
    assert run["counts"]["records"] == len(RECORDS)


def test_results_keep_their_date_until_something_of_them_changes(sample: Scored, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def made(date: str, cutoff: float = 0.5) -> str:
        sample.write(out, cutoff=cutoff, made={"date": date})
        return str(json.loads((out / "run.json").read_text())["made"]["date"])

    assert [made("monday"), made("tuesday"), made("friday", 0.9), made("sunday", 0.9)] == [
        "monday",
        "monday",
        "friday",
        "friday",
    ]


def test_viral_records_keep_their_letters(sample: Scored, tmp_path: Path) -> None:
    sample.write(tmp_path / "out", cutoff=0.0)
    text = (tmp_path / "out" / "viral.fasta").read_text()
    found = {}
    for entry in text.removeprefix(">").split("\n>"):
        header, *lines = entry.splitlines()
        assert all(len(line) == 60 for line in lines[:-1])
        name, description = header.split(" ", 1)
        assert description == f"about {name}"
        found[name] = "".join(lines)
    assert found == {name: letters for name, letters in RECORDS.items() if name not in NO_CALL}


def test_the_cutoff_is_inclusive(sample: Scored, tmp_path: Path) -> None:
    sample.scores[:] = 0.5
    assert sample.write(tmp_path / "at", cutoff=0.5).counts.calls["others"] == 0
    above = sample.write(tmp_path / "above", cutoff=np.nextafter(0.5, 1)).counts
    assert above.calls["virus"] == 0
    assert above.chunks_virus == above.chunks_scored > 0


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.5])
def test_what_is_no_probability_is_refused_and_leaves_old_results(
    sample: Scored, tmp_path: Path, bad: float
) -> None:
    before = sample.write(tmp_path / "out").files
    sample.scores[-1, 0] = bad
    with pytest.raises(StoreError, match="not two probabilities"):
        sample.write(tmp_path / "out")
    assert {path.name: sha256_file(path) for path in (tmp_path / "out").iterdir()} == {
        name: file.sha256 for name, file in before.items()
    }


def test_scores_that_do_not_fit_are_refused(sample: Scored, tmp_path: Path) -> None:
    fewer = Scored(sample.chunks, sample.frames, sample.scores[1:])
    with pytest.raises(StoreError, match="unique frames"):
        fewer.write(tmp_path / "out")
    with pytest.raises(UsageError, match="from 0 to 1"):
        sample.write(tmp_path / "out", cutoff=1.5)


def test_a_sample_without_any_frame_has_results(tmp_path: Path) -> None:
    sample = scored_sample(tmp_path, ">a\n\n>b\nNNN\n")
    counts = sample.write(tmp_path / "out").counts
    assert counts.calls == {"virus": 0, "others": 0, "no_call": 2}
    assert (tmp_path / "out" / "viral.fasta").read_bytes() == b""


PROBABILITY = st.floats(0, 1, width=32)


@given(st.lists(st.tuples(PROBABILITY, PROBABILITY).filter(lambda pair: sum(pair) > 0), min_size=1))
def test_a_chunk_score_reaches_half_exactly_with_the_published_call(
    maxima: list[tuple[float, float]],
) -> None:
    maxima_C2 = np.array(maxima, dtype=np.float32)
    assert ((chunk_scores(maxima_C2) >= 0.5) == (maxima_C2[:, 1] >= maxima_C2[:, 0])).all()


@given(PROBABILITY, PROBABILITY, PROBABILITY, PROBABILITY)
def test_a_chunk_score_is_monotone(others: float, virus: float, less: float, more: float) -> None:
    lower = np.array([[max(others, less), min(virus, more)]], dtype=np.float32)
    upper = np.array([[min(others, less), max(virus, more)]], dtype=np.float32)
    if lower.sum() > 0 and upper.sum() > 0:
        assert chunk_scores(lower)[0] <= chunk_scores(upper)[0]
