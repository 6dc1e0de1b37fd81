"""`python -m torture`: run the campaigns one after another within a time limit, and print the table.

The last line is JSON. Exit code 1 if anything was lost, wrong or shown as a traceback.
"""

import argparse
import importlib
import importlib.metadata
import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from torture.table import CAMPAIGNS, Row, Task, as_json, shown, write_figures

MODULES = (
    "torture.kill",
    "torture.twice",
    "torture.folder",
    "torture.launched",
    "torture.writes",
    "torture.damage",
    "torture.rubbish",
    "torture.inbox",
    "torture.commands",
    "torture.first_start",
    "torture.terminal",
    "torture.hostile",
    "torture.others",
    "torture.soak",
)


def main() -> int:
    for module in MODULES:
        importlib.import_module(module)
    options = _options()
    chosen = [CAMPAIGNS[name] for name in options.only or CAMPAIGNS]
    print(
        f"seed {options.seed}, {options.minutes:g} minutes: {', '.join(c.name for c in chosen)}", flush=True
    )
    rows: list[Row] = []
    commit = _commit()  # before figures are written into the tree
    ends = time.monotonic() + 60 * options.minutes
    for number, one in enumerate(chosen):
        share = one.share / sum(c.share for c in chosen[number:])
        folder = Path(tempfile.mkdtemp(prefix="torture-"))
        task = Task(folder, max(1.0, (ends - time.monotonic()) * share), options.seed)
        for row in one.run(task):
            row.origin = _origin(options, commit)
            rows.append(row)
            if options.write:
                write_figures(options.write, [row], _machine())
            print(shown([row]).splitlines()[-1], *row.findings, sep="\n  ", flush=True)
        if all(row.clean for row in rows):
            shutil.rmtree(folder)
        else:
            print(f"  kept for inspection: {folder}")
    print(f"\n{shown(rows)}\n")
    print(as_json(rows, seed=options.seed))
    return 0 if rows and all(row.clean for row in rows) else 1


def _origin(options: argparse.Namespace, commit: str) -> str:
    """How to reproduce a row: the command with its options and the commit; also the day and the machine's load."""
    only = f" --only {' '.join(options.only)}" if options.only else ""
    command = f"`--minutes {options.minutes:g} --seed {options.seed}{only}`"
    return f"{command}, {commit}, {time.strftime('%Y-%m-%d')}, load {os.getloadavg()[2]:.1f}"


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "no commit"


def _machine() -> str:
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("torch", "dagster"))
    return (
        f"`python -m torture` with the options and at the commit in the last column; {os.cpu_count()} CPU cores, "
        f"Python {platform.python_version()}, {', '.join(versions)}. The load is the machine's average over the last "
        "15 minutes, other work included."
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="time for all campaigns together")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10**6), help="seed of all random choices"
    )
    parser.add_argument("--only", nargs="*", choices=sorted(CAMPAIGNS), help="run only these campaigns")
    parser.add_argument("--write", type=Path, help="document whose figures this run replaces")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
