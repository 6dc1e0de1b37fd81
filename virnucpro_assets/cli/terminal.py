"""Standard streams that nothing can stop: the work goes on, and ends as it would have, whatever becomes of them.

A stream that was closed before the program began, a reader that has gone away (`| head -1`), a terminal that was
closed, a full disk behind `>`, an encoding that lacks a letter. Knows nothing of what is written.
"""

import errno
import io
import os
import select
import sys
from typing import Any, TextIO

STDOUT, STDERR = 1, 2
# Nobody is there to read any more: that is no fault.
GONE = (errno.EPIPE, errno.EIO, errno.EBADF)


class _Sink(io.RawIOBase):
    """A file descriptor for writing. Once it cannot be written, all that is written to it is dropped."""

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
            except BlockingIOError:  # another program that shares the terminal has made it so
                select.select([], [self._handle], [])
            except OSError as error:
                self.error = error
                nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
                os.dup2(nowhere, self._handle)
                os.close(nowhere)
                return len(memoryview(data).cast("B"))


def harden() -> None:
    """Make this process's standard streams such; those that somebody has put in their place are left alone."""
    _fill_closed()
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a number, and for good
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _stream(STDOUT, sys.stdout, line_buffering=os.isatty(STDOUT))
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _stream(STDERR, sys.stderr, line_buffering=True)


def lost_output() -> str:
    """Why the standard output could not be written; "" if it could, or nobody was there to read it."""
    sys.stdout.flush()
    sink = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    error = sink.error if isinstance(sink, _Sink) else None
    return "" if error is None or error.errno in GONE else error.strerror or str(error)


def _fill_closed() -> None:
    """A closed descriptor would be given to the next file that is opened, and what is printed end up in that."""
    for handle in (0, STDOUT, STDERR):
        try:
            os.fstat(handle)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != handle:
                os.dup2(nowhere, handle)
                os.close(nowhere)
            os.set_inheritable(handle, True)  # noqa: FBT003 - as the other two are


def _stream(handle: int, old: TextIO | None, *, line_buffering: bool) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(_Sink(handle)),
        encoding=old.encoding if old is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=line_buffering,
    )
