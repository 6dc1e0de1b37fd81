"""The lock on a sample's folder: shared while products are made, exclusive while they are changed or deleted.

The lock files are in the sample's folder `locks/`.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from virnucpro_core.files.locks import is_locked, locked

LOCKS, WHOLE, DRIVER = "locks", "sample.lock", "driver.lock"
# The lock of the process that registers the name; `exclusive_lock` may be taken while it is held.
REGISTRATION = "registration.lock"


@contextlib.contextmanager
def shared_lock(folder: Path) -> Iterator[None]:
    """Hold the shared lock on the sample's folder. Waits while another process holds the exclusive lock."""
    busy = f"sample {folder.name!r} is being changed or cleaned up"
    with locked(folder / LOCKS / WHOLE, busy=busy, wait=True, shared=True):
        yield


@contextlib.contextmanager
def exclusive_lock(folder: Path, busy: str) -> Iterator[None]:
    """Hold the exclusive lock on the sample's folder.

    Raises StoreError if it is not free; the message begins with `busy` and names the holder. The locks of single
    products are tried first because, unlike the shared lock, they record who holds them.
    """
    locks = folder / LOCKS
    named = {locks / DRIVER, *locks.glob("*.lock")} - {locks / WHOLE, locks / REGISTRATION}
    with contextlib.ExitStack() as held:
        for path in (*sorted(named), locks / WHOLE):
            held.enter_context(locked(path, busy=busy))
        yield


def workers(folder: Path) -> dict[str, str]:
    """The locks held at this moment (`driver`, `chunks`, `esm_embeddings-0`, ...) and who holds each of them."""
    found = {}
    for lock in (folder / LOCKS).glob("*.lock"):
        if lock.name != WHOLE and is_locked(lock):
            found[lock.stem] = lock.read_text(encoding="utf-8", errors="replace").strip()
    return dict(sorted(found.items()))
