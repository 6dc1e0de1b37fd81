"""Fuzz the reader with atheris, which searches inputs that reach new code: `python -m torture.fuzz [-runs=N] FOLDER`.

Results are judged as in `rubbish.py`. Needs the package atheris, which nothing else uses.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["virnucpro_core.sequences.fasta", "virnucpro_core.sequences.archives"]
):
    from torture.rubbish import judge

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))


def one_input(data: bytes) -> None:
    found = list(judge(FOLDER, "x.fa", data, None))
    assert not found, found


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
