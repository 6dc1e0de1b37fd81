"""`python -m torture`: run the campaigns one after another within a time limit, and print the table.

The last line is JSON. Exit code 1 if anything was lost, wrong or shown as a traceback.
"""

import argparse
import importlib
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from torture.table import CAMPAIGNS, Row, Task, as_json, shown, write_figures

MODULES = (
    "torture.kill",
    "torture.twice",
    "torture.launched",
    "torture.writes",
    "torture.damage",
    "torture.rubbish",
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
    ends = time.monotonic() + 60 * options.minutes
    for number, one in enumerate(chosen):
        share = one.share / sum(c.share for c in chosen[number:])
        folder = Path(tempfile.mkdtemp(prefix="torture-"))
        task = Task(folder, max(1.0, (ends - time.monotonic()) * share), options.seed)
        for row in one.run(task):
            rows.append(row)
            print(shown([row]).splitlines()[-1], *row.findings, sep="\n  ", flush=True)
        if all(row.clean for row in rows):
            shutil.rmtree(folder)
        else:
            print(f"  kept for a look: {folder}")
    print(f"\n{shown(rows)}\n")
    if options.write:
        heading = (
            f"`make torture MINUTES={options.minutes:g}`, seed {options.seed}, {time.strftime('%Y-%m-%d')}:"
        )
        write_figures(options.write, rows, heading)
    print(as_json(rows, seed=options.seed))
    return 0 if rows and all(row.clean for row in rows) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="time for all campaigns together")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of everything drawn")
    parser.add_argument("--only", nargs="*", choices=sorted(CAMPAIGNS), help="these campaigns")
    parser.add_argument("--write", type=Path, help="document whose figures are replaced by this run's")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
