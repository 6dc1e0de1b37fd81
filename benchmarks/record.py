"""Shared code for benchmark results: facts about machine and versions, tables, and results files."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from virnucpro_core.files.publish import publish_json

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "triton", "numpy", "transformers", "dagster")


def provenance() -> dict[str, Any]:
    """Versions, commit and command; the processor, and its load by other work."""
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    return {
        "benchmark": Path(sys.argv[0]).stem,
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "commit": found.stdout.strip(),
        "versions": {"python": platform.python_version(), "cuda": torch.version.cuda} | _versions(),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
    }


def processor() -> str:
    """The processor's name, as the system reports it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # only torch and numpy are always installed
            continue
    return found


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Print the rows under their column names, right-aligned: the given columns, or all of the first row."""
    names = list(columns or rows[0])
    cells = [names] + [[_cell(row[name]) for name in names] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    sys.stdout.flush()


def keep(result: Mapping[str, Any], folder: Path | None, *words: object) -> None:
    """Write the result to `WORD-WORD.json` in `folder`, unless `folder` is None."""
    if folder:
        name = "-".join(str(word).lower().replace(" ", "-") for word in words)
        publish_json(folder / f"{name}.json", dict(result))


def finish(result: Mapping[str, Any], folder: Path | None, *words: object) -> None:
    """`keep` the result, then print it as the last line of the output."""
    keep(result, folder, *words)
    print(json.dumps(result))


def _cell(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
