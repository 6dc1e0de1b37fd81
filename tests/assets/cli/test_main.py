"""The commands as people type them, each in a process of its own on a home of its own."""

import gzip
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import dagster as dg
import h5py
import numpy as np
import pandas as pd
import psutil
import pytest

from tests.support import ROOT
from tests.support.live_platform import wait_until
from torture.pipeline import write_reads
from virnucpro_core.models.profiles import DEMO
from virnucpro_core.results.folder import OPTIONAL_FILES, RESULT_FILES
from virnucpro_core.results.multiqc import MULTIQC_FILES

ACROSS = {"summary.tsv", "index.html", *MULTIQC_FILES}


class Shell:
    """`virnucpro ...` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = dict(os.environ) | {
            "VIRNUCPRO_HOME": str(folder / "home"),
            "DAGSTER_HOME": "",
            "VIRNUCPRO_GPUS": "1",
            "VIRNUCPRO_DEVICE": "",
            "VIRNUCPRO_PROFILE": "demo",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(ROOT),
        }

    def command(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "virnucpro_assets.cli.main", *map(str, words)]

    def start(self, *words: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(*words),
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *words: object) -> "subprocess.CompletedProcess[str]":
        process = self.start(*words)
        out, err = process.communicate(timeout=240)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def good(self, *words: object) -> str:
        """All that it printed: the calls, then the progress."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def refused(self, *words: object) -> str:
        """The one line of an exit 2, below what was said of the work."""
        done = self.run(*words)
        assert done.returncode == 2, done
        assert "Traceback" not in done.stderr
        [said] = messages(done.stderr)
        return said


def messages(stderr: str) -> list[str]:
    """The errors and warnings among the lines."""
    return [line for line in stderr.splitlines() if line.startswith("virnucpro: ")]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """The phage and the viruses, predicted once on two lanes."""
    shell = Shell(tmp_path_factory.mktemp("predicted"))
    done = shell.run(
        "predict", DEMO / "viral.fa", "--profile", "demo", "--chunk-size", 300, "--gpus", 2, "--shard-rows", 20,
        "-o", "results", "--verbose",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (shell.folder / "out.txt").write_text(done.stdout)
    (shell.folder / "err.txt").write_text(done.stderr)
    return shell


def test_predict_shows_progress_and_calls_and_leaves_the_results_folder(predicted: Shell) -> None:
    out, err = ((predicted.folder / name).read_text() for name in ("out.txt", "err.txt"))
    first, *progress = err.splitlines()
    assert first == (
        "1 sample (1 file, 68.9 kB): profile demo, chunks of 300, 2 lanes on the CPU in float32; results in results"
    )
    for words in ("lane 0, DNABERT-S", "lane 0, ESM-2", "no biological meaning", "report.html", "tokens/s"):
        assert words in "\n".join(progress)
    head, *rows = out.splitlines()  # the calls, and nothing else
    assert head.split() == ["record", "length", "call", "score", "scored/chunks", "frames"]
    assert [row.split()[0] for row in rows] == list(pd.read_csv(
        predicted.folder / "results" / "contigs.tsv", sep="\t")["record_id"])  # fmt: skip
    assert rows[0].split()[3] == "0.8001"  # cut to 4 digits, as in the report
    results = predicted.folder / "results"
    assert {f.name for f in results.iterdir()} == set(RESULT_FILES) - set(OPTIONAL_FILES)
    calls = pd.read_csv(results / "contigs.tsv", sep="\t")
    assert len(calls) == 6
    run = json.loads((results / "run.json").read_text())
    assert run["settings"]["chunk_size"] == 300
    assert "no biological meaning" in run["note"]
    made = run["made"]
    assert made["command"].startswith("virnucpro predict ")
    assert made["command"].endswith("-o results --verbose")
    assert made["host"] == socket.gethostname()
    assert abs(datetime.fromisoformat(made["date"]).timestamp() - time.time()) < 3600
    assert 0 < made["seconds"] < 600


def test_the_same_command_computes_nothing_and_gives_the_same_bytes(predicted: Shell) -> None:
    again = (
        "predict", DEMO / "viral.fa", "--profile", "demo", "--chunk-size", 300, "--gpus", 2, "--shard-rows", 20,
        "--out", "again",
    )  # fmt: skip
    before = {f.name: f.read_bytes() for f in (predicted.folder / "results").iterdir()}
    runs = len(list(((predicted.folder / "home") / "dagster" / "history" / "runs").glob("*.db")))
    predicted.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    said = predicted.good(*again)
    del predicted.environment["PYTHONPROFILEIMPORTTIME"]
    assert "nothing to compute" in said
    assert re.search(r"\| +dagster$", said, re.MULTILINE)
    assert not re.search(r"\| +(torch|pandas|transformers)$", said, re.MULTILINE)  # seconds to import
    assert {f.name: f.read_bytes() for f in (predicted.folder / "again").iterdir()} == before
    assert len(list(((predicted.folder / "home") / "dagster" / "history" / "runs").glob("*.db"))) == runs
    # A damaged result is not handed out: what it was made from is still there.
    [damaged] = (predicted.folder / "home").glob("samples/*/results/viral.fasta")
    damaged.write_text("damaged")
    assert "were done before" in predicted.good(*again)
    assert {f.name: f.read_bytes() for f in (predicted.folder / "again").iterdir()} == before


def test_a_cleaned_sample_is_predicted_again_from_what_is_left(shell: Shell, tmp_path: Path) -> None:
    entries = (DEMO / "viral.fa").read_text().split(">")[1:]
    (tmp_path / "one.fa").write_text(f">{entries[0]}")
    words = ("predict", "one.fa", "--profile", "demo", "--chunk-size", 300, "--out")
    shell.good(*words, "out")
    cleaned = shell.run("samples", "clean", "one", "--keep", "results")
    assert (cleaned.returncode, cleaned.stderr) == (0, "")  # none of Dagster's warnings either
    assert "nothing to compute" in shell.good(*words, "again")
    out, again = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("out", "again"))
    assert out == again


