"""Labelled sequences: which records are virus, which are others, and which belong to one group.

Labels come from the files (virus, others) or from a table with the columns `id`, `label` and, if wanted, `group`. A
group is what must not be divided between training and test: the pieces of one genome, the runs of one experiment.
Without a group a record is its own group; without a table two mates are one. Groups that contain the same sequence,
on either strand, are joined.
"""

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.errors import InputError, UsageError, printable
from virnucpro_core.files.publish import publish
from virnucpro_core.sequences.fasta import Record, read_records
from virnucpro_core.sequences.names import in_order

LABELS = ("others", "virus")
LEAST_PIECE = 6
DIGEST_BYTES = 8
_COLUMNS = ("id", "label", "group")
_COMPLEMENT = bytes.maketrans(b"ACGTRYSWKMBDHVN", b"TGCAYRSWMKVHDBN")
_TABLE_REMEDY = (
    "give a table with tabs between its columns: a header line `id label` or `id label group`,"
    " then a line for each record"
)


@dataclass(frozen=True, slots=True)
class Truth:
    """Label and group of a record. `label` is an index into LABELS: 0 others, 1 virus."""

    label: int
    group: str


@dataclass(frozen=True, slots=True)
class Examined:
    """What is known of labelled sequences after reading them once.

    truth: by id, in order. lengths: bases of these records, (n,), 0 for those that cannot be called. longest: bases of
    the longest record that can be called, of others and of virus. digests: the first DIGEST_BYTES bytes of
    `sequence_digest` of each record with letters, (n,) uint64.
    """

    truth: dict[str, Truth]
    lengths: NDArray[np.int64]
    longest: tuple[int, int]
    digests: NDArray[np.uint64]

    def check_lengths(self, lengths: Sequence[int]) -> None:
        """Raises UsageError for lengths (bases) of pieces that cannot be cut or read."""
        most, both = max(self.longest), min(self.longest)
        allowed = f"give {LEAST_PIECE:,} to {most:,}"
        if both < most:
            allowed += f", at least one of them at most {both:,}"
        for length in lengths:
            if length < LEAST_PIECE:
                raise UsageError(
                    f"--lengths {length}: pieces of fewer than {LEAST_PIECE} bases are no chunks",
                    remedy=f"{allowed}; below about 100 bases there is little to judge",
                )
            if length > most:
                raise UsageError(
                    f"--lengths {length}: no record is as long, the longest has {most:,} bases",
                    remedy=allowed,
                )
        if lengths and min(lengths) > both:
            words = LABELS[self.longest.index(both)]
            raise UsageError(
                f"no {words} record is as long as {min(lengths):,} bases; the longest has {both:,}",
                remedy=allowed,
            )


