"""The project's errors: each says in one line what is wrong, where, and how to fix it.

`str(error)` is `where: what; remedy`. The command line prints that line and exits with the class's `exit_code`;
it shows a traceback only with `--debug`.
"""

import re
from pathlib import Path

# `-`, a pipe of the shell, and the copy of either in the home folder (`samples/standard_input.py`).
_STREAM = re.compile(r"-|/dev/(stdin|fd/\d+)|/proc/.+/fd/.+|(.*/)?standard_input/[0-9a-f]{64}")


class VirnucproError(Exception):
    """Base class of all errors that this project raises. `exit_code` is the exit code of the command line."""

    exit_code = 3

    def __init__(self, what: str, *, where: str | Path = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, str(where), remedy
        super().__init__(one_line(self.where, what, remedy))

    def add(self, said: str) -> None:
        """Say this, too, at the end of the line."""
        self.remedy = "; ".join(filter(None, (self.remedy, said)))
        self.args = (one_line(self.where, self.what, self.remedy),)


class InputError(VirnucproError):
    """A file of the user cannot be read, or does not have the expected content."""

    exit_code = 2

    def __init__(
        self, what: str, *, path: str | Path, record: str = "", line: int | None = None, remedy: str = ""
    ) -> None:
        self.path, self.record, self.line = Path(path), record, line
        place = [shown_path(path)]
        if record:
            place.append(f"record {record[:80]!r}")
        if line is not None:
            place.append(f"line {line:,}")
        super().__init__(what, where=", ".join(place), remedy=remedy)


class IncompleteError(InputError):
    """A file ends too early: it was cut off, or it is still being written."""


class EmptyFileError(IncompleteError):
    """A file without any content, such as the reads of a negative control."""


class UsageError(VirnucproError):
    """A request that cannot be fulfilled: wrong options, arguments or settings."""

    exit_code = 2


class SequenceError(UsageError):
    """A sequence that has no embedding. `sequence` is its index, `letter` the position in it; both count from 0."""

    def __init__(self, what: str, *, sequence: int, letter: int | None = None, remedy: str = "") -> None:
        self.sequence, self.letter = sequence, letter
        super().__init__(what, where=f"sequence {sequence}", remedy=remedy)


class WeightsError(VirnucproError):
    """Model files are missing, damaged or do not fit together."""

    exit_code = 2


class DeviceError(VirnucproError):
    """The requested device, kernel or precision is not available. No other is used instead."""

    exit_code = 2


class DeviceLostError(DeviceError):
    """A device failed while it computed, and this process cannot use it any more. A new process can continue the work.

    A lane returns this exit code to the process that started it. Users see exit code 3.
    """

    exit_code = 4


class StoreError(VirnucproError):
    """A product on disk is missing or damaged, or the disk reported an error."""


def shown_path(path: str | Path) -> str:
    """The path as a person gave it: `standard input` for what came through a pipe."""
    return "standard input" if _STREAM.fullmatch(str(path)) else str(path)


def shown_name(path: Path) -> str:
    """The name of a file, printable: `standard input` for what came through a pipe."""
    return printable(Path(shown_path(path)).name)


def one_line(where: str, what: str, remedy: str) -> str:
    """`where: what; remedy` with line breaks and control characters escaped, since ids come from files."""
    text = f"{where}: {what}" if where else what
    text = f"{text}; {remedy}" if remedy else text
    return printable(text)


def printable(text: str) -> str:
    """Text with line breaks, control characters and undecodable bytes of file names escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
