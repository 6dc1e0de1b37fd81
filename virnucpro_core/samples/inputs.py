"""Find, check and hash the sequence files of a sample. Reads their bytes, not their records."""

import errno
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from virnucpro_core.errors import InputError, StoreError, UsageError, printable
from virnucpro_core.files.digests import sha256_json, sha256_once
from virnucpro_core.files.folders import folders_below
from virnucpro_core.sequences.archives import stat_regular
from virnucpro_core.sequences.formats import GIVE
from virnucpro_core.sequences.names import in_order, looks_like_sequence_file

# Files that are hashed at the same time; hashing one overlaps with reading another.
_DIGESTED_AT_ONCE = 4
# Of a folder of results, complete or not, and of a home folder.
_OWN_FILES = ("run.json", "contigs.tsv", "names.lock")
# Permanent errors, which another try cannot change: the file does not exist, or its path is invalid.
_LASTING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL)

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class InputFile:
    """One sequence file as it was when the sample was registered.

    sha256: hex, or "" as long as the complete file has not been read. mtime_ns: modification time in nanoseconds since
    1970, or None for samples that an earlier version registered. Neither is compared by `==`.
    """

    path: Path
    bytes: int
    sha256: str = field(default="", compare=False)
    mtime_ns: int | None = field(default=None, compare=False)


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The paths, with each folder replaced by its sequence files at any depth. Hidden ones are left out.

    Also left out are folders that this software writes: results, and its home. Raises InputError for a folder without
    any sequence file, and for subfolders that cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        inside = (
            [file for file in _files_below(path) if looks_like_sequence_file(file)]
            if path.is_dir()
            else [path]
        )
        if not inside:
            others = ignored_in([path])
            names = ", ".join(printable(other.name) for other in others[:_SHOWN])
            more = f" and {len(others) - _SHOWN:,} more" if len(others) > _SHOWN else ""
            what = "no FASTA or FASTQ file in this folder" + (f"; it holds {names}{more}" if others else "")
            zipped = any(other.suffix.lower() in (".zip", ".tar", ".7z", ".tgz", ".rar") for other in others)
            remedy = "unpack the archive" if zipped else "give a folder that holds some"
            raise InputError(what, path=path, remedy=remedy)
        found += inside
    return found


def ignored_in(paths: Sequence[Path]) -> list[Path]:
    """The files in the folders among `paths` that `files_of` leaves out, other than hidden ones."""
    inside = [file for path in paths if path.is_dir() for file in _files_below(path)]
    return [file for file in inside if not (looks_like_sequence_file(file) or file.name.startswith("."))]


def _files_below(folder: Path) -> list[Path]:
    """The files of the folder, then those of each subfolder, by name. Links to folders are not followed."""
    places = folders_below(folder, hidden=False, enter=_is_of_user)
    return [here / name for here, _, names in places for name in names]


def _is_of_user(folder: Path) -> bool:
    """Whether the folder neither holds results of this software, nor is a home folder."""
    return not any((folder / name).exists() for name in _OWN_FILES)


def check_inputs(paths: Sequence[Path]) -> None:
    """Raises InputError for the first path that is not a regular file."""
    for path in paths:
        if not path.exists():
            raise InputError("no such file", path=path, remedy="check the path")
        if not path.is_file():
            raise InputError("not a regular file", path=path, remedy=f"{GIVE} files")


def look_at_inputs(paths: Sequence[Path]) -> tuple[InputFile, ...]:
    """Sizes and times of the files, in the given order.

    Reads no file: `sha256` is "". Raises InputError for a path that is not a regular file, or that is given twice.
    """
    check_inputs(paths)
    files = []
    for path in in_order(paths):
        status = stat_regular(path)
        files.append(InputFile(path.resolve(), status.st_size, mtime_ns=status.st_mtime_ns))
    return tuple(files)


def digest_inputs(paths: Sequence[Path]) -> tuple[InputFile, ...]:
    """`look_at_inputs` with the sha256 of every file. The files are read completely, several at the same time.

    Raises InputError for a path that is not a readable regular file, UsageError for two files with the same bytes.
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
    """The files with the sha256 of each. Files without one are read now.

    Raises InputError for a file that is missing or has changed since its registration, StoreError for one that cannot
    be read at this moment.
    """
    with ThreadPoolExecutor(_DIGESTED_AT_ONCE) as pool:
        return tuple(pool.map(_read, files))


def _read(file: InputFile) -> InputFile:
    if file.sha256:
        return file
    try:
        check_unchanged(file)
        digest = sha256_once(file.path)
        check_unchanged(file)
    except (OSError, InputError) as error:
        refused = passing_error(error)
        if refused is not None:
            raise StoreError(
                refused.strerror or str(refused), where=file.path, remedy="check its permissions and the disk"
            ) from error
        if isinstance(error, InputError):
            raise
        raise InputError(error.strerror or str(error), path=file.path) from error
    return replace(file, sha256=digest)


def check_unchanged(file: InputFile) -> None:
    """Raises InputError if size or time differ from those at the registration, or if it is not a regular file."""
    found = stat_regular(file.path)
    if found.st_size != file.bytes or (file.mtime_ns is not None and found.st_mtime_ns != file.mtime_ns):
        raise InputError("changed since the sample was registered", path=file.path, remedy="predict it again")


def passing_error(error: BaseException) -> OSError | None:
    """The OSError behind `error` (itself or its cause) if it is temporary: a later try may succeed. Else None.

    Temporary: missing read permission, an error of the disk or the file server. Not temporary: a file that does not
    exist, and a decompressor's OSError, which has no errno.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno and seen.errno not in _LASTING:
            return seen
        seen = seen.__cause__
    return None


def equal_files(files: Sequence[InputFile]) -> list[InputFile]:
    """Files that hold the same bytes as an earlier one in the list."""
    seen: set[str] = set()
    return [f for f in files if f.sha256 in seen or seen.add(f.sha256)]  # type: ignore[func-returns-value]


def content_digest(files: Sequence[InputFile]) -> str:
    """sha256 over the files' digests; "" if one of the files has not been read yet.

    The digests are taken in the order of the file names, so that the order in which files were given does not matter.
    """
    named = sorted(files, key=lambda f: (f.path.name, str(f.path)))
    return sha256_json([f.sha256 for f in named]) if all(f.sha256 for f in files) else ""


def is_same_file(one: InputFile, other: InputFile) -> bool:
    """Whether path, size and time are equal. A missing time (samples of an earlier version) equals any time."""
    times = {f.mtime_ns for f in (one, other)} - {None}
    return one == other and len(times) < 2
