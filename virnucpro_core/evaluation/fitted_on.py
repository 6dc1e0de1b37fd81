"""Which sequences a calibration was fitted to: its facts have digests of them, so an evaluation on them is noticed.

A digest is that of `models/training_data.py`: of the letters of a whole record, the same for both strands. A
calibration without them has at least the sha256 of the files that it was fitted to.
"""

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.errors import WeightsError
from virnucpro_core.files.digests import sha256_once
from virnucpro_core.results.calibration import Calibration

SEQUENCES = "sequences"


def digests_text(digests: NDArray[np.uint64]) -> str:
    """The distinct digests (n,) as base64 of 8 bytes each, sorted."""
    return base64.b64encode(np.unique(digests).astype("<u8").tobytes()).decode()


def fitted_on(calibration: Calibration, digests: NDArray[np.uint64], files: Sequence[Path]) -> str:
    """Which of the labelled data the calibration was fitted to, in words; "" if none of them.

    digests: of all labelled sequences, (n,); files: those that they are in. Raises WeightsError for damaged digests.
    """
    facts = calibration.facts
    if SEQUENCES in facts:
        try:
            known = np.frombuffer(base64.b64decode(facts[SEQUENCES], validate=True), "<u8")
        except (binascii.Error, TypeError, ValueError) as error:
            raise WeightsError(
                f"the calibration's digests of sequences are damaged ({error})",
                remedy="make the calibration again with `virnucpro calibrate`",
            ) from error
        shared = int(np.isin(digests, known).sum())
        return f"{shared:,} of {len(digests):,} sequences" if shared else ""
    data = facts.get("data")
    known_files = set(map(str, data.values())) if isinstance(data, dict) else set()
    same = [file.name for file in files if sha256_once(file) in known_files]
    return f"the sequences of {', '.join(same)}" if same else ""
