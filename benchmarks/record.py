"""What every results file says beside its figures, and how figures are shown as a table."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


def provenance() -> dict[str, Any]:
    """Versions, the commit, and the command that was given."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda, "numpy": np.__version__},
        "commit": found.stdout.strip(),
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
    }


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """One line a row, headed by the columns' names."""
    width = max(12, *map(len, columns)) + 1
    print("".join(f"{c:>{width}}" for c in columns))
    for row in rows:
        cells = (row[c] for c in columns)
        print("".join(f"{c:{width},.4g}" if isinstance(c, float) else f"{c!s:>{width}}" for c in cells))
