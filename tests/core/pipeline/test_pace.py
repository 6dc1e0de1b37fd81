"""The pace of a large sample is noted, and tells how long the rest of the next one takes."""

import json
import time
from pathlib import Path

import pytest

from torture.pipeline import Pipeline, write_reads
from virnucpro_core.pipeline import pace
from virnucpro_core.pipeline.overview import overview
from virnucpro_core.pipeline.pace import FILE, LANE, RESULTS, SCORES, SEQUENCES, Pace, kind_of, note
from virnucpro_core.samples.products import DNABERT, ESM
from virnucpro_core.samples.sample import Sample
from virnucpro_core.sequences.frames import Frames

SPENT = {SEQUENCES: 10.0, LANE: 100.0, RESULTS: 20.0}


@pytest.fixture
def called(tmp_path: Path) -> tuple[Pipeline, Sample]:
    pipeline = Pipeline(tmp_path / "home", write_reads(tmp_path / "reads.fa", records=16))
    pipeline.run()
    return pipeline, pipeline.register()


def test_nothing_is_noted_of_a_small_or_resumed_sample(
    called: tuple[Pipeline, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, sample = called
    note(sample, Frames.open(sample.translations).n_unique, SPENT, since=0)
    assert not (sample.home / FILE).exists()
    monkeypatch.setattr(pace, "LEAST_FRAMES", 1)
    note(sample, 100, SPENT | {"more": 1.0}, since=0)
    assert not (sample.home / FILE).exists()
    note(sample, 100, SPENT, since=time.time() + 10)  # the lanes ran earlier and were found done now
    assert not (sample.home / FILE).exists()
    began = time.time()
    (sample.product(ESM) / "00000.h5").unlink()
    pipeline.run()  # one shard is made again, everything else is found done
    note(sample, 100, SPENT, since=began)
    assert not (sample.home / FILE).exists()


def test_the_rest_is_estimated_by_what_was_noted(
    called: tuple[Pipeline, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sample = called
    monkeypatch.setattr(pace, "LEAST_FRAMES", 1)
    frames, kind = Frames.open(sample.translations).n_unique, kind_of(sample.settings, "cpu")
    note(sample, frames, SPENT, since=0)
    known = Pace.read(sample.home)
    assert set(known.seconds) == {SEQUENCES, DNABERT, ESM, SCORES, RESULTS}
    assert known.of(RESULTS, kind, frames) == pytest.approx(20.0)
    assert known.of(SEQUENCES, kind, 2 * frames) == pytest.approx(20.0)
    after = known.after(ESM, kind, lane=0, frames=frames)
    assert after == pytest.approx(20.0)  # only the results: the lane has no frames
    assert known.after(DNABERT, kind, lane=frames, frames=frames) > after
    assert known.after(ESM, "another kind", lane=1, frames=1) is None


@pytest.mark.parametrize("text", ["", "[]", '{"esm": 3}', '{"results": {"x": "much"}}'])
def test_a_damaged_note_is_no_note(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert Pace.read(tmp_path).seconds == {}


def test_the_time_left_of_a_lane_counts_what_follows_it(
    called: tuple[Pipeline, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sample = called
    monkeypatch.setattr(pace, "LEAST_FRAMES", 1)
    monkeypatch.setattr("virnucpro_core.pipeline.overview.workers", lambda _: {f"{DNABERT}-0": "process 1"})
    (sample.results / "run.json").unlink()
    telemetry = sample.telemetry(DNABERT, 0)
    lines = [line for line in telemetry.read_text().splitlines() if json.loads(line)["event"] != "end"]
    telemetry.write_text("".join(f"{line}\n" for line in lines))
    alone = overview(sample.home, sample.name).seconds_left
    kind = kind_of(sample.settings, "cpu")
    each = {step: {kind: 1.0} for step in (SEQUENCES, DNABERT, ESM, SCORES, RESULTS)}
    (sample.home / FILE).write_text(json.dumps(each))
    assert overview(sample.home, sample.name).seconds_left > (alone or 0.0) + 10.0
