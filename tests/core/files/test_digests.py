"""A process reads an unchanged file once, and a changed one again, however it was changed."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from virnucpro_core.files import digests
from virnucpro_core.files.digests import remember_sha256, sha256_once


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that is read completely."""
    found: list[Path] = []
    real = digests.sha256_file

    def counted(path: Path) -> str:
        found.append(path)
        return real(path)

    monkeypatch.setattr(digests, "sha256_file", counted)
    return found


def _flip(file: Path) -> None:
    """Change a byte in place, and give the file its old modification time back."""
    before = file.stat()
    with file.open("r+b") as stream:
        stream.write(b"x")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace(file: Path) -> None:
    new = file.with_suffix(".new")
    new.write_bytes(b"x" * file.stat().st_size)
    new.replace(file)


def _grow(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"x")


@pytest.mark.parametrize("change", [_flip, _replace, _grow])
def test_a_changed_file_is_read_again(
    tmp_path: Path, reads: list[Path], change: Callable[[Path], None]
) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    time.sleep(0.05)  # see test_a_file_of_this_moment_is_not_trusted
    assert sha256_once(file) == sha256_once(file) == hashlib.sha256(b"abc").hexdigest()
    assert reads == [file]
    change(file)
    assert sha256_once(file) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert reads == [file, file]


def test_a_file_of_this_moment_is_not_trusted(tmp_path: Path, reads: list[Path]) -> None:
    """It could still change within the same tick of the file system's clock, and keep its times."""
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    assert sha256_once(file) == sha256_once(file)
    assert len(reads) == 2


def test_a_file_that_this_process_wrote_is_not_read(tmp_path: Path, reads: list[Path]) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    remember_sha256(file, "known")
    assert sha256_once(file) == "known"
    assert reads == []


def test_a_missing_file_is_an_error_even_if_it_was_known(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    sha256_once(file)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        sha256_once(file)
