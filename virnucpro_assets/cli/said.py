"""How much a command prints, and where. Imports little, so that commands stay fast."""

import sys
from dataclasses import dataclass

from virnucpro_core.errors import UsageError, printable


@dataclass(frozen=True, slots=True)
class Said:
    """How much a command prints. quiet: only errors. verbose: also how each lane computed. as_json: for programs."""

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for options that exclude each other."""
        if self.quiet and self.verbose:
            raise UsageError("--quiet and --verbose cannot be used together", remedy="give one of them")

    def note(self, line: str) -> None:
        """Print a line for a person on standard error. It is neither an error nor a warning."""
        if not self.quiet:
            sys.stderr.write(f"{printable(line)}\n")
