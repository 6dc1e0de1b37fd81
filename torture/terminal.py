"""Closed and odd terminals: whatever becomes of the standard streams, the work is done and ends as it would have.

Streams closed before the start, a reader that goes away, a full disk behind `>`, encodings without a letter, a
terminal of one column, one that is closed half way, a pipe that does not block.
"""

import contextlib
import errno
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.support import ROOT
from torture.pipeline import write_reads
from torture.site import Site
from torture.table import Row, Task, campaign

TIMEOUT = 300.0
LONG = "NODE_1_length_" + "1" * 120
QUICK = (
    ("samples",),
    ("models", "list"),
    ("--help",),
    ("predict", "-h"),
    ("--version",),
)
Odd = Callable[[Site, Sequence[str]], tuple[int, str]]


def _finish(process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    """Exit code, and what it said on standard error where that is a pipe."""
    _, said = process.communicate(timeout=TIMEOUT)
    return process.returncode, (said or b"").decode(errors="replace")


def _start(site: Site, words: Sequence[str], **options: object) -> "subprocess.Popen[bytes]":
    own = options.pop("environment", {})
    assert isinstance(own, dict)
    settings: dict[str, object] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE} | options
    command = [sys.executable, "-m", "virnucpro_assets.cli.main", *words]
    return subprocess.Popen(command, env=site.platform.environment | own, cwd=ROOT, **settings)  # type: ignore[call-overload, no-any-return]


def closed_output(site: Site, words: Sequence[str]) -> tuple[int, str]:
    return _finish(_start(site, words, preexec_fn=lambda: os.close(1)))


def closed_streams(site: Site, words: Sequence[str]) -> tuple[int, str]:
    def close() -> None:
        for handle in range(3):
            os.close(handle)

    process = _start(site, words, preexec_fn=close, stdin=None, stderr=None)
    return process.wait(TIMEOUT), ""


def reader_gone(site: Site, words: Sequence[str]) -> tuple[int, str]:
    """`| head -1`, and nobody reads the errors either."""
    process = _start(site, words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return _finish(process)


def reader_never_there(site: Site, words: Sequence[str]) -> tuple[int, str]:
    read, write = os.pipe()
    os.close(read)
    process = _start(site, words, stdout=write, stderr=write)
    os.close(write)
    return process.wait(TIMEOUT), ""


def full_disk(site: Site, words: Sequence[str]) -> tuple[int, str]:
    """It is said; and only what the results do not lie elsewhere of has failed."""
    with Path("/dev/full").open("wb") as full:
        code, said = _finish(_start(site, words, stdout=full))
    if os.strerror(errno.ENOSPC) not in said:
        return code, f"says nothing of the full disk: {said}"
    return (0 if code == (0 if "--out" in words else 3) else code), ""


def ascii_only(site: Site, words: Sequence[str]) -> tuple[int, str]:
    return _in_encoding(site, words, "ascii")


def latin_1(site: Site, words: Sequence[str]) -> tuple[int, str]:
    return _in_encoding(site, words, "latin-1")


def _in_encoding(site: Site, words: Sequence[str], encoding: str) -> tuple[int, str]:
    process = _start(site, words, stdout=subprocess.PIPE, environment={"PYTHONIOENCODING": encoding})
    out, said = process.communicate(timeout=TIMEOUT)
    if process.returncode == 0 and "--out" in words and LONG.encode() not in out:
        return 1, f"the whole id is not shown: {out!r}"
    return process.returncode, said.decode(errors="replace")


def one_column(site: Site, words: Sequence[str]) -> tuple[int, str]:
    return _on_terminal(site, words, columns=1)


def no_columns(site: Site, words: Sequence[str]) -> tuple[int, str]:
    return _on_terminal(site, words, columns=0)


def closed_terminal(site: Site, words: Sequence[str]) -> tuple[int, str]:
    """Under nohup, as its window is closed."""
    return _on_terminal(site, words, columns=80, bytes_read=1)


def _on_terminal(
    site: Site, words: Sequence[str], *, columns: int, bytes_read: int = 10**9
) -> tuple[int, str]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = _start(
        site,
        words,
        stdin=slave,
        stdout=slave,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        environment={"TERM": "xterm"},
    )
    os.close(slave)

    def read() -> None:
        left = bytes_read
        with contextlib.suppress(OSError):  # the other end is closed
            while left > 0 and (data := os.read(master, 4096)):
                left -= len(data)
        os.close(master)

    reader = threading.Thread(target=read)
    reader.start()
    code, said = _finish(process)
    reader.join(TIMEOUT)
    return code, said


def not_blocking(site: Site, words: Sequence[str]) -> tuple[int, str]:
    """A pipe that another program has made so, with a slow reader."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    process = _start(site, words, stdout=write)
    os.close(write)

    def drain() -> None:
        while os.read(read, 512):
            time.sleep(0.001)
        os.close(read)

    reader = threading.Thread(target=drain)
    reader.start()
    code, said = _finish(process)
    reader.join(TIMEOUT)
    return code, said


ODD: tuple[Odd, ...] = (
    *(closed_output, closed_streams, reader_gone, reader_never_there, full_disk, ascii_only, latin_1),
    *(one_column, no_columns, closed_terminal, not_blocking),
)


@campaign("terminal", share=1)
def terminal(task: Task) -> Sequence[Row]:
    """Every kind once with a prediction and with each quick command, whatever the time."""
    return terminal_points(task, ODD, ODD)


def terminal_points(task: Task, predicting: Sequence[Odd], asking: Sequence[Odd]) -> Sequence[Row]:
    """These kinds, with a prediction and with the quick commands."""
    began, row, site = time.monotonic(), Row("closed and odd terminals"), Site(task.folder / "terminal")
    site.begin()
    reads = write_reads(site.folder / "réads.fa")
    reads.write_text(f">{LONG}\nACGTACGTAC\n" + reads.read_text())
    reference: dict[str, bytes] = {}
    for odd in predicting:
        row.points += 1
        out = site.folder / f"out-{odd.__name__}"
        words = (
            "predict",
            str(reads),
            "--profile",
            "demo",
            "--chunk-size",
            "300",
            "--gpus",
            "1",
            "--out",
            str(out),
        )
        problems = list(_judge(odd, site, words))
        found = {f.name: f.read_bytes() for f in out.glob("*")}
        reference = reference or found
        if not found or found != reference:
            row.lost += 1
            problems.append("the results are not those of the others")
        _count(row, f"{odd.__name__}: predict", problems)
    for odd in asking:
        for words in QUICK:
            row.points += 1
            _count(row, f"{odd.__name__}: {' '.join(words)}", list(_judge(odd, site, words)))
    row.seconds = time.monotonic() - began
    row.note = ", ".join(odd.__name__.replace("_", " ") for odd in dict.fromkeys((*predicting, *asking)))
    return (row,)


def _judge(odd: Odd, site: Site, words: Sequence[str]) -> Iterator[str]:
    code, said = odd(site, words)
    if code:
        yield f"exit {code}"
    # Progress is printed on standard error too.
    wrong = [line for line in said.splitlines() if line.startswith(("virnucpro: ", "Traceback", "says "))]
    if wrong:
        yield f"said {wrong[-3:]!r}"


def _count(row: Row, what: str, problems: list[str]) -> None:
    row.tracebacks += any("Traceback" in problem for problem in problems)
    row.wrong += len(problems)
    row.findings += [f"{what}: {problem}" for problem in problems]
