"""A device that is lost costs time: the driver starts the lane anew, the daemon the run; the doctor tells."""

import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.assets.conftest import make_platform, make_sample, run
from virnucpro_assets.cli import doctor
from virnucpro_assets.graph import embeddings, records
from virnucpro_assets.graph.partitions import lane_key
from virnucpro_assets.platform import environment, resource
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.running import workers
from virnucpro_assets.running.tasks import Outcome, Task
from virnucpro_assets.running.workers import Worker, at_work
from virnucpro_core.devices.visible import Board, Device
from virnucpro_core.errors import DeviceLostError, StoreError
from virnucpro_core.pipeline.lane import LaneResult

WORKER = """
import os, sys, time
from pathlib import Path
starts = Path(os.environ["STARTS"])
starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
assert "lane" in sys.stdin.readline()
codes = os.environ["CODES"]
code = int(codes[min(len(starts.read_text()), len(codes)) - 1])
if code:
    print("GPU-1 was lost", flush=True)
    sys.exit(code)
print('{"outcome": {}}', flush=True)
sys.stdin.readline()
"""


def _outcome(worker: Worker) -> Outcome:
    deadline = time.monotonic() + 60
    while (outcome := worker.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return outcome


@pytest.mark.parametrize(
    ("codes", "ends", "starts"),
    [("440", 0, 3), ("4", 4, 1 + workers.RESTARTS), ("3", 3, 1), ("43", 3, 2), ("0", 0, 1)],
)
def test_a_worker_whose_device_is_lost_is_started_anew_a_few_times(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    codes: str,
    ends: int,
    starts: int,
) -> None:
    (tmp_path / "losing_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    monkeypatch.setenv("CODES", codes)
    monkeypatch.setattr(workers, "MODULE", "losing_worker")
    monkeypatch.setattr(workers, "RESTART_SECONDS", 0.01)
    worker = Worker("gpu-0", tmp_path / "gpu-0")
    with at_work([worker]):
        worker.give(Task("lane", ("0|a",), "predict-test"))
        outcome = _outcome(worker)
        assert (outcome.exit_code, outcome.failure) == (ends, "GPU-1 was lost" if ends else "")
        assert worker.task is None
        assert (tmp_path / "starts").read_text() == "x" * starts
        assert caplog.text.count("starting again") == starts - 1
        if not ends:
            return
        monkeypatch.setenv("CODES", "0")  # the next task has a process of its own
        worker.give(Task("lane", ("0|b",), "predict-test"))
        assert _outcome(worker) == Outcome()


def test_the_daemon_tries_a_run_again_whose_device_was_lost(
    tmp_path: Path, genomes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise DeviceLostError("GPU-1 was lost")

    monkeypatch.setattr(embeddings, "embed_lane", fails)
    retries = {"run_retries": {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}}
    with dg.instance_for_test(overrides=retries) as instance:
        platform = make_platform(tmp_path / "home")
        sample = make_sample(platform, instance, genomes)
        result = run("lane", lane_key(sample.name, 0), instance, platform, raise_on_error=False)
        assert not result.success
        record = instance.get_run_by_id(result.run_id)
        assert record is not None
        assert record.tags["dagster/will_retry"] == "true"
        assert not [e for e in result.all_events if e.is_step_up_for_retry]  # of no use in this process


def test_a_step_that_fails_begins_again_and_one_that_is_terminated_does_not(
    tmp_path: Path, genomes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, errors = embeddings.embed_lane, [StoreError("the disk is full")]

    def fails(*arguments: Any, **options: Any) -> LaneResult:
        if errors:
            raise errors.pop()
        return computed(*arguments, **options)

    monkeypatch.setattr(embeddings, "embed_lane", fails)
    monkeypatch.setattr(records, "RETRY_SECONDS", 0.01)
    with dg.instance_for_test() as instance:
        platform = make_platform(tmp_path / "home")
        sample = make_sample(platform, instance, genomes)
        assert run("sequences", sample.name, instance, platform).success
        result = run("lane", lane_key(sample.name, 0), instance, platform, raise_on_error=False)
        assert result.success
        [again] = [e for e in result.all_events if e.is_step_up_for_retry]
        assert "the disk is full" in again.step_retry_data.error.to_string()

        def terminated(*_: object, **__: object) -> None:
            raise dg.DagsterExecutionInterruptedError

        monkeypatch.setattr(embeddings, "embed_lane", terminated)
        result = run("lane", lane_key(sample.name, 0), instance, platform, raise_on_error=False)
        assert not result.success
        stopped = result.get_step_failure_events()[0].step_failure_data.error
        assert stopped is not None
        assert stopped.cls_name == "DagsterExecutionInterruptedError"
        assert not [e for e in result.all_events if e.is_step_up_for_retry]


def test_the_doctor_tells_who_holds_a_device_and_which_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = [Device("GPU-a", "H100"), Device("GPU-b", "H100"), Device("GPU-c", "H100")]
    monkeypatch.setattr(environment, "boards", lambda: [Board(card) for card in cards])
    monkeypatch.setattr(environment, "_VISIBLE", "2,0")
    platform = Platform(home=str(tmp_path), gpus=2, leases=str(tmp_path / "leases"))
    leases = platform.device_leases()
    assert list(leases.devices) == [cards[2], cards[0]]
    monkeypatch.setattr(leases.process, "narrow", lambda _: None)
    with leases.held(1, needed=lambda: True) as device:
        assert device == cards[0]
        leases.mark_failed(cards[2], "ECC")
        said = {line.name: line for line in doctor.examine(platform, "esm2-3b", 500)}
    monkeypatch.setattr(leases.process, "uuid", "")
    assert said["device 0"].good is False
    assert said["device 0"].text.startswith("GPU-c, H100: free; failed at ")
    assert "(ECC); `virnucpro doctor --clear-failed`" in said["device 0"].text
    assert said["device 1"].good is None
    assert said["device 1"].text.startswith("GPU-a, H100: process ")
    assert str(tmp_path / "leases") in said["leases"].text
    assert doctor.clear_failed(platform) == ["GPU-c"]
    assert doctor.clear_failed(platform) == []


def test_the_platform_leases_for_its_rank_and_passes_the_folder_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRNUCPRO_LEASES", str(tmp_path))
    assert resource.platform_from_environment().leases == str(tmp_path)
    monkeypatch.setattr(environment, "boards", list)
    assert environment.visible_gpus() == 1
    assert environment.usable_cores() >= 1
