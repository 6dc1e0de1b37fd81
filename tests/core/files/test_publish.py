"""Publishing is whole or nothing, locks vanish with their holder, sweeping touches only what the dead left."""

import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from virnucpro_core.errors import StoreError
from virnucpro_core.files.digests import sha256_file
from virnucpro_core.files.locks import is_locked, locked
from virnucpro_core.files.publish import (
    TEMPORARY,
    publish,
    publish_bytes,
    publish_folder,
    publish_json,
    sweep,
)


def test_a_failing_writer_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    publish_bytes(file, b"old")
    with pytest.raises(RuntimeError, match="half way"):
        _half_a_folder(tmp_path / "b")
    with pytest.raises(RuntimeError, match="half way"):
        _half_a_file(file)
    with pytest.raises(StoreError, match=r"the disk refuses: .* GB free\); check the disk"):
        publish_bytes(tmp_path / "a.txt" / "below-a-file", b"new")
    assert file.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt"]


def _half_a_file(path: Path) -> None:
    with publish(path) as temporary:
        temporary.write_bytes(b"ne")
        raise RuntimeError("half way")


def _half_a_folder(path: Path) -> None:
    with publish_folder(path) as folder:
        (folder / "part").write_bytes(b"x")
        raise RuntimeError("half way")


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        with publish_folder(tmp_path / "store") as folder:
            (folder / content.decode()).write_bytes(content)
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_json_is_canonical(tmp_path: Path) -> None:
    publish_json(tmp_path / "a.json", {"b": 1, "a": 2})
    publish_json(tmp_path / "b.json", {"a": 2, "b": 1})
    assert sha256_file(tmp_path / "a.json") == sha256_file(tmp_path / "b.json")


def test_sweep_takes_what_a_dead_writer_left_and_spares_the_living(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    host = socket.gethostname()
    dead = tmp_path / f"{TEMPORARY}{host}-{int(ended.stdout)}-x.h5"
    alive = tmp_path / f"{TEMPORARY}{host}-{os.getpid()}-y.h5"
    elsewhere = tmp_path / f"{TEMPORARY}another-host-1-z.h5"
    for file in (dead, alive, elsewhere):
        file.touch()
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive, elsewhere])


def _hold(path: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with locked(path, busy="busy"):
        ready.set()
        multiprocessing.Event().wait(60)


def test_a_lock_names_its_holder_and_vanishes_when_the_holder_is_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "lane.lock", ready))
    holder.start()
    assert ready.wait(30)
    with (
        pytest.raises(StoreError, match=f"lane busy.*process {holder.pid}"),
        locked(tmp_path / "lane.lock", busy="lane busy"),
    ):
        pytest.fail("two holders")
    holder.kill()
    holder.join()
    with locked(tmp_path / "lane.lock", busy="busy"):
        pass


def test_who_waited_for_a_lock_that_was_deleted_excludes_others_all_the_same(tmp_path: Path) -> None:
    path, entered, leave = tmp_path / "s.lock", threading.Event(), threading.Event()

    def wait_for_it() -> None:
        with locked(path, busy="busy", wait=True):
            entered.set()
            leave.wait(30)

    waiter = threading.Thread(target=wait_for_it)
    with locked(path, busy="busy"):
        waiter.start()
        time.sleep(0.2)
        assert is_locked(path)
        path.unlink()
    assert entered.wait(30)
    with pytest.raises(StoreError, match="busy"), locked(path, busy="busy"):
        pytest.fail("two holders")
    leave.set()
    waiter.join()
    assert not is_locked(path)
    assert not is_locked(tmp_path / "absent.lock")


def test_a_lock_is_shared_by_many_or_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "s.lock"
    shared = {"busy": "busy", "shared": True}
    with (
        locked(path, **shared),  # type: ignore[arg-type]
        locked(path, **shared),  # type: ignore[arg-type]
        pytest.raises(StoreError, match="busy"),
        locked(path, busy="busy"),
    ):
        pytest.fail("beside others")
    with (
        locked(path, busy="busy"),
        pytest.raises(StoreError, match="busy"),
        locked(path, busy="busy", shared=True),
    ):
        pytest.fail("beside one who is alone")


def test_who_only_looks_refuses_nobody(tmp_path: Path) -> None:
    path, stop = tmp_path / "s.lock", threading.Event()
    path.touch()

    def look() -> None:
        while not stop.is_set():
            is_locked(path)

    looker = threading.Thread(target=look)
    looker.start()
    for _ in range(200):
        with locked(path, busy="busy"):
            pass
    stop.set()
    looker.join()
