"""One module for locks: without waiting, by the umask."""

import os
from pathlib import Path

import pytest

from tests.support import ROOT
from virnucpro_core.files.locks import Claims, is_locked, locked, try_lock


def test_an_open_file_is_locked_without_waiting_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with path.open("w") as one, path.open() as two, path.open() as three:
        assert try_lock(one.fileno())
        assert not try_lock(two.fileno())
        assert not try_lock(two.fileno(), shared=True)
        assert is_locked(path)
        one.close()
        assert try_lock(two.fileno(), shared=True)
        assert try_lock(three.fileno(), shared=True)
        assert not is_locked(path)  # shared by some, it can still be shared


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_lock_files_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with locked(tmp_path / "a.lock", busy=""), Claims(tmp_path / "a.claims"):
            pass
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a.lock", "a.claims")] == [mode, mode]


def test_claims_outlive_other_opens_of_the_file_and_exclude_within_a_process(tmp_path: Path) -> None:
    with Claims(tmp_path / "claims") as one, Claims(tmp_path / "claims") as two:
        assert one.take(3)
        with Claims(tmp_path / "claims"):
            pass
        assert two.is_taken(3)
        assert not two.take(3)
        assert two.take(1 << 40)
        one.release(3)
        assert two.take(3)


def test_no_other_module_has_lock_code_of_its_own() -> None:
    users = {
        str(file.relative_to(ROOT))
        for package in ("virnucpro_core", "virnucpro_assets")
        for file in (ROOT / package).rglob("*.py")
        if "import fcntl" in file.read_text()
    }
    assert users == {"virnucpro_core/files/locks.py"}