def test_small_samples_are_predicted_together_and_a_bad_one_stops_none(shell: Shell, tmp_path: Path) -> None:
    entries = (DEMO / "viral.fa").read_text().split(">")[1:]
    (tmp_path / "in").mkdir()
    for name, text in (("a", entries[0]), ("b", entries[1]), ("bad", "x\nACGT\n>x\nACGT\n")):
        (tmp_path / "in" / f"{name}.fa").write_text(f">{text}")
    done = shell.run("predict", "in", "--profile", "demo", "--chunk-size", 300, "--out", "out")
    assert done.returncode == 2
    first, last = messages(done.stderr)
    assert "bad.fa" in first
    assert "line 3" in first
    assert "1 of 3 samples failed" in last
    assert {f.name for f in (tmp_path / "out").iterdir()} == {"a", "b"} | ACROSS
    assert "\n2 called, 1 failed\n" in done.stderr
    assert [line[:7] for line in done.stderr.splitlines() if " of 3: " in line] == ["1 of 3:", "2 of 3:"]
    across = pd.read_csv(tmp_path / "out" / "summary.tsv", sep="\t", quoting=3).set_index("sample")
    assert dict(across["state"]) == {"a": "called", "b": "called", "bad": "failed"}
    assert "line 3" in across["reason"]["bad"]
    assert (across["seconds"][["a", "b"]] >= 0).all()  # a tiny sample takes less than a tenth of a second
    assert all((tmp_path / "out" / name / "run.json").exists() for name in "ab")
    # Three runs for all. Nothing was computed for the bad one, so neither a sample nor a red run is left behind.
    assert "sample 'bad' is not known" in shell.refused("samples", "bad")
    with dg.DagsterInstance.from_config(str(tmp_path / "home" / "dagster")) as instance:
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS] * 3
        assert sorted(instance.get_dynamic_partitions("sample")) == ["a", "b"]
    assert "line 3" in shell.refused("predict", "in/bad.fa", "--chunk-size", 300, "--out", "alone")
    with dg.DagsterInstance.from_config(str(tmp_path / "home" / "dagster")) as instance:
        assert instance.get_runs_count() == 3


