"""The sequence files that a sample is made of: found, looked at, digested. Reads their bytes, not their records."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from virnucpro_core.errors import InputError, UsageError
from virnucpro_core.files.digests import sha256_file, sha256_json
from virnucpro_core.sequences.names import looks_like_sequence_file


@dataclass(frozen=True, slots=True)
class InputFile:
    """One sequence file as it was when the sample was registered."""

    path: Path
    bytes: int
    sha256: str


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The paths, each folder replaced by the sequence files in it. Raises InputError for a folder without any."""
    found: list[Path] = []
    for path in paths:
        inside = (
            [f for f in sorted(path.iterdir()) if f.is_file() and looks_like_sequence_file(f)]
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


def digest_inputs(paths: Sequence[Path]) -> tuple[InputFile, ...]:
    """Sizes and sha256 of the files, sorted by file name so that the order they are given in is no matter.

    Raises InputError for what is not a readable regular file.
    """
    files = []
    check_inputs(paths)
    for path in sorted(paths, key=lambda p: (p.name, str(p))):
        try:
            files.append(InputFile(path.resolve(), path.stat().st_size, sha256_file(path)))
        except OSError as error:
            raise InputError(
                f"cannot be read: {error.strerror}", path=path, remedy="check its permissions"
            ) from error
    if len({f.sha256 for f in files}) < len(files):
        raise UsageError(
            "two input files hold the same bytes", where=files[0].path, remedy="give each file once"
        )
    return tuple(files)


def content_digest(inputs: Sequence[InputFile]) -> str:
    """sha256 over the files' digests, in name order."""
    return sha256_json([f.sha256 for f in inputs])
