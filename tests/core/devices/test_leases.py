"""One process a device: real processes on one folder, killed holders, failed devices."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.support import ROOT
from virnucpro_core.devices import compute as devices
from virnucpro_core.devices import cuda
from virnucpro_core.devices.compute import Compute
from virnucpro_core.devices.leases import MARK_SECONDS, Leases, ProcessDevice
from virnucpro_core.devices.visible import Device
from virnucpro_core.errors import DeviceError, DeviceLostError, StoreError

DEVICES = [Device(f"GPU-{i}", "H100") for i in range(3)]
HOLDER = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from virnucpro_core.devices.leases import Leases, ProcessDevice
from virnucpro_core.devices.visible import Device
devices = [Device(f"GPU-{i}", "H100") for i in range(3)]
with Leases(Path(sys.argv[1]), devices, ProcessDevice(print)).held(int(sys.argv[2]), needed=lambda: True) as device:
    print("held", flush=True)
    time.sleep(300)
"""


def _leases(folder: Path) -> tuple[Leases, list[str]]:
    narrowed: list[str] = []
    return Leases(folder, DEVICES, ProcessDevice(narrowed.append)), narrowed


@contextmanager
def _holder(folder: Path, rank: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that holds the rank's device."""
    words = [sys.executable, "-c", HOLDER, str(folder), str(rank)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == f"GPU-{rank}".encode()
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


def _tries(most: int) -> list[bool]:
    return [True] * most + [False]


def test_a_device_is_one_process_s_until_that_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "leases"
    leases, narrowed = _leases(folder)
    with _holder(folder, 1) as holder:
        says = f"process {holder.pid} of user {os.getuid()}"
        assert says in leases.holder(DEVICES[1])
        tries = iter(_tries(2))
        with leases.held(1, needed=lambda: next(tries)) as device:
            assert device is None
        assert [r.message for r in caplog.records if "rank 1 waits" in r.message and says in r.message]
        with leases.held(0, needed=lambda: True) as device:
            assert device == DEVICES[0]
            assert leases.holder(DEVICES[0]).startswith(f"process {os.getpid()}")
        assert leases.holder(DEVICES[0]) == ""
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        other, _ = _leases(folder)
        with other.held(1, needed=lambda: True) as device:
            assert device == DEVICES[1]
    assert narrowed == ["GPU-0"]


def test_the_folder_and_its_files_are_for_all_users(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        with _leases(tmp_path / "leases")[0].held(0, needed=lambda: True):
            pass
    finally:
        os.umask(old)
    assert (tmp_path / "leases").stat().st_mode & 0o7777 == 0o1777
    assert (tmp_path / "leases" / "GPU-0.lease").stat().st_mode & 0o777 == 0o666


def test_modes_that_a_killed_process_left_are_mended_by_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "leases"
    folder.mkdir(mode=0o755)
    file = folder / "GPU-0.lease"
    file.touch(mode=0o600)
    leases, _ = _leases(folder)
    with leases.held(0, needed=lambda: True):
        assert folder.stat().st_mode & 0o7777 == 0o1777
        assert file.stat().st_mode & 0o777 == 0o666
    assert [f.name for f in folder.iterdir()] == [file.name]


def test_a_folder_that_holds_anything_else_or_is_a_groups_keeps_its_mode(tmp_path: Path) -> None:
    for name, mode in (("home", 0o755), ("group", 0o2770)):
        folder = tmp_path / name
        folder.mkdir()
        folder.chmod(mode)
        (folder / ("diary" if name == "home" else "GPU-1.lease")).touch()
        leases, _ = _leases(folder)
        with leases.held(0, needed=lambda: True):
            assert folder.stat().st_mode & 0o7777 == mode


def test_many_who_make_the_folder_at_once_have_one(tmp_path: Path) -> None:
    folder = tmp_path / "below" / "leases"
    with contextlib.ExitStack() as holders:
        for rank in range(3):
            holders.enter_context(_holder(folder, rank))
        leases, _ = _leases(folder)
        assert all(leases.holder(device) for device in DEVICES)
    assert [p.name for p in folder.parent.iterdir()] == ["leases"]


@pytest.mark.parametrize(
    "text",
    [
        {"holder": "\x1b]0;owned\x07\x1b[2J\nok      lanes", "failed": "\x1b[31m", "since": time.time()},
        {"holder": ["x"] * 5000, "failed": {}, "since": "inf"},
        {"holder": None, "failed": None, "since": 1e308},
        {"since": [1], "failed": 3},
    ],
)
def test_what_another_user_wrote_is_shown_as_one_plain_line(tmp_path: Path, text: dict[str, object]) -> None:
    leases, _ = _leases(tmp_path)
    with leases.held(0, needed=lambda: True):
        (tmp_path / "GPU-0.lease").write_text(json.dumps(text))
        shown = [leases.holder(DEVICES[0])]
        if failure := leases.failure(DEVICES[0]):
            shown.append(failure.reason)
            time.localtime(failure.since)
        assert all(line.isprintable() and len(line) <= 200 for line in shown)


def test_a_pipe_in_the_shared_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "GPU-0.lease")
    leases, _ = _leases(tmp_path)
    assert leases.failure(DEVICES[0]) is None
    assert leases.holder(DEVICES[0]) == ""


def test_a_link_in_the_shared_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "GPU-0.lease").symlink_to(tmp_path / "precious")
    with pytest.raises(StoreError, match="disk error"), _leases(tmp_path)[0].held(0, needed=lambda: True):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_the_rank_of_a_failed_device_gets_a_healthy_one_for_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases, _ = _leases(tmp_path)
    with leases.held(0, needed=lambda: True) as device:
        assert device is not None
        leases.mark_failed(device, "fell off the bus")
    with pytest.raises(
        DeviceLostError, match="failed after this process"
    ):  # CUDA is bound to it in this process
        leases.candidates(0)
    fresh, _ = _leases(tmp_path)
    assert fresh.candidates(0) == [DEVICES[2], DEVICES[1]]
    assert fresh.candidates(1) == [DEVICES[1]]
    with _holder(tmp_path, 2), fresh.held(0, needed=lambda: True) as device:
        assert device == DEVICES[1]
    late = time.time() + MARK_SECONDS + 1
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: late)
        assert fresh.failure(DEVICES[0]) is None
    assert fresh.clear(DEVICES[0])
    assert not fresh.clear(DEVICES[0])
    assert _leases(tmp_path)[0].candidates(0) == [DEVICES[0]]


