"""Errors with a place and a remedy; each is one line for the person who sees it.

`str(error)` reads `where: what; how to mend it`. The command line prints that line and exits with the
class's `exit_code`; a traceback appears only with `--debug`.
"""

from pathlib import Path


class VirnucproError(Exception):
    """Base of everything that is raised on purpose. `exit_code` is the command line's."""

    exit_code = 3

    def __init__(self, what: str, *, where: str | Path = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, str(where), remedy
        super().__init__(one_line(self.where, what, remedy))


class InputError(VirnucproError):
    """A file of the user cannot be read as what it should be."""

    exit_code = 2

    def __init__(
        self, what: str, *, path: str | Path, record: str = "", line: int | None = None, remedy: str = ""
    ) -> None:
        self.path, self.record, self.line = Path(path), record, line
        place = [str(path)]
        if record:
            place.append(f"record {record[:80]!r}")
        if line is not None:
            place.append(f"line {line:,}")
        super().__init__(what, where=", ".join(place), remedy=remedy)


class IncompleteError(InputError):
    """A file that ends before its content does: it was cut, or somebody is still writing it."""


class UsageError(VirnucproError):
    """What was asked for cannot be done as asked."""

    exit_code = 2


class SequenceError(UsageError):
    """A sequence that has no embedding. `sequence` counts from 0, and so does `letter`, a place in it."""

    def __init__(self, what: str, *, sequence: int, letter: int | None = None, remedy: str = "") -> None:
        self.sequence, self.letter = sequence, letter
        super().__init__(what, where=f"sequence {sequence}", remedy=remedy)


class WeightsError(VirnucproError):
    """Model files are missing, damaged or do not fit together."""

    exit_code = 2


class DeviceError(VirnucproError):
    """A device, kernel or precision that was asked for is not there; nothing is substituted."""

    exit_code = 2


class DeviceLostError(DeviceError):
    """A device, or this process's use of it, broke while it computed. A new process can go on; this one cannot.

    The exit code is between a lane and its driver alone: people see 3.
    """

    exit_code = 4


class StoreError(VirnucproError):
    """A product on disk is damaged, or the disk refused it."""


def one_line(where: str, what: str, remedy: str) -> str:
    """`where: what; remedy`, without line breaks or control characters (ids come from files)."""
    text = f"{where}: {what}" if where else what
    text = f"{text}; {remedy}" if remedy else text
    return printable(text)


def printable(text: str) -> str:
    """Text with line breaks, control characters and undecodable bytes of file names as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
