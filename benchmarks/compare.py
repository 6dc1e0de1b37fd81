"""Show what changed between two results of one benchmark: `python -m benchmarks.compare OLD.json NEW.json`.

Prints one row for each figure that changed by more than its noise, then one line of JSON. The noise of a figure is the
spread of its repeats (a list of numbers `NAME_repeats`) if the result has them, else `--noise` (5 %). Results of
different devices are refused; `--ratios` compares only shares and ratios, which hardly depend on the machine.
Exit code: 0 nothing became worse, 1 something did (with `--fail`), 2 the files cannot be compared.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import print_table

NOISE = 0.05
REPEATS = "_repeats"
# Fields about the machine and the run, which are not figures.
ORIGIN = {"benchmark", "command", "commit", "cores", "cpu", "device", "load_average", "versions"}
# Fields that are part of a row's label, whatever their type.
LABELS = {"gpus", "samples", "reads", "records", "rank", "budget_tokens", "slow_lane", "shard_rows", "rows"}
# Whether more or less is better, by the figure's name; the first match counts.
HIGHER = (
    "per_second",
    "per_s",
    "sequences_s",
    "tokens_s",
    "share",
    "speed_up",
    "cos",
    "utilisation",
    "packing",
    "ours_over",
)
LOWER = (
    "seconds",
    "_s",
    "_ms",
    "_mb",
    "_gib",
    "bytes",
    "memory",
    "idle",
    "wait",
    "overhead",
    "slowest",
    "rel_l2",
    "moved",
    "ratio",
)
RATIOS = ("share", "speed_up", "ours_over", "ratio", "packing", "cos", "idle")


class UnlikeError(Exception):
    """The two results cannot be compared. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in both results. ratio: new / old; noise: relative change below which the figure counts as equal."""

    figure: str
    old: float
    new: float
    noise: float

    @property
    def ratio(self) -> float:
        if self.old == self.new:
            return 1.0
        return self.new / self.old if self.old else float("inf")

    @property
    def moved(self) -> bool:
        return abs(self.ratio - 1) > self.noise

    @property
    def verdict(self) -> str:
        """better, worse, moved (it is not known which direction is better) or same."""
        if not self.moved:
            return "same"
        way = better(self.figure)
        if not way:
            return "moved"
        return "better" if (self.new > self.old) == (way > 0) else "worse"


def better(figure: str) -> int:
    """1 if more is better, -1 if less is better, 0 if the name does not say."""
    name = figure.rpartition(" ")[2]
    if any(word in name for word in HIGHER):
        return 1
    return -1 if any(name.endswith(word) or word.strip("_") in name.split("_") for word in LOWER) else 0


def figures(result: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, float, float]]:
    """(name, value, relative spread of its repeats or -1) of every number. The names contain the labels of rows."""
    for name, value in result.items():
        if not place and name in ORIGIN:
            continue
        if isinstance(value, Mapping):
            yield from figures(value, f"{place}{name} ")
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            table = "" if name == "rows" else f"{name}: "
            for row in value:
                values = {k: v for k, v in row.items() if not _labels(k, v)}
                yield from figures(values, f"{place}{table}{label(row)} ")
        elif (number := _number(value)) is not None and not (place and name in LABELS):
            yield f"{place}{name}", number, _spread(result.get(f"{name}{REPEATS}"))


def label(row: Mapping[str, Any]) -> str:
    """A row's label: those of its texts and integers that say what was measured."""
    return ", ".join(str(v) if isinstance(v, str) else f"{k} {v}" for k, v in row.items() if _labels(k, v))


def compare(old: Mapping[str, Any], new: Mapping[str, Any], *, noise: float, ratios: bool) -> list[Change]:
    """All figures that both results have, in the order of the old one. Raises UnlikeError."""
    if old.get("benchmark") != new.get("benchmark"):
        raise UnlikeError(
            f"{old.get('benchmark')} and {new.get('benchmark')} are different benchmarks: give two results of one"
        )
    machines = [r.get("device") or r.get("cpu") for r in (old, new)]
    if machines[0] != machines[1] and not ratios:
        raise UnlikeError(
            f"measured on {machines[0]} and on {machines[1]}: give --ratios to compare only shares and ratios"
        )
    after = {name: (value, spread) for name, value, spread in figures(new)}
    found = []
    for name, value, spread in figures(old):
        if name not in after or (ratios and not any(word in name.rpartition(" ")[2] for word in RATIOS)):
            continue
        spreads = [s for s in (spread, after[name][1]) if s >= 0]
        found.append(Change(name, value, after[name][0], max(spreads, default=noise)))
    return found


def _labels(name: str, value: object) -> bool:
    return name in LABELS or (isinstance(value, str) and _number(value) is None)


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    try:
        return float(value) if isinstance(value, str) else None  # some tables store figures as text
    except ValueError:
        return None


def _spread(repeats: object) -> float:
    if not isinstance(repeats, Sequence) or len(repeats) < 2:
        return -1.0
    low, high = min(repeats), max(repeats)
    return float((high - low) / abs(low)) if low else -1.0


def main(words: Sequence[str] | None = None) -> int:
    """Print what changed. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument(
        "--noise", type=float, default=NOISE, help="relative change that counts as noise (0.05)"
    )
    parser.add_argument(
        "--ratios", action="store_true", help="compare only shares and ratios; devices may differ"
    )
    parser.add_argument("--all", action="store_true", help="also show figures that did not change")
    parser.add_argument("--fail", action="store_true", help="exit with 1 if something became worse")
    asked = parser.parse_args(words)
    try:
        results = [json.loads(path.read_text()) for path in (asked.old, asked.new)]
        changes = compare(results[0], results[1], noise=asked.noise, ratios=asked.ratios)
    except (OSError, ValueError, UnlikeError) as error:
        sys.stderr.write(f"compare: {error}\n")
        return 2
    rows = [
        {
            "figure": c.figure,
            "old": c.old,
            "new": c.new,
            "new/old": round(c.ratio, 3),
            "noise": f"{c.noise:.1%}",
            "": c.verdict,
        }
        for c in changes
        if asked.all or c.moved
    ]
    if rows:
        print_table(rows)
    worse = [c.figure for c in changes if c.verdict == "worse"]
    print(f"{len(changes)} figures compared, {sum(c.moved for c in changes)} moved, {len(worse)} worse")
    print(
        json.dumps(
            {"compared": len(changes), "moved": [c.figure for c in changes if c.moved], "worse": worse}
        )
    )
    return int(bool(worse) and asked.fail)


if __name__ == "__main__":
    sys.exit(main())