def test_a_folder_s_bad_samples_are_said_and_stop_none_whatever_is_wrong_with_them(
    shell: Shell, tmp_path: Path
) -> None:
    entries = (DEMO / "viral.fa").read_text().split(">")[1:]
    folder = tmp_path / "in"
    folder.mkdir()
    for name, text in (("a", entries[0]), ("b", entries[1]), ("changed", entries[2])):
        (folder / f"{name}.fa").write_text(f">{text}")
    words = ("predict", "in", "--profile", "demo", "--chunk-size", 300, "--out", "out")
    shell.good("predict", "in/changed.fa", *words[2:-1], "one")
    (folder / "changed.fa").write_text(f">{entries[3]}")
    (folder / "empty.fa").touch()
    (folder / "moved.fa").symlink_to(tmp_path / "nowhere.fa")
    os.mkfifo(folder / "pipe.fa")
    (folder / "cut.fa.gz").write_bytes(gzip.compress(b">a\nACGT\n" * 999, mtime=0)[:-9])
    done = shell.run(*words)
    assert done.returncode == 2
    *each, last = messages(done.stderr)
    assert len(each) == 5, done.stderr
    assert "5 of 7 samples failed" in last
    assert "moved.fa: no such file" in done.stderr
    assert "pipe.fa: not a regular file" in done.stderr
    assert "already stands for other sequences" in done.stderr
    assert {f.name for f in (tmp_path / "out").iterdir()} == {"a", "b"} | ACROSS
    assert "\n2 called, 5 failed\n" in done.stderr
    (tmp_path / "out" / "index.html").write_text("mine")
    assert "holds index.html, which was not written by VirNucPro" in shell.refused(*words)


def test_samples_of_one_name_and_variants_lie_side_by_side(shell: Shell, tmp_path: Path) -> None:
    entries = (DEMO / "viral.fa").read_text().split(">")[1:]
    for folder, text in zip("AB", entries, strict=False):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "contigs.fasta").write_text(f">{text}")
    files, words = ("A/contigs.fasta", "B/contigs.fasta"), ("--profile", "demo", "--gpus", 1)
    shell.good("predict", *files, *words, "--chunk-size", 300, "--out", "out")
    folders = sorted(f.name for f in (tmp_path / "out").iterdir() if f.is_dir())
    assert folders == ["A_contigs", "B_contigs"]
    shards = {f: f.stat().st_mtime_ns for f in (tmp_path / "home" / "samples").rglob("*.h5")}
    mine = {f: f.read_bytes() for f in (tmp_path / "out" / "A_contigs").iterdir()}
    own = ("predict", files[0], *words, "--chunk-size", 500, "--fresh", "--out")
    assert "'A_contigs' (300 demo float32), and these will be 'A_contigs-500'" in shell.refused(
        *own, "out/A_contigs"
    )
    assert {f: f.read_bytes() for f in mine} == mine
    done = shell.run(*own, "out500")
    assert done.returncode == 0, done.stderr
    assert "deleted" not in done.stderr  # there was nothing yet with these settings
    assert "a variant of sample 'A_contigs': it is named 'A_contigs-500'" in done.stderr
    # `--check` says the names and what --fresh would delete, and a known sample takes one line as a new one does.
    check = ("predict", *files, *words, "--check", "--chunk-size")
    said = shell.good(*check, 300, "--fresh", "--out", "out")
    assert (
        "A_contigs: known already; results in out/A_contigs\n--fresh would delete sample 'A_contigs' with"
        in said
    )
    said = shell.good(*check, 500, "--out", "other")
    assert (
        "A_contigs-500: known already, its work is kept, a variant of A_contigs; results in other/A_contigs"
        in said
    )
    assert "B_contigs-500: new, a variant of B_contigs; results in other/B_contigs\n" in said
    planned = map(json.loads, shell.run(*check, 500, "--out", "other", "--json").stdout.splitlines())
    assert [(one["sample"], one["variant_of"], one["is_new"]) for one in planned] == [
        ("A_contigs-500", "A_contigs", False), ("B_contigs-500", "B_contigs", True)]  # fmt: skip
    (tmp_path / "C.fa").write_text(f">{entries[2]}")
    done = shell.run("predict", *files, "C.fa", *words, "--chunk-size", 300, "--out", "out")
    assert done.stdout == ""
    assert [line.split(" ")[3] for line in done.stderr.splitlines() if " of 3: " in line] == [
        "A_contigs:",
        "B_contigs:",
        "C:",
    ]
    assert done.stderr.count(", nothing to compute") == 2
    assert done.stderr.count("no biological meaning") == 1
    done = shell.run(
        "predict", *files, *words, "--chunk-size", 300, "--fresh", "--out", "out/A_contigs/run.json"
    )
    assert done.returncode == 2  # refused before anything is deleted
    assert {f: f.stat().st_mtime_ns for f in shards} == shards
    rows = [json.loads(line) for line in shell.good("samples", "--json").splitlines()]
    assert [(r["name"], r["variant_of"], r["settings"], r["state"]) for r in rows] == [
        ("A_contigs", "", "300 demo float32", "called"),
        ("A_contigs-500", "A_contigs", "500 demo float32", "called"),
        ("B_contigs", "", "300 demo float32", "called"),
        ("C", "", "300 demo float32", "called"),
    ]
    assert "its variants stay: A_contigs-500" in shell.good("samples", "remove", "A_contigs", "--yes")


