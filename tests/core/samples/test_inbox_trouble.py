"""What is wrong with one entry of the inbox is said, is tried again where that can help, and stops no other."""

import errno
import gzip
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.support.inbox import FASTA, FASTQ, SETTINGS, STABLE, Inbox
from virnucpro_core.errors import StoreError
from virnucpro_core.files.locks import locked
from virnucpro_core.samples import finding
from virnucpro_core.samples import inbox_register as module
from virnucpro_core.samples.content import with_content
from virnucpro_core.samples.inbox import PATIENCE
from virnucpro_core.samples.inbox_state import FILE, InboxState, Row, noted_problems
from virnucpro_core.samples.sample import Sample, list_samples, register


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("protein.fa", b">p\nMKLFEIL\n", "looks like protein"),
        ("notes.docx", b"PK\x03\x04rubbish", "a zip archive, not one sequence file"),
        ("comments.fa", b"# nothing else\n", "no records"),
        ("bad.fa.gz", gzip.compress(FASTA * 1000, mtime=0)[:30] + b"x" * 50, "damaged"),
        ("line\nbreak \x1b[31m.txt", b"no", "neither FASTA nor FASTQ"),
        (os.fsdecode(b"not utf-8 \xff.txt"), b"no", "neither FASTA nor FASTQ"),
        ("n" * 250, b"no", "neither FASTA nor FASTQ"),
    ],
)
def test_what_cannot_be_a_sample_is_set_aside_once_with_its_reason(
    inbox: Inbox, name: str, content: bytes, reason: str
) -> None:
    inbox.drop(name, content)
    inbox.drop("good.fa")
    inbox.look(0)
    seen = inbox.look(STABLE)
    assert seen.registered == ["good"]
    (news,) = seen.news
    assert news.moved_to is not None
    assert news.moved_to.read_bytes() == content
    told = news.moved_to.with_name(news.moved_to.name + ".reason.txt").read_text()
    assert told == news.said + "\n"
    assert re.search(reason, told)
    assert inbox.look(2 * STABLE).news == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("s.fa", b""), ("s.fa.gz", gzip.compress(FASTA, mtime=0)[:20]), ("s.fq", FASTQ[:-6])],
)
def test_a_file_that_looks_cut_has_time_to_become_whole(inbox: Inbox, name: str, content: bytes) -> None:
    file = inbox.drop(name, content)
    inbox.look(0)
    assert inbox.look(STABLE).news == []
    assert inbox.said()[name].startswith("looks incomplete: ")
    (news,) = inbox.look(PATIENCE * STABLE).news
    assert news.moved_to is not None
    assert not file.exists()
    inbox.drop(name, content)
    inbox.drop(name + ".done", b"")
    assert len(inbox.look(1000).news) == 1  # who says that it is whole is believed
    assert not (inbox.folder / (name + ".done")).exists()


def test_setting_aside_never_overwrites(inbox: Inbox) -> None:
    for number, content in enumerate((b"one", b"two")):
        inbox.drop("x.bin", content)
        inbox.look(number * 100)
        inbox.look(number * 100 + STABLE)
    kept = [p.read_bytes() for p in (inbox.home / "set_aside").iterdir() if p.suffix == ".bin"]
    assert sorted(kept) == [b"one", b"two"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EXDEV, errno.EPERM, errno.EBUSY])