@dataclass(frozen=True, slots=True)
class LabelledInput:
    """Files whose records are labelled: either `virus` and `others`, or `fasta` with the table `labels`.

    Raises UsageError if it is neither, or a mixture, or one is a pipe: they are read more than once.
    """

    virus: tuple[Path, ...] = ()
    others: tuple[Path, ...] = ()
    fasta: tuple[Path, ...] = ()
    labels: Path | None = None

    def __post_init__(self) -> None:
        by_file = [name for name in ("virus", "others") if getattr(self, name)]
        by_table = [word for word, value in (("FASTA", self.fasta), ("--labels", self.labels)) if value]
        if by_file and by_table:
            options = " and ".join(f"--{name}" for name in by_file)
            what = f"{options} label whole files, so {' and '.join(by_table)} cannot be given as well"
        elif len(by_file) == 1:
            what = f"--{'others' if by_file == ['virus'] else 'virus'} is missing"
        elif len(by_table) == 1:
            what = "FASTA has no labels" if self.fasta else "--labels has no FASTA"
        elif not by_table and not by_file:
            what = "labelled sequences are needed"
        else:
            self._check_regular()
            return
        raise UsageError(what, remedy="give --virus FASTA --others FASTA, or FASTA --labels TABLE")

    def _check_regular(self) -> None:
        tables = () if self.labels is None else (self.labels,)
        ways = {"--virus": self.virus, "--others": self.others, "FASTA": self.fasta, "--labels": tables}
        for option, paths in ways.items():
            for path in paths:
                if path.exists() and not path.is_file():
                    what = f"{option} is read more than once, and {path} is a pipe or no regular file"
                    raise UsageError(what, remedy="write it to a file first, and give that")

    @property
    def files(self) -> list[Path]:
        """All sequence files, in the order in which a sample reads them."""
        return in_order([*self.virus, *self.others, *self.fasta])

    def truth(self) -> dict[str, Truth]:
        """Label and group of every record by its id, in the order of `files`. Raises what `examined` raises."""
        return self.examined().truth

    def examined(self) -> "Examined":
        """Read all records. Raises InputError.

        A record without a line in the table, and a line without a record, are errors. So is a sequence with both
        labels.
        """
        files = self.files
        table = None if self.labels is None else read_labels(self.labels)
        found: dict[str, Truth] = {}
        joined, digests, longest, lengths = _Joined(), bytearray(), [0, 0], []
        for record in read_records(files, remedy="make ids unique"):
            truth = self._truth(record, files, table)
            found[record.id] = truth
            if record.sequence:
                digest = sequence_digest(record.sequence)
                joined.add(digest, record, truth, files[record.file])
                digests += digest[:DIGEST_BYTES]
            lengths.append(0 if record.reason else len(record.sequence))
            if not record.reason:
                longest[truth.label] = max(longest[truth.label], len(record.sequence))
        if (
            table is not None
            and (extra := next((name for name in table if name not in found), None)) is not None
        ):
            raise InputError(
                "this id is in the table, but no sequence has it",
                path=self.labels or "",
                record=extra,
                remedy="take the line out of the table, or give the file with the sequence",
            )
        return Examined(
            {name: Truth(truth.label, joined.name(truth.group)) for name, truth in found.items()},
            np.array(lengths, np.int64),
            (longest[0], longest[1]),
            np.frombuffer(digests, "<u8").astype(np.uint64),
        )

    def _truth(self, record: Record, files: Sequence[Path], table: dict[str, Truth] | None) -> Truth:
        if table is None:
            group = record.id[:-2] if record.id.endswith(("/1", "/2")) else record.id
            return Truth(int(files[record.file] in self.virus), group)
        if record.id not in table:
            raise InputError(
                f"no line in {self.labels} has this id",
                path=files[record.file],
                record=record.id,
                remedy="add the record's label to the table, or leave the record out",
            )
        return table[record.id]


def read_labels(path: Path) -> dict[str, Truth]:
    """id -> label and group from a tab-separated table. Raises InputError with the line."""
    found: dict[str, Truth] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            header = next(rows, [])
            if header not in (list(_COLUMNS[:2]), list(_COLUMNS)):
                said = printable(" ".join(header)[:80])
                raise InputError(f"the first line is '{said}'", path=path, line=1, remedy=_TABLE_REMEDY)
            for number, row in enumerate(rows, 2):
                if not row:  # a blank line
                    continue
                if (
                    len(row) != len(header)
                    or row[1] not in LABELS
                    or not all(row)
                    or printable(row[-1]) != row[-1]
                ):
                    said = printable("\t".join(row)[:80])
                    raise InputError(
                        f"'{said}' is not an id, a label (virus or others)"
                        + (" and a group" if len(header) == 3 else ""),
                        path=path,
                        line=number,
                        remedy=_TABLE_REMEDY,
                    )
                if row[0] in found:
                    raise InputError(
                        "this id is in the table twice",
                        path=path,
                        record=row[0],
                        line=number,
                        remedy="leave one line",
                    )
                found[row[0]] = Truth(LABELS.index(row[1]), row[2] if len(header) == 3 else row[0])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        what = getattr(error, "strerror", None) or "not a table in UTF-8"
        raise InputError(f"cannot be read: {what}", path=path, remedy=_TABLE_REMEDY) from error
    return found


def sequence_digest(letters: bytes) -> bytes:
    """sha256 of a sequence in upper case, the same for both strands."""
    letters = letters.upper()
    return hashlib.sha256(min(letters, letters.translate(_COMPLEMENT)[::-1])).digest()


