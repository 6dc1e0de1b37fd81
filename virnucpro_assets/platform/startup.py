"""Makes imports safe and fast: not from the current folder, not cut short by a signal, without garbage collection."""

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path

from virnucpro_core.interrupts import signals_held


def import_nothing_from_here() -> None:
    """Keep all Python child processes from importing modules from the current folder.

    Such children are the loader processes, the workers and the processes of the web UI. Entries of PYTHONPATH that mean
    the current folder are removed when this package is imported (`virnucpro_assets/__init__.py`).
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
    """Import inside this block what the process needs until it ends: garbage collection is off, and signals wait.

    torch and Dagster create a million objects that live as long as the process. A search for garbage among them takes a
    quarter of the import's time, and the same again when the process ends. Signals wait because torch's C++ code calls
    Python while it is imported: an exception from a signal handler there aborts the process.
    """
    gc.disable()
    try:
        with signals_held():
            yield
    finally:
        gc.freeze()
        gc.enable()