def test_a_classifier_of_other_chunks_is_refused_before_anything_begins(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "a.fa").write_text(">a\nACGT\n")
    own = ("--classifier", DEMO / "classifier_300", "--chunk-size", 500)
    said = shell.refused("predict", "a.fa", "--profile", "demo", *own, "--out", "out")
    assert "trained on chunks of 300 bases, the sample is cut into chunks of 500" in said
    assert not (tmp_path / "home" / "samples").exists()


def test_out_is_not_taken_from_others_unless_it_is_said(predicted: Shell, tmp_path: Path) -> None:
    words = (
        "predict",
        DEMO / "viral.fa",
        "--profile",
        "demo",
        "--chunk-size",
        300,
        "--shard-rows",
        20,
        "--gpus",
        2,
    )
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "contigs.tsv").write_text("mine")
    said = predicted.refused(*words, "--out", tmp_path / "own")
    assert (
        "own: holds contigs.tsv, which is not a result of this sample; give another --out, or --force" in said
    )
    assert (tmp_path / "own" / "contigs.tsv").read_text() == "mine"
    said = predicted.refused(*words, "--sample", "other", "--out", "results")
    assert "holds the results of sample 'viral', this is sample 'other'" in said
    said = predicted.refused(*words[:5], 500, *words[6:], "--out", "results")
    assert (
        "holds the results of sample 'viral' (300 demo float32 shard_rows=20), and these will be 'viral-500'"
        in said
    )
    before = {file: file.read_bytes() for file in (predicted.folder / "results").iterdir()}
    assert not (predicted.folder / "home" / "samples" / "other").exists()
    assert "--out" in predicted.refused(*words, "--out", DEMO / "viral.fa")
    assert {file: file.read_bytes() for file in before} == before
    predicted.good(*words, "--out", tmp_path / "own", "--force")
    assert (tmp_path / "own" / "run.json").exists()
    predicted.good(*words, "--out", tmp_path / "own")


def test_a_model_folder_is_not_replaced_unless_it_is_said(shell: Shell, tmp_path: Path) -> None:
    words = ("models", "import", "esm2", DEMO / "esm2", "--out", tmp_path / "model")
    shell.good(*words)
    (tmp_path / "model" / "notes").write_text("mine")
    assert "the whole folder would be replaced; give another --out, or --force" in shell.refused(*words)
    assert (tmp_path / "model" / "notes").exists()
    models = ("--dnabert", DEMO / "dnabert_s", "--esm2", DEMO / "esm2", "--device", "cpu")
    inputs = ("--viral", DEMO / "viral.fa", "--non-viral", DEMO / "non_viral.fa")
    assert "--force" in shell.refused("train", *inputs, *models, "--out", tmp_path / "model")
    shell.good(*words, "--force")


