"""Fill an inbox with unmovable, unreadable, huge, half-copied and junk files, scan it repeatedly, and kill scans.

Entries of every kind are dropped in random order. Copies stall for longer than the stable time. Opening or moving some
entries fails for a while or for ever. The date jumps. At the end every valid entry must be a sample of exactly its last
bytes, junk must be set aside or recorded, there must be no other sample, and no message may be repeated at every scan.
"""

import contextlib
import errno
import gzip
import os
import random
import shutil
import signal
import socket
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from torture.table import Row, Task, campaign
from virnucpro_core.errors import VirnucproError
from virnucpro_core.files.digests import sha256_json
from virnucpro_core.samples.content import with_content
from virnucpro_core.samples.inbox import PATIENCE, look
from virnucpro_core.samples.inbox_state import InboxState, noted_problems
from virnucpro_core.samples.inputs import digest_inputs
from virnucpro_core.samples.sample import list_samples, open_sample
from virnucpro_core.samples.settings import SampleSettings

STABLE, LOOKS, ENTRIES = 10.0, 30, 12
HUGE_BYTES = 30 << 30
LOOK_SECONDS, MOST_NEWS = 20.0, 8
SETTINGS = SampleSettings(profile="demo")
REFUSALS = (errno.EACCES, errno.EIO, errno.ESTALE, errno.EPERM)
IMMOVABLE = (errno.EACCES, errno.EROFS, errno.EXDEV, errno.EBUSY, errno.EPERM)
NAMES = ("plain", "two words", "line\nbreak", "\x1b[31mred", "$(id)", "-rf", "\udcff", "e\u0301", "n" * 200)


@dataclass
class Dropped:
    """An entry of the inbox. steps: contents still to be written to it; valid: whether it must become a sample.

    refuses_open, refuses_move: errno with which opening or moving it fails, 0 if it works.
    """

    path: Path
    steps: list[bytes] = field(default_factory=list)
    valid: bool = True
    refuses_open: int = 0
    refuses_move: int = 0


@campaign("rubbish in the inbox", share=0.5)
def rubbish_in_the_inbox(task: Task) -> Sequence[Row]:
    return [run_inboxes(task.folder, seconds=task.seconds, seed=task.seed)]


def run_inboxes(folder: Path, *, seconds: float, seed: int, points: int = 10_000_000) -> Row:
    """Try one random inbox after another until the time or the points (entries dropped) are used up."""
    row, draw, started = Row("rubbish in the inbox"), random.Random(seed), time.monotonic()
    inboxes = kills = 0
    while row.points < points and (not inboxes or time.monotonic() - started < seconds):
        one = Torture(folder / f"home-{inboxes}", draw, row)
        one.run()
        inboxes, kills = inboxes + 1, kills + one.kills
        shutil.rmtree(one.home, ignore_errors=True)
    row.seconds = time.monotonic() - started
    row.note = f"{inboxes} inboxes, at least {LOOKS} scans of each, {kills} of them killed"
    return row


