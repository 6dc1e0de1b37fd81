"""The lock on a sample's folder: shared by all who make products, exclusive for who changes or deletes them.

Knows the lock files below `locks/`; knows nothing of what the work is.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from virnucpro_core.files.locks import is_locked, locked

LOCKS, WHOLE, DRIVER = "locks", "sample.lock", "driver.lock"
# Of whoever registers the name: it is held around `exclusive_lock`.
REGISTRATION = "registration.lock"


@contextlib.contextmanager
def shared_lock(folder: Path) -> Iterator[None]:
    """Hold the sample's folder with others; waits while somebody has the exclusive lock."""
    busy = f"sample {folder.name!r} is being changed or cleaned up"
    with locked(folder / LOCKS / WHOLE, busy=busy, wait=True, shared=True):
        yield


@contextlib.contextmanager
def exclusive_lock(folder: Path, busy: str) -> Iterator[None]:
    """Hold the sample's folder alone. Raises StoreError, which begins with `busy` and names the holder.

    The locks of single products are asked first: unlike the shared one they know who holds them.
    """
    locks = folder / LOCKS
    named = {locks / DRIVER, *locks.glob("*.lock")} - {locks / WHOLE, locks / REGISTRATION}
    with contextlib.ExitStack() as held:
        for path in (*sorted(named), locks / WHOLE):
            held.enter_context(locked(path, busy=busy))
        yield


def workers(folder: Path) -> dict[str, str]:
    """What is being worked on at this moment (`driver`, `chunks`, `esm_embeddings-0`, ...) and by whom."""
    found = {}
    for lock in (folder / LOCKS).glob("*.lock"):
        if lock.name != WHOLE and is_locked(lock):
            found[lock.stem] = lock.read_text(encoding="utf-8", errors="replace").strip()
    return dict(sorted(found.items()))
