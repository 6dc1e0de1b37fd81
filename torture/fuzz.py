"""The reader under atheris, which looks for inputs that reach new code: `python -m torture.fuzz [-runs=N] FOLDER`.

The same judge as in `rubbish.py`; needs the package atheris, which no other part does.
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
