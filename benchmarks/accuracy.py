"""This software and its peers on the same labelled sequences, with the same measures.

    python -m benchmarks.accuracy --virus v.fa --others o.fa --lengths 300,1000 --peers peers/bin

Peers ship their weights and are programs in an environment of their own (`accuracy-requirements.txt`): geNomad's
`nn-classification`, which needs no database, and Jaeger. `--peers` is the folder with their commands; one that is not
there gets a row that says so. Every program reads the same FASTA, with ids r0, r1, ..., and gives each record a score
from 0 to 1, or none. The measures are those of `virnucpro evaluate`. Programs leave out different records, so there is
also a part `scored by all`. A record is called virus at a score of 0.5; only MCC depends on that.

Prints a table; the last line is JSON, and --out keeps it. Exit code 1 if a program failed.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import ROOT, finish, print_table, provenance
from virnucpro_core import __version__
from virnucpro_core.evaluation.evaluation import LENGTH_BINS, length_ranges
from virnucpro_core.evaluation.metrics import NAMES, Rows, measures
from virnucpro_core.files.digests import sha256_file
from virnucpro_core.models.profiles import DEMO_PROFILE, NO_MEANING
from virnucpro_core.results.folder import CONTIGS
from virnucpro_core.sequences.fasta import read_records
from virnucpro_core.sequences.labelled import LabelledInput, Truth, write_pieces

ALL, COMMON = "all", "scored by all"
NOT_INSTALLED = "not installed: see benchmarks/accuracy-requirements.txt"
NOTE = (
    f"These figures mean nothing. {NO_MEANING} Its classifier was trained on the genomes that ship with the package,"
    " and the peers may have seen them, too."
)
Scores = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Program:
    """A program that scores the records of a FASTA file.

    command: (FASTA, output folder, threads) -> words. read: (FASTA, output folder) -> score by id; ids without a score
    are not in it. about: what the score is, and what the program is made for.
    """

    name: str
    about: str
    command: Callable[[Path, Path, int], list[str]]
    read: Callable[[Path, Path], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program gave. status: "ok", or why there are no scores."""

    program: Program
    status: str
    version: str = ""
    seconds: float = 0.0
    scores: Scores | None = None


def genomad_scores(fasta: Path, out: Path) -> dict[str, float]:
    """`virus_score` of geNomad's table: one of three that add up to 1, with chromosome and plasmid."""
    table = out / f"{fasta.stem}_nn_classification" / f"{fasta.stem}_nn_classification.tsv"
    return {row["seq_name"]: float(row["virus_score"]) for row in _rows(table, "seq_name", "virus_score")}


def jaeger_scores(fasta: Path, out: Path) -> dict[str, float]:
    """Share of `phage` in the softmax of Jaeger's class scores, which are means of logits over its windows.

    Records that are too short for it (2,000 bases by default) are not in its table.
    """
    [table] = out.rglob(f"{fasta.stem}_jaeger.tsv")
    found = {}
    for row in _rows(table, "contig_id", "phage_score"):
        classes = [
            name.removesuffix("_score") for name in row if f"#_{name.removesuffix('_score')}_windows" in row
        ]
        logits = np.array([float(row[f"{name}_score"]) for name in classes])
        shares = np.exp(logits - logits.max())
        found[row["contig_id"]] = float(shares[classes.index("phage")] / shares.sum())
    return found


def own_scores(_fasta: Path, out: Path) -> dict[str, float]:
    """`score` of `contigs.tsv`."""
    return {
        row["record_id"]: float(row["score"])
        for row in _rows(out / CONTIGS, "record_id", "score")
        if row["score"]
    }


def peers(folder: Path) -> list[Program]:
    """The peers, whose commands lie in `folder`."""

    def genomad(fasta: Path, out: Path, threads: int) -> list[str]:
        return [str(folder / "genomad"), "nn-classification", "--threads", str(threads), str(fasta), str(out)]

    def jaeger(fasta: Path, out: Path, threads: int) -> list[str]:
        words = ["predict", "--cpu", "--workers", str(threads), "-i", str(fasta), "-o", str(out)]
        return [str(folder / "jaeger"), *words]

    return [
        Program(
            "geNomad",
            "nn-classification: virus_score, of chromosome, plasmid, virus",
            genomad,
            genomad_scores,
        ),
        Program(
            "Jaeger",
            "softmax of its class scores: phage. Made for phages, 2,000 bases or more",
            jaeger,
            jaeger_scores,
        ),
    ]


