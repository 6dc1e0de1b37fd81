"""What the name of one file says: its suffix, its sample, its lane, which mate it is. Opens no file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FASTQ_SUFFIXES = (".fastq", ".fq")
_FASTA_SUFFIXES = (".fasta", ".fa", ".fna", ".ffn", ".fas", ".fsa")
ALIGNED_SUFFIXES = (".bam", ".cram")
_SUFFIXES = (*_FASTA_SUFFIXES, *FASTQ_SUFFIXES, *ALIGNED_SUFFIXES, ".gb", ".gbk", ".gbff", ".genbank")
PACKED_SUFFIXES = (".gz", ".bgz", ".bgzf", ".bz2", ".xz", ".zst", ".zstd")
# How a name says which mate a file has, most certain first; group 1 is the mate. Only the first kind is said by nothing
# but mates. Kinds from the first of _UNCERTAIN on count only if there are files with both.
_MATES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?:^|(?<=[._-]))R([12])(?=[._-]|$)",
        r"(?:^|(?<=[._-]))(?:read|mate)([12])(?=[._-]|$)",
        r"(?:^|(?<=[._-]))(forward|reverse|fwd|rev)(?=[._-]|$)",
        r"(?<=[._-])([12])P(?=[._-]|$)",  # Trimmomatic
        r"(?<=[._-])([12])_val_\1$",  # Trim Galore
        r"(?<=[._-])([12])$",
        r"(?<=[._-])(f1|r2)(?=[._-]|$)",
        r"(?<=[._-])(f|r)$",
        r"(?<=[._-])([12])(?=[._-])",
    )
)
_UNCERTAIN = _MATES[-3:]
_MATE_WORDS = {"forward": 1, "fwd": 1, "f1": 1, "f": 1, "reverse": 2, "rev": 2, "r2": 2, "r": 2}
# bcl2fastq and BCL Convert: sample, sample number, lane, read (I: index), part. Programs may add more, as Trim Galore's
# `_val_1`.
_ILLUMINA = re.compile(
    r"(?P<sample>.+?)(?P<library>_S\d+)?(?P<lane>_L\d{3})?[._](?P<read>[RrIi])(?P<mate>[12])(?P<part>_\d{3})?"
    r"(?P<rest>(?!.*[._-][RrIi][12](?:[._-]|$))[._-].*)?"
)
_NUMBER_AT_THE_END = re.compile(r"(?:_val)?[._-]([12])$")


@dataclass(frozen=True, slots=True)
class Mark:
    """What the name of a FASTQ file says. `library`: equal for all files of a sample. `unit`: equal for two mates.

    level: how certain, 0 for most. lane: that of a sequencer's run, "" for none. is_alone_said: whether a file without
    its mate is worth a word.
    """

    sample: str
    library: tuple[Path, str]
    unit: tuple[Path, str]
    mate: int
    by_lane: bool
    is_index: bool
    is_alone_said: bool = True
    level: int = 0
    lane: str = ""


def stem_of(path: Path) -> tuple[str, str]:
    """Name without suffixes, and the suffix of the sequence format, or ""."""
    name = path.name
    for suffix in PACKED_SUFFIXES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def mark_of(path: Path) -> Mark | None:
    """What the name of a FASTQ file says by itself; None if it says nothing."""
    marks = _readings(path)
    if not marks or not marks[0].by_lane:
        return marks[0] if marks else None
    own = [mark for mark in marks if mark.level < _LEVEL_OF_ONE_READ]
    return own[-1]


def read_names(paths: Sequence[Path]) -> tuple[dict[Path, Mark | None], dict[Path, Mark]]:
    """What the name of each file says, and the same of those that have their mate among `paths`.

    A name may be read in several ways: `a_R1_1.fq` is a mate of `a_R2_1.fq` or else of `a_R1_2.fq`. The most certain
    way in which there are two mates counts.
    """
    readings = {path: _readings(path) for path in paths}
    paired: dict[Path, Mark] = {}
    for level in sorted({mark.level for marks in readings.values() for mark in marks}):
        units: dict[tuple[Path, str], list[tuple[Path, Mark]]] = {}
        for path, marks in readings.items():
            for mark in marks:
                if mark.level == level and not mark.is_index and path not in paired:
                    units.setdefault(mark.unit, []).append((path, mark))
        for found in units.values():
            if sorted(mark.mate for _, mark in found) == [1, 2] and found[0][0] != found[1][0]:
                paired |= dict(found)
    return {path: paired.get(path) or mark_of(path) for path in paths}, paired


def _readings(path: Path) -> list[Mark]:
    """All that the name of a FASTQ file may say, the most certain first; empty if it says nothing."""
    stem, suffix = stem_of(path)
    if suffix not in FASTQ_SUFFIXES:
        return []
    ending = path.name[len(stem) :]
    lane = _ILLUMINA.fullmatch(stem)
    if lane and (lane["library"] or lane["lane"] or lane["part"]):
        return _of_a_run(path, lane, ending)
    return [
        _marked(path, stem, ending, match, level)
        for level, pattern in enumerate(_MATES)
        for match in reversed(list(pattern.finditer(stem)))
    ]


# In `_of_a_run`: from this level on, both mates were made of one file of the sequencer.
_LEVEL_OF_ONE_READ = 2


def _of_a_run(path: Path, lane: re.Match[str], ending: str) -> list[Mark]:
    """A number at the end of a sequencer's name is a part, or the mate once more, or a mate that a program has made."""
    mate, rest = int(lane["mate"]), lane["rest"] or ""
    last = _NUMBER_AT_THE_END.search(rest)
    short = rest[: last.start()] if last else rest

    def mark(name: str, unit: str, mate: int, level: int) -> Mark:
        library = f"{lane['sample']}{lane['library'] or ''}{name}/"
        return Mark(
            sample=lane["sample"] + name,
            library=(path.parent, library),
            unit=(path.parent, f"{library}{lane['lane'] or ''}{lane['part'] or ''}/{unit}{ending}"),
            mate=mate,
            by_lane=True,
            is_index=lane["read"] in "Ii",
            level=level,
            lane=lane["lane"] or "",
        )

    found = [mark("" if re.fullmatch(r"[._-]\d+", rest) else rest, rest, mate, 0)]
    if last is not None:
        if int(last[1]) == mate:
            found.append(mark(short, "", mate, 1))
        found.append(mark(short, f"R{mate}", int(last[1]), _LEVEL_OF_ONE_READ))
    return found


def _marked(path: Path, stem: str, ending: str, match: re.Match[str], level: int) -> Mark:
    """What a name says that has such a mark of the mate. A name of nothing else is that of its folder."""
    before, after = stem[: match.start()], stem[match.end() :]
    mate = _MATE_WORDS.get(match[1].lower()) or int(match[1])
    token = re.sub(r"[12]", "?", match[0]) if match[1].isdecimal() else "?"
    unit = (path.parent, f"{before}{token}{after}/{ending}")
    sample = re.sub(r"[._-]{2,}", lambda run: run[0][0], before + after).strip("._-")
    sample = sample or path.resolve().parent.name or stem
    said = _MATES[level] not in _UNCERTAIN
    return Mark(sample, unit, unit, mate, by_lane=False, is_index=False, is_alone_said=said, level=level)