def test_small_samples_of_a_worker_that_stands_and_dies_are_done_by_others(
    shell: Shell, tmp_path: Path
) -> None:
    shell.environment["VIRNUCPRO_GPUS"] = "2"
    (tmp_path / "in").mkdir()
    names = sorted(f"s{seed:02}" for seed in range(20))  # three groups
    for seed, name in enumerate(names):
        write_reads(tmp_path / "in" / f"{name}.fa", seed=seed, records=3)
    command = shell.start("predict", "in", "--profile", "demo", "--chunk-size", 300, "--out", "out")
    samples = tmp_path / "home" / "samples"

    def done() -> int:
        return len(list(samples.glob("*/results/run.json")))

    def second() -> list[psutil.Process]:
        workers = psutil.Process(command.pid).children()
        return [p for p in workers if p.cmdline()[-2:] == ["virnucpro_assets.running.worker", "gpu-1"]]

    wait_until(lambda: list(samples.glob("*/telemetry/*")), seconds=120, what="a GPU is at work")
    [worker] = second()
    worker.suspend()
    before = done()
    wait_until(lambda: done() >= before + 8, seconds=120, what="the other one does a group")
    worker.kill()
    _, err = command.communicate(timeout=240)
    assert command.returncode == 0, err
    assert {f.name for f in (tmp_path / "out").iterdir()} == {*names} | ACROSS
    assert (
        len(
            [line for line in err.splitlines() if "gpu-1: was ended by signal 9 (Killed); its log is" in line]
        )
        < 2
    )
    with dg.DagsterInstance.from_config(str(tmp_path / "home" / "dagster")) as instance:
        assert {run.status for run in instance.get_runs()} <= {
            dg.DagsterRunStatus.SUCCESS,
            dg.DagsterRunStatus.FAILURE,
        }


def test_export_of_a_predicted_sample_is_what_the_published_tool_writes(
    shell: Shell, shared: Path, tmp_path: Path
) -> None:
    golden = shared / "golden" / "vanilla"
    shell.good("predict", golden / "mixed_300.fa", "--profile", "demo", "--chunk-size", 300, "--out", "out")
    shell.good("export", "translations", "mixed_300", "--out", "golden")
    written = sorted((tmp_path / "golden").iterdir())
    assert len(written) == 3
    for file in written:
        assert file.read_bytes() == (golden / file.name).read_bytes(), file.name


def test_consensus_of_a_table_of_the_published_tool(shell: Shell, shared: Path, tmp_path: Path) -> None:
    golden = shared / "golden" / "vanilla"
    shell.good("consensus", golden / "predictions.txt", "--out", "consensus.csv")
    assert (tmp_path / "consensus.csv").read_bytes() == (golden / "predictions_consensus.csv").read_bytes()


def test_embed_agrees_with_the_golden_embeddings(shell: Shell, shared: Path, tmp_path: Path) -> None:
    golden = shared / "golden" / "dnabert_s_tiny"
    cases = json.loads((golden / "cases.json").read_text())
    (tmp_path / "cases.fa").write_text("".join(f">case{i} x\n{c['sequence']}\n" for i, c in enumerate(cases)))
    shell.good("embed", "dnabert-s", "cases.fa", "--weights", golden, "--out", "cases.h5")
    expected = np.load(golden / "mean_embeddings.npy")
    with h5py.File(tmp_path / "cases.h5") as file:
        assert [i.decode() for i in file["ids"][:]] == [f"case{i}" for i in range(len(cases))]
        found = file["embeddings"][:]
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-5
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_ten_thousand_reads_give_ten_thousand_rows(shell: Shell, tmp_path: Path) -> None:
    genome = "".join((DEMO / "viral.fa").read_text().split("\n")[1:690])
    letters = random.Random(7)
    with gzip.open(tmp_path / "reads.fastq.gz", "wt") as stream:
        for number in range(10_000):
            start = letters.randrange(len(genome) - 150)
            stream.write(f"@read{number} simulated\n{genome[start : start + 150]}\n+\n{'I' * 150}\n")
    shell.good("predict", "reads.fastq.gz", "--profile", "demo", "--chunk-size", 300, "--out", "out")
    calls = pd.read_csv(tmp_path / "out" / "contigs.tsv", sep="\t", keep_default_na=False)
    assert list(calls["record_id"]) == [f"read{n}" for n in range(10_000)]
    assert ((calls["call"] == "no_call") == (calls["reason"] != "")).all()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b">a\nACGT\n>a\nACGT\n", "line 3"),
        (b">p\nMKLFEILQ\n", "looks like protein"),
        (b"", "empty"),
        (b"\x00\x01\x02", "binary data"),
        (gzip.compress(b">a\nACGT\n" * 999, mtime=0)[:-9], "cut"),
    ],
    ids=["two ids", "protein", "empty", "binary", "cut"],
)
def test_bad_input_is_one_line_and_exit_2(shell: Shell, tmp_path: Path, content: bytes, line: str) -> None:
    (tmp_path / "bad.fa").write_bytes(content)
    said = shell.refused("predict", "bad.fa", "--profile", "demo", "--chunk-size", 300, "--out", "out")
    assert line in said
    assert "bad.fa" in said
    assert not (tmp_path / "out").exists()


