"""The console of the commands: it writes no escape code where none is wanted."""

import sys

from rich.console import Console

from virnucpro_assets.platform.escapes import shows_escapes


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console on standard output or error. width: in columns; None for that of the terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        highlight=False,
        width=width,
        force_terminal=stream.isatty(),
        color_system="auto" if shows_escapes(stream) else None,
    )
