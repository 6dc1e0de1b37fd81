"""A pretended terminal: what a program prints to it can be read, and the program takes it for a real one."""

import contextlib
import os
import pty
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True, slots=True)
class Terminal:
    """stream: the terminal as a program has it."""

    stream: TextIO
    _screen: int

    def printed(self) -> str:
        """All that was printed, up to some thousand bytes."""
        self.stream.flush()
        os.write(self.stream.fileno(), b"\0")  # so that there is something to read
        said = b""
        while not said.endswith(b"\0"):
            said += os.read(self._screen, 1 << 16)
        return said[:-1].decode()


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    """Yields a new terminal. What is printed must fit in the buffer of the system, 4 KiB."""
    screen, own = pty.openpty()
    with os.fdopen(screen, "rb", buffering=0), os.fdopen(own, "w") as stream:
        yield Terminal(stream, screen)
