"""The telemetry file can be read at any moment, whoever else still writes."""

from pathlib import Path

from virnucpro_core.engine.monitor import Reading
from virnucpro_core.engine.telemetry import LaneSummary, Recorder, read_lines, read_progress


def summary(rank: int) -> LaneSummary:
    return LaneSummary(
        "esm_embeddings", rank, 2, "cpu", "float32", "reference", sequences_total=10, sequences_resumed=rank
    )


def test_a_writer_that_goes_on_after_its_successor_began_is_not_seen(tmp_path: Path) -> None:
    path = tmp_path / "telemetry" / "esm_embeddings-0.jsonl"
    with Recorder(path, summary(0)) as orphan:
        path.unlink()
        orphan.batch(tokens=9, sequences=3, budget=10, wait=0.0)
        assert read_progress(path) is None
        with Recorder(path, summary(1)) as recorder:
            orphan.batch(tokens=9, sequences=3, budget=10, wait=0.0)
            recorder.batch(tokens=5, sequences=2, budget=10, wait=0.0)
            state = read_progress(path)
            assert state is not None
            assert (state.done, state.resumed, state.total, state.ended) == (3, 1, 10, False)
    state = read_progress(path)
    assert state is not None
    assert state.ended


def test_the_drivers_counters_are_summed_up_and_what_it_does_not_count_stays_unknown(tmp_path: Path) -> None:
    """A MIG slice has memory, and no utilisation."""
    with Recorder(tmp_path / "lane.jsonl", summary(0)) as recorder:
        recorder.counters([Reading(None, 3_000, 90.0), Reading(None, 5_000, 110.0)])
        recorder.batch(tokens=9, sequences=3, budget=10, wait=0.0, counters=Reading(None, 5_000, 110.0))
    assert (recorder.summary.gpu_utilisation, recorder.summary.gpu_memory) == (None, 5_000)
    assert recorder.summary.gpu_power == 100.0
    (batch,) = [line for line in read_lines(tmp_path / "lane.jsonl") if line["event"] == "batch"]
    assert (batch["gpu"], batch["memory"]) == (None, 5_000)
