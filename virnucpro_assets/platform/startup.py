"""Quick and safe starts: how a process imports what it keeps until it ends. Knows nothing of what is imported."""

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path

from virnucpro_core.interrupts import signals_held


def import_nothing_from_here() -> None:
    """No Python that this process starts, itself or by a library, imports from the folder where the user stands.

    Such are loader workers and their server, and all that `dagster dev` consists of.
    """
    os.environ["PYTHONSAFEPATH"] = "1"


def stand_in(folder: Path) -> None:
    """Change to the folder, for `dagster` programs that this process becomes: they import from where they are started.

    While Dagster loads a module it leaves out the first entry of the path, which is the folder of its own script. With
    PYTHONSAFEPATH that one is not there, and PYTHONPATH's first would be left out.
    """
    os.chdir(folder)
    if others := os.environ.get("PYTHONPATH"):
        os.environ["PYTHONPATH"] = os.pathsep.join((str(folder), others))


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
