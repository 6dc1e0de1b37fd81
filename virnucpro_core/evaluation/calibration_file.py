"""Where a calibration is written: another one is not replaced unasked, and the same command may be repeated.

What a command makes is known before its work (`Made`), so a calibration of another command is refused at once. At the
end the bytes are compared.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from virnucpro_core.errors import UsageError, WeightsError
from virnucpro_core.evaluation.fitted_on import SEQUENCES
from virnucpro_core.files.writable import check_writable
from virnucpro_core.results.calibration import Calibration, Curve, read_calibration

_REMEDY = "give --force to replace it, or --save FILE"


@dataclass(frozen=True, slots=True)
class Made:
    """What is known of a calibration before it is fitted.

    classifier: its fingerprint. chunk_size: bases. min_open: amino acids, 0 without open frames. sample: the name of
    the evaluation. sequences: their digests as text. ranges: the record lengths of its curves.
    """

    classifier: str
    chunk_size: int
    min_open: int
    method: str
    sample: str
    sequences: str
    ranges: Sequence[Curve]

    def is_of(self, calibration: Calibration) -> bool:
        """Whether the calibration is of the same classifier, method and data."""
        facts = calibration.facts
        return (
            (self.classifier, self.chunk_size, self.min_open, self.method)
            == (calibration.classifier, calibration.chunk_size, calibration.min_open, calibration.method)
            and (self.sample, self.sequences) == (facts.get("sample"), facts.get(SEQUENCES))
            and [one.words for one in self.ranges] == [one.words for one in calibration.curves]
        )


def check_calibration_file(path: Path, made: Made, *, force: bool) -> None:
    """Raises UsageError if the calibration cannot, or must not, be written to this file."""
    if path.is_dir():
        raise UsageError("is a folder", where=path, remedy="give --save the name of a file")
    if os.path.lexists(path) and not force:
        there = _read(path)
        if there is None or not made.is_of(there):
            raise UsageError("already exists", where=path, remedy=_REMEDY)
    check_writable(path.parent)


def save_calibration(calibration: Calibration, path: Path, *, force: bool) -> None:
    """Write the file. One with the same content is left as it is.

    Raises UsageError if another one is there and not `force`.
    """
    if os.path.lexists(path) and not force:
        there = _read(path)
        if there is None or there.digest != calibration.digest:
            raise UsageError("already exists, with other content", where=path, remedy=_REMEDY)
        return
    calibration.save(path)


def _read(path: Path) -> Calibration | None:
    with suppress(WeightsError):
        return read_calibration(path)
    return None
