"""Finds equal byte strings among many by their 16-byte digests; needs 16 bytes of memory for each.

Equal 128-bit BLAKE2b digests are taken as equal strings, and the strings are not compared: for 10 million strings
the probability of a collision is below 1e-24.
"""

from collections.abc import Callable, Iterable
from hashlib import blake2b

import numpy as np

from virnucpro_core.files.columns import Array

SIZE = 16


def digests_of(things: Iterable[bytes]) -> bytes:
    """The digests of many byte strings, SIZE bytes each, one after the other."""
    return b"".join([blake2b(thing, digest_size=SIZE).digest() for thing in things])


class Identities:
    """The digests of byte strings ("things"), in the order they were added."""

    def __init__(self) -> None:
        self._digests = bytearray()

    def __len__(self) -> int:
        return len(self._digests) // SIZE

    def add(self, thing: bytes) -> None:
        """Append the digest of `thing`."""
        self._digests += blake2b(thing, digest_size=SIZE).digest()

    def extend_digests(self, digests: bytes) -> None:
        """Append digests that `digests_of` computed."""
        self._digests += digests

    def append(self, others: "Identities") -> None:
        """Append the things of another collection."""
        self._digests += others._digests

    @property
    def digests(self) -> Array:
        """(n, 16) uint8, a copy."""
        return np.frombuffer(self._digests, np.uint8).reshape(-1, SIZE).copy()

    def first(self) -> Array:
        """For each thing the index of the first equal one, (n,) int64. Needs about 60 bytes of memory for each."""
        keys = np.frombuffer(self._digests, np.uint64).reshape(-1, 2)
        order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: equal things keep their order
        is_new = np.ones(len(keys), np.bool_)
        for half in (0, 1):
            key = keys[order, half]
            changes = key[1:] != key[:-1]
            is_new[1:] = changes if half == 0 else is_new[1:] | changes
        first = np.empty(len(keys), np.int64)
        first[order] = order[np.flatnonzero(is_new)][np.cumsum(is_new) - 1]
        return first

    def lookup(self) -> Callable[[bytes], bool]:
        """A function that tests whether a thing was added. It compares half a digest: 1 wrong yes in 1e12 calls."""
        heads = np.sort(np.frombuffer(self._digests, np.uint64)[::2])

        def is_known(thing: bytes) -> bool:
            head = np.frombuffer(blake2b(thing, digest_size=SIZE).digest(), np.uint64)[0]
            at = int(np.searchsorted(heads, head))
            return at < len(heads) and bool(heads[at] == head)

        return is_known
