"""Makes standard output and error safe: the program goes on and ends normally even if they cannot be written.

The cases are: a stream that was closed before the program started, a reader that ended early (`| head -1`), a closed
terminal, a full disk behind `>`, and an encoding that lacks a character.
"""

import errno
import io
import os
import select
import sys
from typing import Any, TextIO

STDOUT, STDERR = 1, 2
# The reader is gone. That is not an error.
GONE = (errno.EPIPE, errno.EIO, errno.EBADF)


class _Sink(io.RawIOBase):
    """Writes to a file descriptor. After a write error, all further output is dropped."""

    def __init__(self, handle: int) -> None:
        self.error: OSError | None = None
        self._handle = handle

    def fileno(self) -> int:
        return self._handle

    def isatty(self) -> bool:
        return os.isatty(self._handle)

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        while True:
            try:
                return os.write(self._handle, data)
            except BlockingIOError:  # another program has made the shared terminal non-blocking
                select.select([], [self._handle], [])
            except OSError as error:
                self.error = error
                nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
                os.dup2(nowhere, self._handle)
                os.close(nowhere)
                return len(memoryview(data).cast("B"))


def harden() -> None:
    """Make the standard streams of this process safe. Streams that other code has replaced are not changed."""
    _fill_closed()
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a file descriptor, open until the end
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _stream(STDOUT, sys.stdout, line_buffering=os.isatty(STDOUT))
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _stream(STDERR, sys.stderr, line_buffering=True)


def lost_output() -> str:
    """Why standard output could not be written; "" if it could, or if its reader was gone."""
    sys.stdout.flush()
    sink = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    error = sink.error if isinstance(sink, _Sink) else None
    return "" if error is None or error.errno in GONE else error.strerror or str(error)


def _fill_closed() -> None:
    """Open closed standard descriptors on /dev/null. Otherwise the next opened file gets the number, and all output."""
    for handle in (0, STDOUT, STDERR):
        try:
            os.fstat(handle)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != handle:
                os.dup2(nowhere, handle)
                os.close(nowhere)
            os.set_inheritable(handle, True)  # noqa: FBT003 - like the other standard streams


def _stream(handle: int, old: TextIO | None, *, line_buffering: bool) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(_Sink(handle)),
        encoding=old.encoding if old is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=line_buffering,
    )
