"""Collects the faults of a sample sheet, so that all of them are told at once, each with its rows and its sample."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from virnucpro_core.errors import UsageError, VirnucproError
from virnucpro_core.samples.settings import SampleSettings

_SHOWN = 5
_SETTINGS = SampleSettings.__dataclass_fields__
_FLAGS = {"--conservative": "preset conservative", "--relaxed": "preset relaxed"}


class SheetError(UsageError):
    """A sample sheet with faults. `faults`: a line for each, with its row."""

    def __init__(self, path: Path, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        count = "one fault" if len(faults) == 1 else f"{len(faults):,} faults"
        first = "" if len(faults) > 1 else f": {faults[0]}"
        super().__init__(f"{count} in the sample sheet{first}", where=path, remedy="nothing was begun")


class SheetFaults:
    """The faults of one command. Without a sheet (`path` is None) each error is raised at once instead.

    The same fault in several rows is told once, with all of these rows.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._found: dict[str, dict[int, str]] = {}
        self._general: VirnucproError | None = None

    def add(self, rows: Sequence[int], what: str, sample: str = "") -> None:
        """Note a fault of these rows (lines of the sheet, from 1)."""
        self._found.setdefault(what, {}).update(dict.fromkeys(rows, sample))

    def concern(self, rows: Sequence[int]) -> bool:
        """Whether a fault of one of these rows is known."""
        return any(row in lines for lines in self._found.values() for row in rows)

    @contextlib.contextmanager
    def of(self, sample: str, rows: Sequence[int], *, is_own: bool = True) -> Iterator[None]:
        """Note an error with exit code 2 inside the block as a fault of this sample; raise any other.

        is_own: False if nothing in these rows can be its cause. Then the error is told as it is, after the others.
        """
        try:
            yield
        except VirnucproError as error:
            if self.path is None or error.exit_code != 2:
                raise
            if is_own:
                self.add(rows, in_a_sheet(str(error)), sample)
            else:
                self._general = self._general or error

    def tell(self) -> None:
        """Raises SheetError with all faults, in the order of the rows."""
        if self._found and self.path is not None:
            told = sorted((min(lines), _rows_in_words(lines), what) for what, lines in self._found.items())
            lines = [f"{rows}: {what}" for _, rows, what in told]
            if self._general is not None:
                lines.append(f"all rows: {self._general}")
            raise SheetError(self.path, lines)
        if self._general is not None:
            raise self._general


def in_a_sheet(text: str) -> str:
    """An error's text with the names that settings have in a sheet: `--min-open` is `min_open` there."""

    def named(option: re.Match[str]) -> str:
        name = option[0][2:].replace("-", "_")
        return name if name in _SETTINGS else _FLAGS.get(option[0], option[0])

    return re.sub(r"--[a-z][a-z-]*", named, text)


def _rows_in_words(lines: dict[int, str]) -> str:
    """`row 2 (pat1)`, or `rows 2, 3 and 7 (pat1, pat2)`."""
    rows, names = sorted(lines), [name for name in dict.fromkeys(lines[k] for k in sorted(lines)) if name]
    shown = [str(row) for row in rows[:_SHOWN]]
    more = len(rows) - len(shown)
    last = f" and {more:,} more" if more else f" and {shown.pop()}" if len(shown) > 1 else ""
    own = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(shown)}{last}{f' ({own})' if own else ''}"
