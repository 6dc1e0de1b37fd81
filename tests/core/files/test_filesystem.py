"""Locks, renames and mounts are looked at, not believed."""

import threading
from pathlib import Path

import pytest

from virnucpro_core.errors import StoreError
from virnucpro_core.files import filesystem
from virnucpro_core.files.filesystem import FileSystem, examine_storage, file_system, hold, probe


def test_a_sound_folder_passes_and_is_left_clean(tmp_path: Path) -> None:
    examine_storage(tmp_path / "locks")
    assert [p.name for p in (tmp_path / "locks").iterdir()] == [filesystem.LOCK]


@pytest.mark.parametrize(("second", "words"), [(False, "two processes can hold"), (True, "a lock stays")])
def test_locks_that_do_not_exclude_or_never_end_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, second: bool, words: str
) -> None:
    monkeypatch.setattr(filesystem, "_seen_by_another_process", lambda _: second)
    with pytest.raises(StoreError, match=words):
        examine_storage(tmp_path)


def test_probe_tells_a_holder_from_nobody_and_from_a_lock_that_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match="no process holds"):
        probe(tmp_path)
    held = threading.Event()
    holder = threading.Thread(target=hold, args=(tmp_path, 1.0, lambda _: held.set()))
    holder.start()
    assert held.wait(10)
    host = probe(tmp_path)
    assert host == filesystem.socket.gethostname()
    monkeypatch.setattr(filesystem, "is_locked", lambda _: False)
    with pytest.raises(StoreError, match="free on this machine"):
        probe(tmp_path)
    holder.join()
    assert not (tmp_path / filesystem.BEACON).exists()


def test_the_file_system_is_the_nearest_mount_and_local_locks_are_named() -> None:
    assert file_system(Path("/proc/self")).kind == "proc"
    nfs = FileSystem("nfs4", Path("/srv"), ("rw", "vers=4.2", "local_lock=none"))
    assert nfs.shared
    assert nfs.local_locks == ()
    assert FileSystem("nfs", Path("/srv"), ("rw", "nolock")).local_locks == ("nolock",)
    assert not FileSystem("ext4", Path("/"), ("rw",)).shared


def test_a_chroot_may_not_list_the_file_system_of_its_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem.psutil, "disk_partitions", lambda **_: [])
    found = file_system(tmp_path)
    assert found == FileSystem("unknown", Path("/"), ())
    assert found.shared  # it may be: nobody knows
    assert not found.network
