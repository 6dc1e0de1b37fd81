"""Takes the colours out of what this process and its children print, unless a terminal shows it."""

import os
import re
import sys
import threading

from virnucpro_assets.platform.escapes import shows_escapes

COLOURS = re.compile(rb"\x1b\[[0-9;]*m")


def print_plainly() -> None:
    """From now on, standard output and error go through a filter, also those of child processes started later.

    Dagster colours its log lines even in files. A terminal keeps them, unless NO_COLOR or TERM=dumb is set.
    """
    for stream in (sys.stdout, sys.stderr):
        handle = stream.fileno()
        if shows_escapes(stream):
            continue
        stream.flush()
        target = os.dup(handle)
        read, write = os.pipe()
        os.dup2(write, handle)
        os.close(write)
        threading.Thread(target=_copy, args=(read, target), daemon=True).start()


def _copy(source: int, target: int) -> None:
    with os.fdopen(source, "rb") as lines, os.fdopen(target, "wb", buffering=0) as out:
        for line in lines:
            out.write(COLOURS.sub(b"", line))