def ours(profile: str, chunk_size: int, frames: str, more: Sequence[str] = ()) -> Program:
    """`virnucpro predict` with this profile and these frames."""

    def command(fasta: Path, out: Path, _threads: int) -> list[str]:
        settings = ["--profile", profile, "--chunk-size", str(chunk_size), "--frames", frames, *more]
        words = ["predict", str(fasta), "--quiet", *settings, "--out", str(out)]
        return [sys.executable, "-m", "virnucpro_assets.cli.main", *words]

    about = f"profile {profile}, chunks of {chunk_size}, --frames {frames}: score of contigs.tsv"
    return Program(f"virnucpro {frames}", about, command, own_scores)


def run(program: Program, fasta: Path, place: Path, threads: int) -> Outcome:
    """Run a program on the file, in the folder `place`. That it is not there, or fails, is an outcome, too."""
    out = place / program.name.replace(" ", "-")
    words = program.command(fasta, out, threads)
    if not Path(words[0]).exists():
        return Outcome(program, NOT_INSTALLED)
    environment = os.environ | {
        "VIRNUCPRO_HOME": str(place / "home"),
        "DAGSTER_HOME": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    own = {"PYTHONPATH": str(ROOT)} if words[0] == sys.executable else {}
    started = time.perf_counter()
    done = subprocess.run(
        words, env=environment | own, capture_output=True, text=True, check=False, cwd=place
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        return Outcome(program, f"failed with exit code {done.returncode}: {said[:200]}", seconds=seconds)
    try:
        scores = program.read(fasta, out)
    except (OSError, ValueError, KeyError) as error:
        return Outcome(program, f"its output cannot be read: {error!r}"[:200], seconds=seconds)
    version = __version__ if own else _version(words[0])
    return Outcome(program, "ok", version, seconds, scores)


def table_rows(
    outcomes: Sequence[Outcome], truth: Sequence[Truth], lengths: Sequence[int], bootstrap: int
) -> Iterator[dict[str, Any]]:
    """A row for each program and part: all records, by length, and those that every program has scored.

    truth, lengths (bases): of the records r0, r1, ...
    """
    names = sorted({one.group for one in truth})
    group = np.array([names.index(one.group) for one in truth], np.int64)
    label, length = np.array([one.label for one in truth], np.int64), np.array(lengths, np.int64)
    scored = {one.program.name: _scores(one, len(truth)) for one in outcomes if one.scores is not None}
    by_all = ~np.isnan(np.array([*scored.values()]).reshape(-1, len(truth))).any(axis=0)
    parts = {ALL: np.ones(len(truth), bool)}
    parts |= (
        {one.words: one.covers(length) for one in length_ranges(LENGTH_BINS)} if len(set(lengths)) > 1 else {}
    )
    parts |= {COMMON: by_all} if len(scored) > 1 else {}
    for part, mine in parts.items():
        for one in outcomes:
            head = {"program": one.program.name, "part": part, "status": one.status}
            if one.scores is None:
                if part == ALL:
                    yield head
                continue
            if not mine.any():
                continue
            rows = Rows(label, scored[one.program.name], group, length).where(mine)
            known = rows.scored
            yield head | {
                "virus": int(known.label.sum()),
                "others": int((known.label == 0).sum()),
                "no_call": len(rows.label) - len(known.label),
                **{
                    name: {"value": m.value, "low": m.low, "high": m.high, "reason": m.reason}
                    for name, m in measures(rows, cutoff=0.5, bootstrap=bootstrap, seed=42).items()
                },
            }


def compare(
    programs: Sequence[Program], labelled: LabelledInput, options: argparse.Namespace
) -> dict[str, Any]:
    """Run the programs on the labelled records, or on pieces of them, and measure the scores."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        truth = labelled.truth()
        files = labelled.files
        if options.lengths:
            truth, files = (
                write_pieces(labelled, truth, options.lengths, place / "pieces.fa"),
                [place / "pieces.fa"],
            )
        records = [(truth[r.id], r.sequence) for r in read_records(files) if not r.reason]
        fasta = place / "records.fa"
        fasta.write_bytes(b"".join(b">r%d\n%b\n" % (k, letters) for k, (_, letters) in enumerate(records)))
        outcomes = [run(program, fasta, place, options.threads) for program in programs]
    lengths = [len(letters) for _, letters in records]
    found = list(table_rows(outcomes, [one for one, _ in records], lengths, options.bootstrap))
    return provenance() | {
        "data": {file.name: sha256_file(file) for file in labelled.files},
        "pieces": list(options.lengths),
        "records": len(records),
        "note": NOTE if options.profile == DEMO_PROFILE else "",
        "programs": [
            {"program": o.program.name, "about": o.program.about, "version": o.version, "status": o.status}
            | {"seconds": round(o.seconds, 1)}
            for o in outcomes
        ],
        "rows": found,
    }


def show(result: Mapping[str, Any]) -> None:
    """Print the table."""
    columns = ("program", "part", "virus", "others", "no_call", *NAMES)
    shown = []
    for row in result["rows"]:
        cells = {name: row.get(name, "") for name in columns}
        cells |= {name: _shown(row[name]) for name in NAMES if name in row}
        shown.append(cells | {"status": "" if row["status"] == "ok" else row["status"]})
    print_table(shown)
    if result["note"]:
        print(result["note"])


def _shown(one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return "-"
    return f"{one['value']:.3f}" + ("" if one["low"] is None else f" ({one['low']:.2f}-{one['high']:.2f})")


def _scores(outcome: Outcome, records: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    scores = outcome.scores or {}
    return np.array([scores.get(f"r{k}", np.nan) for k in range(records)], np.float64)


def _rows(path: Path, *columns: str) -> list[dict[str, str]]:
    """The rows of a table with tabs. Raises ValueError if it lacks one of the columns."""
    with path.open(encoding="utf-8", newline="") as stream:
        table = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        if missing := [name for name in columns if name not in (table.fieldnames or ())]:
            raise ValueError(f"{path.name} has no column {missing[0]}")
        return list(table)


def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return (done.stdout.strip().splitlines() or [""])[-1]


def main(words: Sequence[str] | None = None) -> int:
    """Read the command line, run, print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("fasta", nargs="*", type=Path, help="with --labels: sequences")
    parser.add_argument("--virus", action="append", default=[], type=Path)
    parser.add_argument("--others", action="append", default=[], type=Path)
    parser.add_argument("--labels", type=Path, help="table: id, label, and maybe group")
    parser.add_argument(
        "--lengths", type=_numbers, default=(), help="cut records into pieces of these lengths"
    )
    parser.add_argument(
        "--peers", type=Path, default=Path("peers/bin"), help="folder with the peers' commands"
    )
    parser.add_argument("--profile", default=DEMO_PROFILE)
    parser.add_argument("--chunk-size", type=int, default=300)
    parser.add_argument("--classifier", type=Path)
    parser.add_argument("--frames", default="full,open", help="of virnucpro; a row for each")
    parser.add_argument("--threads", type=int, default=1, help="of each peer")
    parser.add_argument("--bootstrap", type=int, default=500)
    parser.add_argument("--name", default="", help="of the results file")
    parser.add_argument(
        "--out", type=Path, help="folder in which the JSON is kept, such as benchmarks/results"
    )
    options = parser.parse_args(words)
    labelled = LabelledInput(
        tuple(options.virus), tuple(options.others), tuple(options.fasta), options.labels
    )
    more = ["--classifier", str(options.classifier.resolve())] if options.classifier else []
    kinds = [kind for kind in options.frames.split(",") if kind]
    own = [ours(options.profile, options.chunk_size, kind, more) for kind in kinds]
    result = compare([*peers(options.peers.absolute()), *own], labelled, options)
    show(result)
    finish(result, options.out, "accuracy", *([options.name] if options.name else []))
    return int(any(one["status"] not in ("ok", NOT_INSTALLED) for one in result["programs"]))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