def test_no_healthy_device_and_no_such_rank_are_errors_that_say_what_to_do(tmp_path: Path) -> None:
    leases, _ = _leases(tmp_path)
    with pytest.raises(DeviceError, match="rank 3: 3 GPUs are visible; lower --gpus"):
        leases.candidates(3)
    tmp_path.joinpath("GPU-0.lease").touch()
    for device in DEVICES:
        leases.mark_failed(device, "ECC")
    with pytest.raises(DeviceError, match="doctor --clear-failed"):
        leases.candidates(0)


@pytest.mark.parametrize(
    ("code", "answers", "marked"), [(214, True, True), (700, True, False), (719, False, True)]
)
def test_a_device_is_given_up_for_hardware_errors_and_never_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, answers: bool, marked: bool
) -> None:
    monkeypatch.setattr(cuda, "cuda_name", lambda _: "cuda:0")
    monkeypatch.setattr(devices, "answers", lambda _: answers)
    leases, _ = _leases(tmp_path)
    compute = Compute("cuda", leases=leases, rank=1)
    error = torch.AcceleratorError("CUDA error: something\nlong")
    error.error_code = code  # type: ignore[attr-defined]
    lost = r"GPU-1 \(H100\) was lost: CUDA error: something; run"
    with pytest.raises(DeviceLostError, match=lost), compute.held():
        raise error
    assert (leases.failure(DEVICES[1]) is not None) is marked
    with pytest.raises(DeviceLostError), compute.held():  # this process can compute no more
        pass


def test_what_is_no_device_error_goes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "cuda_name", lambda _: "cuda:0")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    leases, _ = _leases(tmp_path)
    with pytest.raises(RuntimeError, match="shapes"), Compute("cuda", leases=leases).held():
        raise RuntimeError("shapes do not fit")
    assert leases.failure(DEVICES[0]) is None
    with Compute("cuda", leases=leases).held() as name:
        assert name == "cuda:0"


@pytest.mark.parametrize(
    ("uuid", "seen", "name"),
    [
        ("GPU-ab", ["cd", "ab"], "cuda:1"),  # CUDA had started before it was narrowed
        ("GPU-ab", ["ab"], "cuda:0"),
        ("MIG-12", ["ab"], "cuda:0"),
        ("MIG-12", ["ab", "12"], "cuda:1"),
        ("MIG-12", ["ab", "cd"], ""),
        ("GPU-ab", ["cd"], ""),
        ("GPU-ab", [], ""),
    ],
)
def test_the_leased_device_is_found_by_its_uuid_and_no_other_is_used(
    monkeypatch: pytest.MonkeyPatch, uuid: str, seen: list[str], name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(seen))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(seen))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=seen[i]))
    if name:
        assert cuda.cuda_name(Device(uuid, "H100")) == name
    else:
        with pytest.raises(DeviceError, match=f"CUDA does not see {uuid}"):
            cuda.cuda_name(Device(uuid, "H100"))
