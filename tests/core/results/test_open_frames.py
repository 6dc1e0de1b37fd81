"""Open frames: more chunks have a score, each says by what, and whatever had a score keeps it."""

import csv
import html
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.scored import Scored, sequence
from virnucpro_core.errors import UsageError, WeightsError
from virnucpro_core.results import folder, record_calls
from virnucpro_core.results.batch import BatchRow, write_batch
from virnucpro_core.results.calibration import Calibration, Curve, calibration_file, find_calibration
from virnucpro_core.sequences.chunks import write_chunks
from virnucpro_core.sequences.export import export_translations
from virnucpro_core.sequences.frames import write_frames

STOPS = "TTAACTAACTAACTAGTTAACTAACTAACTAG"  # in every frame
RECORDS = {
    "full": sequence(90, 1),
    "mixed": sequence(120, 2) + STOPS + sequence(56, 3) + STOPS,
    "open": STOPS + sequence(56, 4) + STOPS,
    "stopped": STOPS * 3,
    "empty": "",
}
FASTA = "".join(f">{name}\n{letters}\n" for name, letters in RECORDS.items())
LEAST = 12
NOTE = "The classifier was trained on stop-free frames only."
CLASSIFIER = "c" * 64


def scored(place: Path, min_open: int) -> Scored:
    """The sample with scores that depend on each frame's sequence alone."""
    place.mkdir()
    (place / "reads.fa").write_text(FASTA)
    chunks = write_chunks([place / "reads.fa"], place / "chunks", chunk_size=120)
    frames = write_frames(chunks, place / "frames", min_open=min_open)
    virus = frames.digests[:, 0].astype(np.float32) / 256
    return Scored(chunks, frames, np.stack([1 - virus, virus], axis=1))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("open")
    for name, min_open in (("plain", 0), ("open", LEAST)):
        scored(place / f"{name}-sample", min_open).write(place / name, frames_note=NOTE if min_open else "")
    return place


def test_the_tables_of_the_published_tool_stay_as_they_are(place: Path) -> None:
    for name in (folder.FRAME_CALLS, folder.CHUNK_CALLS):
        assert (place / "open" / name).read_bytes() == (place / "plain" / name).read_bytes()
    for kind, least in (("plain", 0), ("open", LEAST)):
        sample = scored(place / f"{kind}-again", least)
        export_translations(sample.chunks, sample.frames, place / f"{kind}-frames", "x")
    for file in (place / "plain-frames").iterdir():
        assert (place / "open-frames" / file.name).read_bytes() == file.read_bytes()


def test_a_sample_without_open_frames_says_nothing_of_them(place: Path) -> None:
    plain = place / "plain"
    assert not (plain / folder.OPEN_CALLS).exists()
    assert "chunks_open" not in table(plain / folder.CONTIGS)[0]
    assert "scored_by" not in table(plain / folder.CHUNK_TABLE)[0]
    facts = json.loads((plain / folder.RUN).read_text())
    assert not {"open_frames", "frames_note"} & set(facts)
    assert "open frame" not in (plain / folder.REPORT).read_text()


def test_every_chunk_says_by_what_it_was_scored_and_keeps_the_score_that_it_had(place: Path) -> None:
    before, after = (table(place / name / folder.CHUNK_TABLE) for name in ("plain", "open"))
    kinds = {row["scored_by"] for row in after}
    assert kinds == {"full", "open", ""}
    for old, new in zip(before, after, strict=True):
        assert new["frames"] == old["frames"]
        assert (new["scored_by"] == "full") == (old["score"] != "")
        assert (new["scored_by"] != "") == (new["score"] != "") == (new["call"] != "")
        if new["scored_by"] == "full":
            assert {name: new[name] for name in old} == old