EARLY = {
    ("absent.fa", "gone.fa", "--profile", "esm2-3b"): "absent.fa, gone.fa: no such files",
    ("a.fa", "--gpus", "0"): "'--gpus': 0 is not in the range",
    ("a.fa", "--sample", ""): "'' is not a sample name",
    ("a.fa", "--cutoff", "2"): "cutoff is 2.0; give 0 to 1",
    ("a.fa", "--out", "a.fa"): "a.fa: is not a folder",
    ("a.fa", "--out", "/proc/x"): "/proc: cannot be written",
    ("a.fa", "--out", ""): "'--out' / '-o': the path is empty",
    ("a.fa", "--out", "."): ".: holds a.fa, which VirNucPro did not write; give another --out, or --force",
    ("",): "the path is empty",
    ("a.fa", "--precision", "fp8"): "float32, but fp8 was requested; use --precision float32",
    ("a.fa", "--profile", "esm2-3b", "--device", "cpu"): "virnucpro models fetch",
}


@pytest.mark.parametrize("words", EARLY, ids=" ".join)
def test_what_can_be_known_is_said_before_anything_is_made(
    shell: Shell, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "a.fa").write_text(">a\nACGT\n")
    usual = ("predict", "--profile", "demo", "--chunk-size", 300, "--out", "out")
    assert EARLY[words] in shell.refused(*usual, *words)
    assert not (tmp_path / "home" / "samples").exists()
    assert not (tmp_path / "home" / "dagster").exists()
    assert not (tmp_path / "out").exists()


def test_check_says_what_would_be_done_and_does_nothing(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "a.fa").write_text(">a\nACGT\n")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "virnucpro.toml").write_text('profile = "demo"\nchunk-size = 300\nshard-rows = 7\n')
    del shell.environment["VIRNUCPRO_PROFILE"]
    done = shell.run("predict", "a.fa", "-o", "out", "--check")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("1 sample (1 file, 8 B): profile demo, chunks of 300, 1 lane on the CPU")
    assert done.stderr.splitlines()[-1] == "a: new; results in out"
    assert sorted(f.name for f in tmp_path.rglob("*")) == ["a.fa", "home", "virnucpro.toml"]
    shell.environment["VIRNUCPRO_CHUNK_SIZE"] = "500"
    assert "chunks of 500" in shell.good("predict", "a.fa", "-o", "out", "--check")
    said = shell.good("predict", "a.fa", "-o", "o\nut", "--check", "--chunk-size", 300)
    assert "chunks of 300" in said
    assert said.endswith("a: new; results in o\\nut\n")
    held = {
        e["setting"]: (e["value"], e["from"])
        for e in map(json.loads, shell.good("config", "--json").splitlines())
    }
    file = str(tmp_path / "home" / "virnucpro.toml")
    assert held["profile"] == ("demo", file)
    assert held["chunk-size"] == (500, "VIRNUCPRO_CHUNK_SIZE")
    assert held["shard-rows"] == (7, file)
    other = shell.good("config", "--home", tmp_path / "other")
    assert re.search(
        rf"^VIRNUCPRO_HOME +{re.escape(str(tmp_path / 'other'))}  \(--home\)$", other, re.MULTILINE
    )
    assert held["cutoff"] == (0.5, "default")
    assert held["token-budget"] == held["workers"] == ("by device", "default")
    assert {"VIRNUCPRO_HOME", "VIRNUCPRO_MODELS"} < held.keys()  # no keys of the file, so not in lower case
    assert not {"home", "weights"} & held.keys()
    shell.environment["VIRNUCPRO_CHUNKSIZE"] = "300"
    said = shell.good("config")
    assert "VIRNUCPRO_CHUNKSIZE is set, but there is no variable of this name" in said
    assert "do you mean VIRNUCPRO_CHUNK_SIZE?" in said
    (tmp_path / "home" / "virnucpro.toml").write_text("chunksize = 300\n")
    assert "virnucpro.toml: unknown setting 'chunksize'" in shell.refused("config")
    assert "do you mean chunk-size?" in shell.refused("predict", "a.fa", "-o", "out")