class _Joined:
    """Groups that are joined because they contain the same sequence (union-find by name)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._seen: dict[bytes, tuple[str, Truth]] = {}

    def add(self, digest: bytes, record: Record, truth: Truth, file: Path) -> None:
        name, known = self._seen.setdefault(digest, (record.id, truth))
        if known.label != truth.label:
            raise InputError(
                f"the same sequence is {LABELS[known.label]} as '{printable(name)}' and {LABELS[truth.label]} here",
                path=file,
                record=record.id,
                remedy="leave out the record with the wrong label",
            )
        one, other = self.name(known.group), self.name(truth.group)
        if one != other:
            self._parent[other] = one

    def name(self, group: str) -> str:
        while group in self._parent:
            group = self._parent[group]
        return group


def write_pieces(
    labelled: LabelledInput,
    truth: dict[str, Truth],
    lengths: Sequence[int],
    out: Path,
    *,
    check: Callable[[Path], None] = lambda _: None,
) -> dict[str, Truth]:
    """Cut every record into pieces of each length, write them as FASTA to `out`, and return their labels and groups.

    lengths: in bases. The pieces of one length do not overlap. A rest that is shorter is left out; so is a record
    that is shorter than the length. A piece is called `{record}:{first base}-{last base}`, from 1. check: called
    with the complete file before it gets its name; an error that it raises keeps what is at `out`. Raises UsageError if
    a class has no piece.
    """
    pieces: dict[str, Truth] = {}
    with publish(out) as temporary, temporary.open("wb") as stream:
        for record in read_records(labelled.files):
            for name, letters in pieces_of(record, lengths):
                pieces[name] = truth[record.id]
                stream.write(b">%b\n%b\n" % (name.encode(), letters))
        for label, words in enumerate(LABELS):
            if not any(one.label == label for one in pieces.values()):
                raise UsageError(
                    f"no {words} record is as long as {min(lengths):,} bases", remedy="give smaller --lengths"
                )
        stream.flush()
        check(temporary)
    return pieces


def pieces_of(record: Record, lengths: Sequence[int]) -> Iterator[tuple[str, bytes]]:
    """Name and letters of the pieces of a record, as `write_pieces` writes them."""
    if record.reason:
        return
    for length in sorted(set(lengths)):
        for start in range(0, len(record.sequence) - length + 1, length):
            yield f"{record.id}:{start + 1}-{start + length}", record.sequence[start : start + length]


def divide_groups(
    groups: Sequence[str],
    labels: NDArray[np.int64],
    sizes: NDArray[np.int64],
    shares: Sequence[float],
    seed: int,
) -> NDArray[np.int64]:
    """The part of each record, (n,) int64: 1, 2, ... for the `shares`, 0 for the rest. No group is in two parts.

    groups, labels (n,), sizes (n,): group, label (0 others, 1 virus) and bases of each record. shares: the part of
    the bases of each class that each part should have. In an order that the seed shuffles, a part takes the groups
    that fit into what is left of its share, or the smallest one if none fits; so every part has at least one group of
    each class. A group with both labels counts for both classes. Raises UsageError if a class has fewer groups than
    there are parts.
    """
    names, number = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    bases_GL = np.zeros((len(names), len(LABELS)), np.int64)
    np.add.at(bases_GL, (number, labels), np.maximum(sizes, 1))
    part_G = np.full(len(names), -1, np.int64)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(names))
    for label, words in enumerate(LABELS):
        mine = [g for g in order.tolist() if bases_GL[g, label]]
        if len(mine) <= len(shares):
            raise UsageError(
                f"class {words} has {len(mine)} group(s); {len(shares) + 1} or more are needed, so that"
                " each part of the data has one of its own",
                remedy="give more genomes; the column `group` of --labels says what belongs together",
            )
        for part, share in enumerate(shares, 1):
            _fill(part_G, mine, bases_GL[:, label], (part, share, len(shares) - part + 1))
            free = [g for g in mine if part_G[g] < 0]
            if free and not (part_G[mine] == part).any():
                part_G[min(free, key=bases_GL[:, label].__getitem__)] = part
    part_G = np.maximum(part_G, 0)
    for part in range(len(shares) + 1):
        for label, words in enumerate(LABELS):
            if not bases_GL[part_G == part, label].any():
                raise UsageError(
                    f"one part of the data would have no group of {words}: too many groups have both labels",
                    remedy="give more groups with one label",
                )
    return part_G[number]


def _fill(
    part_G: NDArray[np.int64], mine: list[int], bases_G: NDArray[np.int64], wanted: tuple[int, float, int]
) -> None:
    """Give free groups among `mine` to a part, as long as they fit into its share of all bases.

    wanted: the part, its share, and how many free groups must be left for later parts and the rest.
    """
    part, share, reserved = wanted
    left = share * float(bases_G[mine].sum()) - float(bases_G[[g for g in mine if part_G[g] == part]].sum())
    free = [g for g in mine if part_G[g] < 0]
    for g in free[: max(0, len(free) - reserved)]:
        if bases_G[g] <= left:
            part_G[g], left = part, left - float(bases_G[g])