def test_every_record_says_how_many_of_its_chunks_were_scored_by_open_frames(place: Path) -> None:
    before, after = (
        {row["record_id"]: row for row in table(place / name / folder.CONTIGS)} for name in ("plain", "open")
    )
    chunks = table(place / "open" / folder.CHUNK_TABLE)
    for name, row in after.items():
        mine = [one for one in chunks if one["record_id"] == name and one["score"]]
        assert int(row["chunks_open"]) == sum(one["scored_by"] == "open" for one in mine)
        assert int(row["chunks_scored"]) == len(mine)
        if mine:
            assert float(row["score"]) == pytest.approx(np.mean([float(one["score"]) for one in mine]))
        assert row["frames"] == before[name]["frames"]
    assert {name: after["full"][name] for name in before["full"]} == before["full"]
    assert (before["open"]["call"], after["open"]["chunks_open"]) == (
        "no_call",
        after["open"]["chunks_scored"],
    )
    assert after["open"]["call"] in ("virus", "others")
    assert 0 < int(after["mixed"]["chunks_open"]) < int(after["mixed"]["chunks_scored"])
    assert after["stopped"]["reason"] == record_calls.NO_STRETCH.format(LEAST)
    assert after["empty"]["reason"] == "empty record"


def test_the_open_frames_have_a_table_of_their_own(place: Path) -> None:
    out = place / "open"
    rows, chunks = table(out / folder.OPEN_CALLS), table(out / folder.CHUNK_TABLE)
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["Sequence_ID"][:-2], []).append(float(row["score2"]))
    opened = {f"{c['record_id']}_chunk_{c['chunk']}": c for c in chunks if c["scored_by"] == "open"}
    assert set(found) == set(opened)
    for name, scores in found.items():
        assert float(opened[name]["score2"]) == max(scores)
    facts = json.loads((out / folder.RUN).read_text())
    assert facts["open_frames"] == {
        "min_open": LEAST,
        "frames": len(rows),
        "chunks": len(opened),
        "records": 1,
    }
    assert folder.OPEN_CALLS in facts["files"]


def test_the_report_says_it(place: Path) -> None:
    page = html.unescape((place / "open" / folder.REPORT).read_text())
    assert NOTE in page
    assert f"at least {LEAST} amino acids" in page
    assert "1 record would have no call without them" in page
    assert "scored chunks by open frames" in page


def test_a_calibration_is_only_for_the_frames_that_it_was_made_for(tmp_path: Path) -> None:
    made = Calibration(CLASSIFIER, 60, "platt", (Curve(0, 0, (0.0, 1.0), (-3.0, 3.0)),), {})
    made.save(calibration_file(tmp_path, 60))
    assert find_calibration(tmp_path, CLASSIFIER, 60, min_open=30) is None
    with pytest.raises(
        UsageError, match="for chunks of 60 bases and open frames of 30 or more amino acids too"
    ):
        find_calibration(tmp_path, CLASSIFIER, 60, min_open=30, needed_by="--relaxed")
    opened = replace(made, min_open=30)
    opened.save(calibration_file(tmp_path, 60, 30))
    assert find_calibration(tmp_path, CLASSIFIER, 60, min_open=30) == opened
    assert find_calibration(tmp_path, CLASSIFIER, 60, min_open=31) is None
    assert find_calibration(tmp_path, CLASSIFIER, 60) == made
    for least, file in ((0, 30), (30, 0), (31, 30)):
        with pytest.raises(WeightsError, match=r"the calibration is for scores of .*, these are of"):
            find_calibration(
                tmp_path, CLASSIFIER, 60, file=str(calibration_file(tmp_path, 60, file)), min_open=least
            )


def test_the_page_across_samples_names_them(place: Path, tmp_path: Path) -> None:
    rows = [
        BatchRow(n, "called", json.loads((place / n / folder.RUN).read_text())) for n in ("open", "plain")
    ]
    write_batch(tmp_path, rows)
    page = (tmp_path / "index.html").read_text()
    assert page.count(f"open frames of {LEAST} or more amino acids: ") == 1