def test_nothing_is_overwritten_unless_it_is_said(predicted: Shell, tmp_path: Path) -> None:
    table = predicted.folder / "results" / "prediction_results.txt"
    for words in (
        ("consensus", table, "-o", tmp_path / "chunks.tsv"),
        ("export", "translations", "viral", "-o", tmp_path / "frames"),
    ):
        predicted.good(*words)
        before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
        assert "already exists; give another --out, or --force" in predicted.refused(*words)
        predicted.good(*words, "--force")
        assert {file: file.read_bytes() for file in before} == before


def test_quiet_prints_nothing_and_json_one_line_per_sample(predicted: Shell, tmp_path: Path) -> None:
    words = ("predict", DEMO / "viral.fa", "--profile", "demo", "--chunk-size", 300, "--gpus", 2,
             "--shard-rows", 20, "--out", tmp_path / "out")  # fmt: skip
    done = predicted.run(*words, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    [line] = predicted.run(*words, "--quiet", "--json").stdout.splitlines()
    shown = json.loads(line)
    assert shown["sample"] == "viral"
    assert shown["counts"]["records"] == 6
    assert Path(shown["report"]) == tmp_path / "out" / "report.html"


def test_usage_errors_name_what_to_do(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "a.fa").write_text(">a\nACGT\n")
    assert "no such file" in shell.refused("predict", "absent.fa", "--profile", "demo", "--out", "out")
    assert "no profile 'x'" in shell.refused("predict", "a.fa", "--profile", "x", "--out", "out")
    assert "none for 400" in shell.refused(
        "predict", "a.fa", "--profile", "demo", "--chunk-size", 400, "--out", "o"
    )
    assert "models fetch dnabert-s" in shell.refused(
        "predict", "a.fa", "--profile", "esm2-3b", "--out", "out"
    )
    assert "is not known" in shell.refused("export", "translations", "nobody", "--out", "out")
    assert "No such option" in shell.refused("predict", "a.fa", "--nonsense")


def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error_and_not_a_cpu_run(
    shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "a.fa").write_text(">a\n" + "ACG" * 60 + "\n")
    said = shell.refused(
        "predict", "a.fa", "--profile", "demo", "--chunk-size", 300, "--device", "cuda", "--out", "out"
    )
    assert "no CUDA device is usable" in said
    assert "--device cpu" in said


def test_an_interrupt_ends_the_lanes_and_the_same_command_resumes(shell: Shell, tmp_path: Path) -> None:
    words = (
        "predict",
        DEMO / "viral.fa",
        "--profile",
        "demo",
        "--chunk-size",
        300,
        "--shard-rows",
        8,
        "--out",
        "out",
    )
    process = shell.start(*words)
    shards = tmp_path / "home" / "samples" / "viral" / "dnabert_embeddings"
    deadline = time.monotonic() + 120
    while len(list(shards.glob("*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command resumes" in err
    kept = {f: f.stat().st_mtime_ns for f in shards.glob("*.json")}
    assert "were done before" in shell.good(*words)
    assert all(f.stat().st_mtime_ns == t for f, t in kept.items())


SIGNALLED = """
import atexit, os, signal, sys, time
from virnucpro_assets.cli import main as cli

class Tidied:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

def app(standalone_mode):
    if sys.argv[1] == "while an object is tidied up":
        Tidied()
        time.sleep(50)
    else:
        atexit.register(Tidied().__del__)

cli.app = app
cli.main()
"""


@pytest.mark.parametrize(
    ("moment", "code", "said"),
    [
        ("while an object is tidied up", 130, "virnucpro: interrupted; the same command resumes\n"),
        ("after the last word", 0, ""),
    ],
)
def test_a_signal_at_an_awkward_moment_shows_no_traceback_and_is_not_forgotten(
    moment: str, code: int, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, moment], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stderr, done.returncode) == (said, code)


def test_doctor_tells_what_is_there_and_what_is_missing(shell: Shell) -> None:
    assert "128 columns fit the classifier" in shell.good("doctor", "--profile", "demo")
    done = shell.run("doctor", "--profile", "esm2-3b", "--device", "cpu")
    assert done.returncode == 2
    assert "models fetch dnabert-s" in done.stdout
