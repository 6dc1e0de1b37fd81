"""Which of many things are the same, told by 16-byte digests; flat memory, 16 bytes a thing and no objects.

Knows digests; knows nothing of the things. With 128 bits of BLAKE2b equal digests mean equal things (10
million things collide by chance with a probability below 1e-24), so nothing is compared again.
"""

from collections.abc import Callable, Iterable
from hashlib import blake2b

import numpy as np

from virnucpro_core.files.columns import Array

SIZE = 16


class Identities:
    """Digests of things in the order they were added."""

    def __init__(self) -> None:
        self._digests = bytearray()

    def __len__(self) -> int:
        return len(self._digests) // SIZE

    def add(self, thing: bytes) -> None:
        """Append the digest of `thing`."""
        self._digests += blake2b(thing, digest_size=SIZE).digest()

    def extend(self, things: Iterable[bytes]) -> None:
        """Append the digests of many things."""
        self._digests += b"".join([blake2b(thing, digest_size=SIZE).digest() for thing in things])

    @property
    def digests(self) -> Array:
        """(n, 16) uint8, a copy."""
        return np.frombuffer(self._digests, np.uint8).reshape(-1, SIZE).copy()

    def first(self) -> Array:
        """For each thing the number of the first one equal to it, (n,) int64; about 60 bytes a thing."""
        keys = np.frombuffer(self._digests, np.uint64).reshape(-1, 2)
        order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: equal things stay in the order they came
        is_new = np.ones(len(keys), np.bool_)
        for half in (0, 1):
            key = keys[order, half]
            changes = key[1:] != key[:-1]
            is_new[1:] = changes if half == 0 else is_new[1:] | changes
        first = np.empty(len(keys), np.int64)
        first[order] = order[np.flatnonzero(is_new)][np.cumsum(is_new) - 1]
        return first

    def lookup(self) -> Callable[[bytes], bool]:
        """A test whether a thing was added, by half a digest: it may say yes for a new thing, once in
        1e12."""
        heads = np.sort(np.frombuffer(self._digests, np.uint64)[::2])

        def is_known(thing: bytes) -> bool:
            head = np.frombuffer(blake2b(thing, digest_size=SIZE).digest(), np.uint64)[0]
            at = int(np.searchsorted(heads, head))
            return at < len(heads) and bool(heads[at] == head)

        return is_known