class Torture:
    """One home with one inbox."""

    def __init__(self, home: Path, draw: random.Random, row: Row) -> None:
        self.home, self.inbox, self.draw, self.row = home, home / "inbox", draw, row
        self.inbox.mkdir(parents=True)
        self.now, self.heard, self.kills = 0.0, 0, 0
        self.dropped: list[Dropped] = []
        self.reported: Counter[tuple[str, bytes]] = Counter()

    def run(self) -> None:
        for number in range(LOOKS):
            for _ in range(self.draw.randint(0, 2) if number < LOOKS // 2 else 0):
                if len(self.dropped) < ENTRIES:
                    self.dropped.append(self._drop(len(self.dropped)))
                    self.row.points += 1
            self._advance()
            self._look(may_be_killed=True)
        while any(entry.steps for entry in self.dropped):
            self._advance()
        for entry in self.dropped:
            entry.refuses_open = 0
        # The first scan sees the last changes, the second complete files, the third those that waited for others.
        for _ in range(3):
            self._look(seconds=PATIENCE * STABLE + 1)
        self._judge()

    def _drop(self, number: int) -> Dropped:
        """Drop a new entry of a random kind, or only the first part of it."""
        draw, text = self.draw, _fasta(self.draw, number)
        path = self.inbox / f"{number:03}{draw.choice(NAMES)}.fa"
        kind = draw.choice(
            ("whole", "copied", "copied", "packed", "folder", "huge", "junk", "thing", "unreadable")
        )
        if kind in ("whole", "unreadable"):
            path.write_bytes(text)
            return Dropped(path, refuses_open=draw.choice(REFUSALS) if kind == "unreadable" else 0)
        if kind == "copied":
            lines = text.splitlines(keepends=True)
            return Dropped(
                path, [b"".join(lines[:k]) for k in sorted({2, draw.randint(2, len(lines)), len(lines)})]
            )
        if kind == "packed":
            packed = gzip.compress(text)
            return Dropped(path.with_suffix(".fa.gz"), [b"", packed[: len(packed) // 2], packed])
        if kind == "folder":
            return self._folder(path.with_suffix(""), text)
        if kind == "huge":
            path.write_bytes(b">huge\n" + b"ACGT" * (1 << 19))
            os.truncate(path, HUGE_BYTES)
            return Dropped(path)
        if kind == "junk":
            path.write_bytes(
                draw.choice((b"", b"PK\x03\x04", b">p\nMKLFEILQ\n", b"\xff" * 99, b"@a\nAC\n+\n"))
            )
        else:
            _thing(path, draw.randrange(5))
        return Dropped(path, valid=False, refuses_move=draw.choice((0, *IMMOVABLE)))

    def _folder(self, path: Path, text: bytes) -> Dropped:
        """Drop a delivery folder: reads with the other files that a sequencing centre adds."""
        path.mkdir()
        (path / "deep" / "er").mkdir(parents=True)
        (path / "deep" / "er" / "a.fa").write_bytes(text)
        for name in ("MD5.txt", "a.fa.fai", "Thumbs.db", ".hidden.fa"):
            (path / name).write_bytes(b"\0\1")
        return Dropped(path)

    def _advance(self) -> None:
        """Let time pass: copies continue or stall, NAME.done markers appear, the date jumps."""
        for entry in self.dropped:
            if entry.steps and self.draw.random() < 0.4:
                entry.path.write_bytes(entry.steps.pop(0))
                if self.draw.random() < 0.3:
                    day = time.time() + self.draw.choice((-86_400, 86_400, 0))
                    os.utime(entry.path, (day, day))
                if not entry.steps and self.draw.random() < 0.3:
                    entry.path.with_name(entry.path.name + ".done").touch()
            if entry.refuses_open and self.draw.random() < 0.05:
                entry.refuses_open = 0

    def _look(self, *, may_be_killed: bool = False, seconds: float = 0.0) -> None:
        self.now += seconds or self.draw.choice((1.0, 5.0, STABLE, 2 * STABLE))
        if may_be_killed and self.draw.random() < 0.3:
            self._killed_look()
            return
        began = time.monotonic()
        with self._refusing():
            try:
                seen = look(
                    self.home, lambda _: SETTINGS, now=self.now, stable_seconds=STABLE, heard=self.heard
                )
            except Exception as error:  # noqa: BLE001 - any error would end a tick
                self._found("tracebacks", f"{type(error).__name__}: {error}")
                return
        self.heard = seen.number if seen.registered else self.heard
        for news in seen.news:
            self.reported.update((news.kind, entry) for entry in news.entries)
        if (took := time.monotonic() - began) > LOOK_SECONDS:
            self._found("wrong", f"a scan took {took:.0f} s")

    def _killed_look(self) -> None:
        """Scan in a process that is killed at a random moment."""
        self.kills += 1
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # torch's threads: the child needs none of them
            child = os.fork()
        if not child:
            with contextlib.suppress(BaseException), self._refusing():
                look(self.home, lambda _: SETTINGS, now=self.now, stable_seconds=STABLE, heard=self.heard)
            os._exit(0)
        time.sleep(self.draw.random() * 0.1)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Make opening and moving fail as the entries say. File modes would not do: root ignores them."""
        opened, renamed = Path.open, Path.rename

        def open_(path: Path, *args: Any, **options: Any) -> Any:
            _refuse(path, {e.path: e.refuses_open for e in self.dropped})
            return opened(path, *args, **options)

        def rename(path: Path, target: Any) -> Any:
            _refuse(path, {e.path: e.refuses_move for e in self.dropped})
            return renamed(path, target)

        with mock.patch.object(Path, "open", open_), mock.patch.object(Path, "rename", rename):
            yield

    def _judge(self) -> None:
        contents = {}
        for name in list_samples(self.home):
            sample = open_sample(self.home, name)
            if sample.bytes < HUGE_BYTES:
                with contextlib.suppress(
                    VirnucproError
                ):  # a partial copy whose rest arrived under another name
                    sample = with_content(sample)
            contents[name] = sample.content or str(sample.inputs[0].path)
        wanted = {_content(entry.path): entry for entry in self.dropped if entry.valid}
        for content, entry in wanted.items():
            if content not in contents.values():
                self._found("lost", f"{entry.path.name!r} is not a sample; {self._noted(entry)}")
        for name in [name for name, content in contents.items() if content not in wanted]:
            self._found("wrong", f"sample {name} was not made from a dropped entry")
        problems = {row.name for row in noted_problems(self.home)}
        for entry in self.dropped:
            if (
                not entry.valid
                and os.path.lexists(entry.path)
                and os.fsencode(entry.path.name) not in problems
            ):
                self._found("wrong", f"{entry.path.name!r} is junk, but was neither set aside nor reported")
        copies = Counter(p.name.split("-", 1)[-1] for p in (self.home / "set_aside").glob("[0-9]-*"))
        for name, count in copies.items():
            self._found("wrong", f"{count + 1} copies of {name!r} in set_aside")
        for (kind, name), count in self.reported.items():
            if count > MOST_NEWS:
                self._found("wrong", f"{name!r} was reported {count} times as {kind}")

    def _noted(self, entry: Dropped) -> str:
        with InboxState(self.home) as state:
            return str(state.rows.get(os.fsencode(entry.path.name)))

    def _found(self, kind: str, what: str) -> None:
        setattr(self.row, kind, getattr(self.row, kind) + 1)
        self.row.findings.append(f"{self.home.name}: {what}")


def _refuse(path: Path, numbers: dict[Path, int]) -> None:
    if number := numbers.get(path, 0):
        raise OSError(number, os.strerror(number), str(path))


def _fasta(draw: random.Random, number: int) -> bytes:
    lines = (f">r{number}_{k}\n{''.join(draw.choices('ACGT', k=40))}\n" for k in range(draw.randint(2, 9)))
    return "".join(lines).encode()


def _content(path: Path) -> str:
    """What identifies an entry's sample: the digest of its bytes, or the path of a huge file."""
    files = [path / "deep" / "er" / "a.fa"] if path.is_dir() else [path]
    if files[0].stat().st_size >= HUGE_BYTES:
        return str(path.resolve())
    return sha256_json([f.sha256 for f in digest_inputs(files)])


def _thing(path: Path, kind: int) -> None:
    """Make something that is neither a regular file nor a folder with sequences."""
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX) as one,
        ):  # a name too long for a socket
            one.bind(str(path))
    elif kind == 2:
        path.symlink_to("nowhere")
    elif kind == 3:
        path.symlink_to(path.name)
    else:
        path.mkdir()
        (path / "notes.txt").write_text("no sequences")