def test_what_cannot_be_moved_is_noted_once_and_left(
    inbox: Inbox, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.parent == inbox.folder:
            raise OSError(number, os.strerror(number))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    file = inbox.drop("a.txt", b"no sequences")
    inbox.drop("b.fa")
    inbox.look(0)
    seen = inbox.look(STABLE)
    assert seen.registered == ["b"]
    (news,) = seen.news
    assert news.moved_to is None
    assert "left in the inbox, it cannot be moved" in news.said
    for now in range(20, 200, 20):
        seen = inbox.look(now)
        assert seen.news == []
        assert [row.name for row in seen.problems] == [b"a.txt"]
    assert [row.said for row in noted_problems(inbox.home)] == [news.said]
    assert file.exists()
    assert list((inbox.home / "set_aside").iterdir()) == []
    inbox.drop("a.txt", FASTA)  # mended in its place
    inbox.look(300)
    assert inbox.names(320) == ["a_txt"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_read_error_of_a_moment_is_waited_for(
    inbox: Inbox, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when an upload has mode 0600 until it ends, or a server of files is away."""
    file, real = inbox.drop("s.fa"), Path.open

    def refuse(self: Path, *mode: Any, **options: Any) -> Any:
        if self == file:
            raise OSError(number, os.strerror(number), str(self))
        return real(self, *mode, **options)

    inbox.drop("good.fa")
    inbox.look(0)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        seen = inbox.look(STABLE)
        assert seen.registered == ["good"]
        assert [(n.kind, n.entries) for n in seen.news] == [("unreadable", (b"s.fa",))]
        seen = inbox.look(50 * STABLE)
        assert seen.news == []
        assert os.strerror(number) in inbox.said()["s.fa"]
        with pytest.raises(StoreError, match=os.strerror(number)):
            with_content(Sample("x", inbox.home / "samples" / "x", _stats(file), SETTINGS))
    assert file.exists()
    assert inbox.names(50 * STABLE + 1) == ["s"]


def _stats(file: Path) -> Any:
    from virnucpro_core.samples.inputs import look_at_inputs  # noqa: PLC0415

    return look_at_inputs([file])


def test_a_registration_that_fails_is_tried_again_and_shown(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.register_unread

    def fail(home: Path, name: str, *rest: Any, **options: Any) -> Sample:
        if name == "s":
            raise StoreError("disk error: No space left on device", where=home)
        return real(home, name, *rest, **options)

    inbox.drop("s.fa")
    inbox.drop("t.fa")
    inbox.look(0)
    with monkeypatch.context() as patch:
        patch.setattr(module, "register_unread", fail)
        seen = inbox.look(STABLE)
        assert seen.registered == ["t"]
        assert [(n.kind, n.entries) for n in seen.news] == [("failing", (b"s.fa",))]
        assert inbox.look(20).news == []
    assert "No space left" in noted_problems(inbox.home)[0].said
    assert inbox.names(30) == ["s"]
    assert noted_problems(inbox.home) == []


def test_a_look_does_not_wait_for_who_registers_the_same_name(inbox: Inbox) -> None:
    inbox.drop("s.fa")
    inbox.drop("t.fa")
    inbox.look(0)
    with locked(inbox.home / "samples" / "s" / "locks" / "registration.lock", busy=""):
        seen = inbox.look(STABLE)
        assert seen.registered == ["t"]
        assert "another process registers sample 's'" in seen.news[0].said
    assert inbox.names(STABLE + 1) == ["s"]


def test_a_full_disk_loses_nothing(inbox: Inbox) -> None:
    """Neither a sample that was registered before its row could be written, nor the rows of before."""
    inbox.drop("s.fa")
    inbox.look(0)
    with (
        mock.patch.object(InboxState, "_write", side_effect=OSError(errno.ENOSPC, "No space left")),
        pytest.raises(StoreError, match="No space left"),
    ):
        inbox.look(STABLE)
    assert list_samples(inbox.home) == ["s"]
    assert inbox.names(STABLE + 1) == ["s"]


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def _deep(path: Path) -> None:
    here = Path(path)
    subprocess.run(["mkdir", "-p", str(here / Path(*["d"] * 1500))], check=True)


STRANGE: dict[str, Callable[[Path], None]] = {
    "pipe.fa": _fifo,
    "socket.fa": _socket,
    "loop.fa": lambda path: path.symlink_to(path),
    "nowhere.fa": lambda path: path.symlink_to("missing"),
    "folder.fa": lambda path: (path / "inner").mkdir(parents=True),
    "linked": lambda path: path.symlink_to(path.parent),
    "deep": _deep,
    "bad link inside": lambda path: (path.mkdir(), (path / "x.fa").symlink_to("nowhere"))[0],
    "-rf": lambda path: path.write_bytes(b"x"),
    "\n": lambda path: path.write_bytes(b"x"),
}


def test_strange_entries_stop_nobody(inbox: Inbox) -> None:
    for name, make in STRANGE.items():
        make(inbox.folder / name)
    inbox.drop("zz.fa")
    inbox.look(0)
    assert inbox.names(STABLE) == ["zz"]
    assert "a link that leads nowhere" in inbox.said()["nowhere.fa"]
    assert inbox.said()["bad link inside"] == "x.fa: a link that leads nowhere"
    assert "pipe.fa" not in inbox.said()
    (inbox.folder / "missing").write_bytes(FASTA)
    inbox.look(30)
    assert inbox.names(50) == ["missing", "nowhere"]
    for number in range(10):
        inbox.look(1000 * number)
    assert list_samples(inbox.home) == ["missing", "nowhere", "zz"]
    # Python's own clean-up of temporary folders recurses, and cannot delete one that is this deep.
    subprocess.run(["find", str(inbox.home), "-name", "d", "-delete"], check=True)


def test_files_that_vanish_during_the_look_are_no_matter(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox.drop("a_R1.fastq", FASTQ)
    second = inbox.drop("a_R2.fastq", FASTQ)
    inbox.drop("b.fa")
    inbox.look(0)
    real = finding.check_head

    def vanish(path: Path, *options: Any) -> Any:
        second.unlink(missing_ok=True)
        return real(path, *options)

    with monkeypatch.context() as patch:
        patch.setattr(finding, "check_head", vanish)
        assert inbox.names(STABLE) == ["b"]
    assert (inbox.folder / "a_R1.fastq").exists()


def test_a_look_ends_in_time_and_the_next_goes_on(inbox: Inbox) -> None:
    for number in range(20):
        inbox.drop(f"s{number:02}.fa")
    inbox.look(0)
    assert inbox.look(STABLE, seconds=0).registered == []
    assert inbox.look(STABLE).registered == [f"s{number:02}" for number in range(20)]


def test_what_failed_before_comes_after_what_is_new(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refuse(path: Path, *_: Any) -> None:
        asked.append(path.name)
        raise OSError(errno.EIO, "Input/output error")

    inbox.drop("a.fa")
    inbox.look(0)
    monkeypatch.setattr(finding, "check_head", refuse)
    inbox.look(STABLE)
    inbox.drop("b.fa")
    inbox.look(20)
    del asked[:]
    inbox.look(40)
    assert asked == ["b.fa", "a.fa"]


def test_a_sample_whose_report_was_lost_is_registered_to_the_next_look(inbox: Inbox) -> None:
    inbox.drop("s.fa")
    inbox.look(0)
    assert inbox.names(STABLE) == ["s"]
    inbox.heard = 0  # as after a daemon that was killed before it stored the cursor
    assert inbox.names(20) == ["s"]
    assert inbox.names(30) == []


def test_damaged_notes_are_put_aside_and_known_samples_stay_as_they_are(inbox: Inbox) -> None:
    inbox.drop("s.fa")
    inbox.look(0)
    inbox.look(STABLE)
    made = with_content(inbox.sample("s"))
    (inbox.home / FILE).write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    seen = inbox.look(20)
    assert "was damaged and was moved aside" in seen.news[0].said
    inbox.look(40)
    assert list_samples(inbox.home) == ["s"]
    assert inbox.sample("s").content == made.content


def test_two_looks_at_once_are_one(inbox: Inbox) -> None:
    with locked(inbox.home / "inbox.lock", busy=""), pytest.raises(StoreError, match="earlier scan"):
        inbox.look(0)


def test_two_files_of_one_name_are_two_samples(inbox: Inbox) -> None:
    inbox.drop("s.fa")
    inbox.drop("s.fasta", FASTA * 3)
    inbox.look(0)
    names = inbox.names(STABLE)
    assert names[0] == "s"
    assert names[1].startswith("s-")


def test_a_file_that_the_command_line_registered_is_the_same_sample(inbox: Inbox) -> None:
    file = inbox.drop("s.fa")
    made = register(inbox.home, "s", [file], SETTINGS)
    inbox.look(0)
    assert inbox.names(STABLE) == ["s"]
    assert inbox.sample("s").content == made.content


def test_a_look_over_ten_thousand_known_files_is_short_and_writes_nothing(inbox: Inbox) -> None:
    rows, count = {}, 10_000
    for number in range(count):
        file = inbox.drop(f"sample_{number:05}.fastq.gz", b"x")
        status = file.stat()
        rows[os.fsencode(file.name)] = f"{status.st_size} {status.st_mtime_ns}"
    with InboxState(inbox.home) as state:
        for name, identity in rows.items():
            state.rows[name] = Row(name, identity, identity, 0.0, "registered", "", "s", "", 1)
    before = (inbox.home / FILE).stat().st_mtime_ns
    inbox.heard = 1
    began = time.monotonic()
    assert inbox.look(100).registered == []
    assert time.monotonic() - began < 20
    assert (inbox.home / FILE).stat().st_mtime_ns == before
