"""Publishing is whole or nothing, locks vanish with their holder, sweeping touches only what the dead left."""

import contextlib
import errno
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
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
    publish_together,
    sweep,
)


def test_a_failing_writer_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    publish_bytes(file, b"old")
    with pytest.raises(RuntimeError, match="half way"):
        _half_a_folder(tmp_path / "b")
    with pytest.raises(RuntimeError, match="half way"):
        _half_a_file(file)
    with pytest.raises(StoreError, match=r"disk error: .* GB free\); check the disk"):
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


WRITER = """
import sys
from pathlib import Path
from virnucpro_core.files.publish import publish, publish_folder

def write(temporary):
    temporary.write_bytes(b"half")
    print(temporary.name, flush=True)
    sys.stdin.read()

with publish_folder(Path(sys.argv[1]) / "store") as folder:
    with publish(folder / "inner.h5"):
        pass
    print(folder.name, flush=True)
    with publish(Path(sys.argv[1]) / "a.h5") as temporary:
        write(temporary)
"""


@contextlib.contextmanager
def _writer(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", list[str]]]:
    """A process that writes a file and a folder, and the two temporary names; it ends with its input."""
    words = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, [process.stdout.readline().strip() for _ in range(2)]


def test_sweep_spares_what_a_living_writer_locks_and_takes_all_else(tmp_path: Path) -> None:
    (tmp_path / f"{TEMPORARY}{'0' * 16}.h5").touch()
    (tmp_path / f"{TEMPORARY}{'1' * 16}").mkdir()
    (tmp_path / f"{TEMPORARY}{'1' * 16}" / "part").touch()
    others = ["somebody's", f"{TEMPORARY}of-another-program"]
    for name in others:
        (tmp_path / name).touch()
    with _writer(tmp_path) as (process, names):
        for _ in range(2):
            sweep(tmp_path)
        found = sorted(p.name for p in tmp_path.iterdir())
        assert found == sorted([*names, f"{names[0]}.lock", *others])
        assert (tmp_path / names[0] / "inner.h5").exists()
        process.communicate("")
        assert process.returncode == 0
    assert (tmp_path / "a.h5").read_bytes() == b"half"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.h5", "store", *others])


def test_sweep_takes_what_a_killed_writer_left(tmp_path: Path) -> None:
    with _writer(tmp_path) as (process, names):
        process.kill()
        process.wait()
        assert len(list(tmp_path.iterdir())) == 3
        (tmp_path / names[0] / "more").mkdir()
        sweep(tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_sweep_follows_no_link_and_waits_for_no_pipe(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / f"{TEMPORARY}{'2' * 16}").symlink_to(tmp_path / "kept")
    os.mkfifo(tmp_path / f"{TEMPORARY}{'3' * 16}")
    sweep(tmp_path)
    assert (tmp_path / "kept" / "file").exists()


def test_who_sweeps_and_who_begins_to_write_do_not_hinder_each_other(tmp_path: Path) -> None:
    stop = threading.Event()

    def sweep_on() -> None:
        while not stop.is_set():
            sweep(tmp_path)

    sweeper = threading.Thread(target=sweep_on)
    sweeper.start()
    try:
        for number in range(300):
            publish_bytes(tmp_path / f"{number % 5}", b"x")
            with publish_folder(tmp_path / "store") as folder:
                (folder / "part").touch()
    finally:
        stop.set()
        sweeper.join()
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "1", "2", "3", "4", "store"]


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o022, 0o002])
def test_what_is_published_has_the_mode_that_the_umask_leaves(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        publish_bytes(tmp_path / "below" / "a", b"x")
        with publish_folder(tmp_path / "store") as folder:
            (folder / "part").touch()
    finally:
        os.umask(before)
    modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.rglob("*")}
    folder_mode, file_mode = 0o777 & ~umask, 0o666 & ~umask
    assert modes == {"below": folder_mode, "a": file_mode, "store": folder_mode, "part": file_mode}


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
    taken = 0
    for _ in range(200):
        with locked(path, busy="busy"):
            taken += 1
    stop.set()
    looker.join()
    assert taken == 200


def test_files_published_together_appear_when_all_are_complete(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("old")
    with publish_together(tmp_path, ["a.tsv", "b.txt"]) as files:
        for name, file in files.items():
            file.write_text(name)
            assert file.suffix == Path(name).suffix
        assert (tmp_path / "b.txt").read_text() == "old"
        assert not (tmp_path / "a.tsv").exists()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "a.tsv": "a.tsv",
        "b.txt": "b.txt",
    }


def test_files_published_together_all_stay_as_they_were_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b").write_text("old")

    def fails(handle: int) -> None:
        raise OSError(errno.EIO, "no disk")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(StoreError, match="disk error"):
        _publish_new(tmp_path, "a", "b")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"b": "old"}


def _publish_new(folder: Path, *names: str) -> None:
    with publish_together(folder, names) as files:
        for file in files.values():
            file.write_text("new")
