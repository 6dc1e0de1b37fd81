"""Whether a stream shows escape codes: colours, bold letters, and bars that are redrawn in place."""

from typing import TextIO

from virnucpro_assets.platform.environment import variable

# Values of TERM for terminals that know no escape codes.
DUMB = ("dumb", "unknown")


def shows_escapes(stream: TextIO) -> bool:
    """True for a terminal, unless NO_COLOR has a value or TERM says that it knows no escape codes."""
    return stream.isatty() and not variable("NO_COLOR") and variable("TERM").lower() not in DUMB
