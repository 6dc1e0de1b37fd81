"""Which settings exclude each other, or are of no use, and which one holds if several places give it.

What is of no use is about settings that a person gives for these samples. The configuration file and the environment
may hold settings that some samples make no use of.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from virnucpro_core.errors import UsageError, VirnucproError
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.sequences.formats import format_of

# Pairs that cannot be used together. `calibration` is meant if it is "none".
_EXCLUSIVE = (("calibration", "preset"), ("calibration", "prior"), ("cutoff", "preset"))


def layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of all layers; each layer is above those before it. None means not given.

    A setting also removes what it excludes from the layers beneath: `cutoff` of an option removes `preset` of a file.
    """
    found: dict[str, Any] = {}
    for layer in layers:
        given = {name: value for name, value in layer.items() if value is not None}
        beneath = {name: value for name, value in found.items() if not _excluded(name, value, given)}
        found = beneath | given
    return found


def _excluded(name: str, value: Any, given: Mapping[str, Any]) -> bool:
    """Whether one of the given settings excludes this one. What they exclude among themselves does not count."""
    for other, its in given.items():
        try:
            check_exclusive({name: value} | {other: its})
        except UsageError:
            return True
    return False


def _as_option(name: str, value: Any) -> str:
    if name == "preset":
        return f"--{value}"
    return f"--{name}{' none' if name == 'calibration' else ''}"


def check_exclusive(given: Mapping[str, Any], spelt: Callable[[str, Any], str] = _as_option) -> None:
    """Raises UsageError for two settings that cannot be used together. None means not given.

    spelt: how a setting and its value are written there; as options if it is not given.
    """
    has = {name for name in ("cutoff", "prior") if given.get(name) is not None}
    has |= {"preset"} if given.get("preset") else set()
    has |= {"calibration"} if given.get("calibration") == "none" else set()
    for pair in _EXCLUSIVE:
        if has.issuperset(pair):
            one, other = (spelt(name, given[name]) for name in pair)
            raise UsageError(f"{one} and {other} cannot be used together", remedy="give one of them")


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
