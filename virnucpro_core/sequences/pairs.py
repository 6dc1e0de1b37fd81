"""Mates: which files of a sample belong together, and whether the ids of two reads say that they are one pair.

Two files are mates if their names say so (R1 and R2), or if their first reads have the same id. The ids of all their
reads must agree, record by record.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from virnucpro_core.errors import InputError
from virnucpro_core.sequences.names import name_pairs, named_as_read

_CASAVA = re.compile(r"([12]):[YN]:\d+(:|$)")
_RENAMED = re.compile(r"(.*)/[12](_[0-9]+)", re.DOTALL)
_SLASHED, _DOTTED = ("/1", "/2"), (".1", ".2")
REPAIR = (
    "put both files in the same order (for example with `seqkit pair`), or predict each alone with --sample"
)


@dataclass(frozen=True, slots=True)
class Header:
    """Id and description of a read."""

    id: str
    description: str = ""

    @property
    def mate(self) -> int:
        """1 or 2 if the header says which mate this is (`/1`, or CASAVA's ` 1:N:0:`), else 0."""
        if self.id.endswith(_SLASHED):
            return int(self.id[-1])
        marked = _CASAVA.match(self.description)
        return int(marked[1]) if marked else 0


def agree(one: Header, two: Header) -> bool:
    """Whether the headers may be those of mates 1 and 2: the same id but for `/1` and `/2`, or `.1` and `.2` of SRA."""
    if one.mate == 2 or two.mate == 1:
        return False
    return _bare(one.id) == _bare(two.id) or _dotted(one.id, two.id)


def pair_id(one: str, two: str) -> str:
    """The id that mates 1 and 2 of a sample share: without `/1` and `/2`, and without `.1` and `.2` of SRA.

    `r/1_2` and `r/2_2`, which `--duplicates rename` makes, share `r_2`.
    """
    if _bare(one) == _bare(two):
        return _bare(one)
    (stem, suffix), (other, other_suffix) = _parted(one), _parted(two)
    if suffix == other_suffix and _dotted(stem, other):
        return stem[:-2] + suffix
    return stem + suffix if (stem, suffix) == (other, other_suffix) else _bare(one)


def files_in_pairs(files: Sequence[Path], heads: Sequence[Header | None]) -> list[tuple[int, int]]:
    """Indices of the files that are mates, (mate 1, mate 2). `heads`: first read of each FASTQ file, None for others.

    Names decide first, then the first reads of files that follow each other. Raises InputError if files are named R1
    and R2 and their first reads do not agree; a 1 and 2 at the end may be any numbers.
    """
    pairs = []
    for i, j in name_pairs(files):
        one, two = heads[i], heads[j]
        if one is None or two is None:
            continue
        if agree(one, two):
            pairs.append((i, j))
        elif named_as_read(files[i]):
            raise disagreement(files[i], files[j], one, two)
    taken = {k for pair in pairs for k in pair}
    rest = [k for k, head in enumerate(heads) if head is not None and k not in taken]
    while len(rest) > 1:
        i, j = rest[0], rest[1]
        one, two = heads[i], heads[j]
        assert one is not None
        assert two is not None
        if agree(one, two):
            pairs.append((i, j))
        elif agree(two, one):
            pairs.append((j, i))
        else:
            del rest[0]
            continue
        del rest[:2]
    return sorted(pairs)


def disagreement(one: Path, two: Path, first: Header, second: Header, number: int = 1) -> InputError:
    """The error for two files that are given as mates and are not. first, second: their reads of that number."""
    if number == 1 and agree(second, first):
        what = f"R1 and R2 are swapped: this file holds mate 1, and {one} holds mate 2"
        return InputError(
            what, path=two, remedy="exchange their names, or fastq_1 and fastq_2 in a sample sheet"
        )
    if number == 1 and first.mate and first.mate == second.mate and _bare(first.id) == _bare(second.id):
        what = f"not the mate of {one}: both files hold mate {first.mate}"
        return InputError(what, path=two, remedy=f"give the file with mate {3 - first.mate}")
    what = f"not the mate of {one}: read {number:,} is {second.id[:80]!r} here and {first.id[:80]!r} there"
    return InputError(what, path=two, remedy=REPAIR)


class Agreement:
    """Compares the ids of two files of mates while they are read one after the other, in little memory."""

    def __init__(self, one: Path, two: Path, heads: tuple[Header, Header]) -> None:
        self.files = (one, two)
        self._dotted = _bare(heads[0].id) != _bare(heads[1].id)
        self._digests = (hashlib.blake2b(), hashlib.blake2b())
        self._counts = [0, 0]

    def add(self, mate: int, name: str) -> None:
        """Note the id of the next read of mate 1 or 2."""
        self._counts[mate - 1] += 1
        self._digests[mate - 1].update(self._key(name).encode() + b"\n")

    def check(self, ids: Iterable[tuple[str, str]]) -> None:
        """Raises InputError if the files disagree. `ids`: the ids of both files side by side, read again if needed."""
        if self._digests[0].digest() == self._digests[1].digest():
            return
        one, two = self.files
        for number, (first, second) in enumerate(ids, 1):
            if self._key(first) != self._key(second):
                raise disagreement(one, two, Header(first), Header(second), number)
        a, b = self._counts
        raise InputError(f"{b:,} reads, but its mate {one} has {a:,}", path=two, remedy=REPAIR)

    def _key(self, name: str) -> str:
        if self._dotted and name.endswith(_DOTTED):
            return name[:-2]
        return _bare(name)


def _bare(name: str) -> str:
    return name[:-2] if name.endswith(_SLASHED) else name


def _parted(name: str) -> tuple[str, str]:
    """An id of a sample without its `/1` or `/2`, and what `--duplicates rename` has put after it."""
    renamed = _RENAMED.fullmatch(name)
    return (renamed[1], renamed[2]) if renamed else (_bare(name), "")


def _dotted(one: str, two: str) -> bool:
    return (one[-2:], two[-2:]) == _DOTTED and one[:-2] == two[:-2] and "." in one[:-2]
