"""Groups files into samples by their names: suffixes, sample names, mates, order. Opens no file."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from virnucpro_core.errors import InputError, UsageError

_FASTQ_SUFFIXES = (".fastq", ".fq")
_SUFFIXES = (".fasta", ".fa", ".fna", ".ffn", ".fas", ".fsa", *_FASTQ_SUFFIXES)
_PACKED_SUFFIXES = (".gz", ".bgz", ".bgzf", ".bz2", ".xz", ".zst", ".zstd")
_MATE = re.compile(r"(?<=[._-])[Rr]([12])(?=[._-]|$)(?!.*[._-][Rr][12](?:[._-]|$))|(?<=[._-])([12])$")


def in_order(paths: Sequence[Path]) -> list[Path]:
    """The files of a sample sorted by name. Raises UsageError if there is none, InputError if one is given twice."""
    if not paths:
        raise UsageError("no input file")
    files = sorted(paths, key=lambda path: (path.name, str(path)))
    seen: set[Path] = set()
    for path in files:
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
            raise InputError("a link that leads nowhere", path=path, remedy="give the file itself") from error
        if resolved in seen:
            raise InputError("the same file is given twice", path=path, remedy="give it once")
        seen.add(resolved)
    return files


def mates(paths: Sequence[Path]) -> list[int]:
    """For each file: 1 or 2 if another file is its mate, else 0.

    Mates have a FASTQ suffix, and their names differ only in R1 and R2, or in a 1 and 2 at the end.
    """
    keys = [_mate_key(path) for path in paths]
    present = set(keys)
    return [key[1] if key and (key[0], 3 - key[1]) in present else 0 for key in keys]


def named_as_mate(path: Path) -> bool:
    """Whether the name of a FASTQ file says that it is one of two mates."""
    return _mate_key(path) is not None


def sample_name(path: Path, *, is_mate: bool = False) -> str:
    """The sample name of a file: the file name without suffixes, and for a mate without R1 or R2.

    Characters other than `[A-Za-z0-9_-]` become `_`; at most 64 characters. Raises InputError if the file name
    consists of suffixes only.
    """
    stem = _stem(path)[0]
    if is_mate:
        stem = re.sub(r"[._-]{2,}", lambda run: run[0][0], _MATE.sub("", stem)).rstrip("._-") or stem
    if not stem:
        raise InputError("no name before the suffix", path=path, remedy="rename the file")
    return re.sub(r"[^A-Za-z0-9_-]", "_", stem)[:64]


def names_of(path: Path) -> list[str]:
    """The names that people give to the files beside this one: without suffixes, and for a mate without R1 or R2."""
    stem = _stem(path)[0]
    bare = re.sub(r"[._-]{2,}", lambda run: run[0][0], _MATE.sub("", stem)).rstrip("._-")
    return [name for name in dict.fromkeys((bare, stem)) if name]


def group_samples(paths: Sequence[Path]) -> list[tuple[str, list[Path]]]:
    """Samples as (name, files), sorted by name. Two mates are one sample, every other file is a sample of its own.

    Samples of equal names get the names of their folders before it: `A_contigs`, `B_contigs`; in one folder, their
    suffixes after it: `a_fa`, `a_fq`. Raises UsageError if there is no file, or if two names are still equal.
    """
    groups = join_mates(in_order(paths))
    places = Counter((name, own[0].parent) for name, own in groups)
    groups = [
        (name if places[name, own[0].parent] == 1 else with_suffix(name, own[0]), own) for name, own in groups
    ]
    for level in range(max(len(path.resolve().parts) for path in paths)):
        names = Counter(name for name, _ in groups)
        if len(names) == len(groups):
            break
        groups = [
            (name if names[name] == 1 else with_folder(name, own[0], level), own) for name, own in groups
        ]
    taken: dict[str, Path] = {}
    for name, group in groups:
        if name in taken:
            what = f"makes the sample {name!r}, and so does {taken[name]}"
            raise UsageError(what, where=group[0], remedy="rename one of the files")
        taken[name] = group[0]
    return sorted(groups)


def with_suffix(name: str, file: Path) -> str:
    """The name with the suffixes of the file after it: `a_fq`, `a_fq_gz`. At most 64 characters."""
    suffixes = file.name[len(_stem(file)[0]) :].strip(".")
    after = re.sub(r"[^A-Za-z0-9_-]", "_", suffixes)
    return f"{name[: 63 - len(after)]}_{after}" if after else name


def with_folder(name: str, file: Path, level: int) -> str:
    """The name with that of a folder of the file before it: level 0 is the folder it lies in. At most 64 characters."""
    folders = file.resolve().parents
    folder = folders[level].name if level < len(folders) else ""
    before = re.sub(r"[^A-Za-z0-9_-]", "_", folder)
    return f"{before}_{name}"[:64] if before and len(before) + len(name) < 64 else name


def join_mates(files: Sequence[Path]) -> list[tuple[str, list[Path]]]:
    """As `group_samples`, but without its errors: names may repeat, and `files` may be empty."""
    groups: dict[object, tuple[str, list[Path]]] = {}
    for path, mate in zip(files, mates(files), strict=True):
        key = _mate_key(path)
        name = sample_name(path, is_mate=mate > 0)
        groups.setdefault(key[0] if key and mate else path, (name, []))[1].append(path)
    return sorted(groups.values())


def looks_like_sequence_file(path: Path) -> bool:
    """Whether the suffix is that of a FASTA or FASTQ file, compressed or not, and the file is not hidden."""
    return _stem(path)[1] != "" and not path.name.startswith(".")


def is_packed(path: Path) -> bool:
    """Whether the suffix is that of a compressed file."""
    return path.name.lower().endswith(_PACKED_SUFFIXES)


def _stem(path: Path) -> tuple[str, str]:
    """Name without suffixes, and the suffix of the sequence format, or ""."""
    name = path.name
    for suffix in _PACKED_SUFFIXES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def _mate_key(path: Path) -> tuple[tuple[Path, str], int] | None:
    """A key that two mates share, and 1 or 2 for the mate that this file is; None if the name is not a mate's."""
    stem, suffix = _stem(path)
    match = _MATE.search(stem)
    if suffix not in _FASTQ_SUFFIXES or not match:
        return None
    token = match[0][:-1] + "?"
    rest = path.name[len(stem) :]
    return (path.parent, stem[: match.start()] + token + stem[match.end() :] + rest), int(
        match[1] or match[2]
    )
