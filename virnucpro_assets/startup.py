"""Quick starts: how a process imports what it keeps until it ends. Knows nothing of what is imported."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def lasting_imports() -> Iterator[None]:
    """Imports inside the block are the garbage collector's business neither now nor later.

    torch and Dagster make a million objects that live as long as the process: to look for garbage among them
    takes a quarter of the time that their import takes, and as long again when the process ends.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
