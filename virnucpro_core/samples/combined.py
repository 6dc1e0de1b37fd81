"""Which settings exclude each other, or are of no use: the rules that the command line and the sample sheet share.

They are about settings that a person gives for these samples. The configuration file may hold settings that some
samples make no use of.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from virnucpro_core.errors import UsageError, VirnucproError
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.sequences.formats import format_of


def check_exclusive(given: Mapping[str, Any]) -> None:
    """Raises UsageError for two settings that cannot be used together, spelt as options. None means not given."""
    names = [f"--{given['preset']}"] if given.get("preset") else []
    if given.get("calibration") == "none":
        other = names or (["--prior"] if given.get("prior") is not None else [])
        refused = ["--calibration none", *other]
    else:
        refused = ["--cutoff", *names] if given.get("cutoff") is not None else []
    if len(refused) > 1:
        raise UsageError(f"{refused[0]} and {refused[1]} cannot be used together", remedy="give one of them")


def check_of_use(given: Mapping[str, Any], samples: Sequence[tuple[SampleSettings, Sequence[Path]]]) -> None:
    """Raises UsageError for a setting that none of these samples can make use of. None means not given.

    samples: the settings and files of each.
    """
    if not samples:
        return
    if given.get("min_open") is not None and not any(settings.open_length for settings, _ in samples):
        raise UsageError(
            "--min-open is for open frames", remedy="give --frames open as well, or leave it out"
        )
    if given.get("pairs") == "both" and not any(_may_have_pairs(files) for _, files in samples):
        what = "--pairs both is for reads, and FASTA and GenBank have no pairs"
        raise UsageError(what, remedy="leave out --pairs, or give FASTQ, BAM or CRAM")


def check_open_frames(settings: SampleSettings) -> None:
    """Raises UsageError for a least length of open frames that no frame of these chunks can have."""
    if settings.open_length > settings.chunk_size // 3:
        what = f"min_open is {settings.open_length} amino acids"
        most = f"chunks of {settings.chunk_size} bases have at most {settings.chunk_size // 3}"
        raise UsageError(f"{what}, and {most}", remedy="give a smaller --min-open")


def _may_have_pairs(files: Sequence[Path]) -> bool:
    """Whether a file has reads. A file that cannot be read may have some: another check says what is wrong with it."""
    for file in files:
        try:
            if format_of(file) in ("fastq", "aligned"):
                return True
        except (VirnucproError, OSError):
            return True
    return False
