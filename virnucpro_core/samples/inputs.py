"""The sequence files that a sample is made of: found, looked at, digested. Reads their bytes, not their records."""

import errno
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from virnucpro_core.errors import InputError, StoreError, UsageError
from virnucpro_core.files.digests import sha256_file, sha256_json
from virnucpro_core.sequences.archives import stat_regular
from virnucpro_core.sequences.names import looks_like_sequence_file

# Files that are digested at a time; hashlib and the disk work beside each other.
_DIGESTED_AT_ONCE = 4
# What stays as it is however often one asks: the file is not there, or its path makes no sense.
_LASTING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL)


@dataclass(frozen=True, slots=True)
class InputFile:
    """One sequence file as it was when the sample was registered.

    sha256: hex, or "" while nobody has read the file as a whole. mtime_ns: modification time in nanoseconds since
    1970, or None for samples that an earlier version registered. Neither takes part in comparisons.
    """

    path: Path
    bytes: int
    sha256: str = field(default="", compare=False)
    mtime_ns: int | None = field(default=None, compare=False)


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The paths, each folder replaced by the sequence files in it. Raises InputError for a folder without any."""
    found: list[Path] = []
    for path in paths:
        inside = (
            [f for f in sorted(path.iterdir()) if not f.is_dir() and looks_like_sequence_file(f)]
            if path.is_dir()
            else [path]
        )
        if not inside:
            raise InputError(
                "no FASTA or FASTQ file in this folder", path=path, remedy="give a folder that holds some"
            )
        found += inside
    return found


def check_inputs(paths: Sequence[Path]) -> None:
    """Raises InputError for the first path that is not a regular file."""
    for path in paths:
        if not path.exists():
            raise InputError("no such file", path=path, remedy="check the path")
        if not path.is_file():
            raise InputError("not a regular file", path=path, remedy="give FASTA or FASTQ files")


def look_at_inputs(paths: Sequence[Path]) -> tuple[InputFile, ...]:
    """Sizes and times of the files, sorted by file name so that the order they are given in is no matter.

    Reads no file: `sha256` is "". Raises InputError for what is not a regular file.
    """
    check_inputs(paths)
    files = []
    for path in sorted(paths, key=lambda p: (p.name, str(p))):
        status = stat_regular(path)
        files.append(InputFile(path.resolve(), status.st_size, mtime_ns=status.st_mtime_ns))
    return tuple(files)


def digest_inputs(paths: Sequence[Path]) -> tuple[InputFile, ...]:
    """`look_at_inputs`, and the sha256 of every file, which are read whole and beside each other.

    Raises InputError for what is not a readable regular file, UsageError for two files of the same bytes.
    """
    try:
        files = read_inputs(look_at_inputs(paths))
    except StoreError as error:
        remedy = "check its permissions and the disk"
        raise InputError(f"cannot be read: {error.what}", path=error.where, remedy=remedy) from error
    same = equal_files(files)
    if same:
        raise UsageError(
            "two input files hold the same bytes", where=same[0].path, remedy="give each file once"
        )
    return files


def read_inputs(files: Sequence[InputFile]) -> tuple[InputFile, ...]:
    """The files with the sha256 of each, those read that have none yet.

    Raises InputError for a file that is gone, or not as it was registered, StoreError for one that cannot be read at
    this moment.
    """
    with ThreadPoolExecutor(_DIGESTED_AT_ONCE) as pool:
        return tuple(pool.map(_read, files))


def _read(file: InputFile) -> InputFile:
    if file.sha256:
        return file
    try:
        check_unchanged(file)
        digest = sha256_file(file.path)
        check_unchanged(file)
    except (OSError, InputError) as error:
        refused = passing_error(error)
        if refused is not None:
            raise StoreError(
                refused.strerror or str(refused), where=file.path, remedy="check its rights and the disk"
            ) from error
        if isinstance(error, InputError):
            raise
        raise InputError(error.strerror or str(error), path=file.path) from error
    return replace(file, sha256=digest)


def check_unchanged(file: InputFile) -> None:
    """Raises InputError if size or time differ from those at the registration, or the file is no regular one."""
    found = stat_regular(file.path)
    if found.st_size != file.bytes or (file.mtime_ns is not None and found.st_mtime_ns != file.mtime_ns):
        raise InputError("changed since the sample was registered", path=file.path, remedy="predict it anew")


def passing_error(error: BaseException) -> OSError | None:
    """What the system refused, if `error` is that, or was caused by it, and it may go well another time.

    A file without read permission, a disk or server that answers with an error; not a file that is not there, and not
    a decompressor's OSError, which has no number.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno and seen.errno not in _LASTING:
            return seen
        seen = seen.__cause__
    return None


def equal_files(files: Sequence[InputFile]) -> list[InputFile]:
    """Files that hold the same bytes as one before them."""
    seen: set[str] = set()
    return [f for f in files if f.sha256 in seen or seen.add(f.sha256)]  # type: ignore[func-returns-value]


def content_digest(files: Sequence[InputFile]) -> str:
    """sha256 over the files' digests, in name order; "" while one of them has not been read."""
    return sha256_json([f.sha256 for f in files]) if all(f.sha256 for f in files) else ""


def is_same_file(one: InputFile, other: InputFile) -> bool:
    """Whether path, size and time agree; a time that an earlier version did not note agrees with any."""
    times = {f.mtime_ns for f in (one, other)} - {None}
    return one == other and len(times) < 2
