"""Quick and safe starts: how a process imports what it keeps until it ends. Knows nothing of what is imported."""

import contextlib
import gc
from collections.abc import Iterator

from virnucpro_core.interrupts import signals_held


@contextlib.contextmanager
def lasting_imports() -> Iterator[None]:
    """Imports inside the block are the garbage collector's business neither now nor later, and no signal cuts them.

    torch and Dagster make a million objects that live as long as the process: to look for garbage among them
    takes a quarter of the time that their import takes, and as long again when the process ends. An exception that a
    signal's handler raises while torch's C++ calls Python, as it does when it is imported, aborts the process.
    """
    gc.disable()
    try:
        with signals_held():
            yield
    finally:
        gc.freeze()
        gc.enable()
