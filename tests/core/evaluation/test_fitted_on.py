"""A calibration knows the sequences that it was fitted to."""

from pathlib import Path

import numpy as np
import pytest

from virnucpro_core.errors import WeightsError
from virnucpro_core.evaluation.fitted_on import SEQUENCES, digests_text, fitted_on
from virnucpro_core.files.digests import sha256_file
from virnucpro_core.results.calibration import Calibration, Curve

CURVES = (Curve(0, 0, (0.0, 1.0), (-2.0, 2.0)),)


def calibration(**facts: object) -> Calibration:
    return Calibration("c" * 64, 300, "platt", CURVES, facts)


def test_the_same_sequences_are_found_in_any_file() -> None:
    digests = np.array([7, 3, 2**63 + 1, 3], np.uint64)
    made = calibration(**{SEQUENCES: digests_text(digests)})
    assert fitted_on(made, digests, []) == "4 of 4 sequences"
    assert fitted_on(made, np.array([3, 5], np.uint64), []) == "1 of 2 sequences"
    assert fitted_on(made, np.array([5], np.uint64), []) == ""
    for damaged in ("?", "AAAA", 7):
        with pytest.raises(WeightsError, match="digests of sequences are damaged"):
            fitted_on(calibration(**{SEQUENCES: damaged}), digests, [])


def test_without_digests_the_files_are_compared(tmp_path: Path) -> None:
    for name in ("a.fa", "b.fa"):
        (tmp_path / name).write_text(f">{name}\nACGT\n")
    files = [tmp_path / "a.fa", tmp_path / "b.fa"]
    none = np.array([], np.uint64)
    assert fitted_on(calibration(data={"x.fa": sha256_file(files[1]), "records": 3}), none, files) == (
        "the sequences of b.fa"
    )
    assert fitted_on(calibration(data={"x.fa": "0"}), none, files) == ""
    assert fitted_on(calibration(data=3), none, files) == fitted_on(calibration(), none, files) == ""
