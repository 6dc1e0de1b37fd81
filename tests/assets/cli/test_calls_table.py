"""The table of calls at any width and in a pipe, and progress on a terminal that cannot redraw."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.terminals import terminal
from virnucpro_assets.cli.calls_table import print_calls
from virnucpro_assets.cli.progress import Said, _Bars, _Lines, _Quiet, _tail, _view
from virnucpro_assets.cli.transfer import shown_transfer
from virnucpro_core.engine.telemetry import Progress
from virnucpro_core.results.record_calls import CONTIGS_HEADER, shown_score

LONG = "a_very_long_id_of_an_assembler_" * 3
ROWS = [
    (LONG + "1", "48502", "virus", "0.80019999", "99", "162", "132", ""),
    (LONG + "2", "150", "no_call", "", "0", "1", "0", "no stop-free frame in any of the six directions"),
    ("short", "1500", "others", "0.4999999", "5", "6", "6", ""),
]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A results folder of three records."""
    names = CONTIGS_HEADER.decode().strip().split("\t")
    fields = ("record_id", "length", "call", "score", "chunks_scored", "chunks", "frames", "reason")
    lines = ["\t".join(dict(zip(fields, row, strict=True))[name] for name in names) for row in ROWS]
    (tmp_path / "contigs.tsv").write_text("\n".join(["\t".join(names), *lines, ""]))
    (tmp_path / "run.json").write_text('{"counts": {"records": 25, "calls": {"virus": 1}}}')
    return tmp_path


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_narrow_terminal_shows_whole_ids_and_drops_columns(
    out: Path, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    with terminal() as shown:
        monkeypatch.setattr(sys, "stdout", shown.stream)
        print_calls(out)
        printed = shown.printed()
    assert "\x1b" not in printed
    lines = printed.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert "…" not in printed
    first = "".join(line.split(" ")[0] for line in lines[1:-1])
    assert first == LONG + "1" + LONG + "2" + "short"
    assert lines[0].split()[0] == "record"
    assert "call" in lines[0]
    assert ("frames" in lines[0]) == (width == 200)
    assert "0.4999" in printed
    assert lines[-1] == "... and 22 more in contigs.tsv"


def test_a_pipe_gets_every_column_whole(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_calls(out)
    head, *rows, _ = capsys.readouterr().out.splitlines()
    assert head.split() == ["record", "length", "call", "score", "scored/chunks", "frames", "reason"]
    assert [row.split()[0] for row in rows] == [row[0] for row in ROWS]
    assert rows[1].rstrip().endswith(ROWS[1][-1])


def test_chunks_scored_by_open_frames_have_a_column_where_there_are_some(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, *rows = (out / "contigs.tsv").read_text().splitlines()
    counts = ("12", "0", "5")
    lines = [f"{head}\tchunks_open", *(f"{row}\t{n}" for row, n in zip(rows, counts, strict=True))]
    (out / "contigs.tsv").write_text("\n".join([*lines, ""]))
    print_calls(out)
    head, *rows, _ = capsys.readouterr().out.splitlines()
    assert head.split() == ["record", "length", "call", "score", "scored/chunks", "open", "frames", "reason"]
    assert [row.split()[-2:] for row in (rows[0], rows[2])] == [["12", "132"], ["5", "6"]]


@pytest.mark.parametrize(
    ("score", "shown"),
    [(0.4999999, "0.4999"), (0.5, "0.5000"), (1.0, "1.0000"), (0.0, "0.0000"), (0.29, "0.2900")],
)
def test_a_score_is_cut_and_not_rounded(score: float, shown: str) -> None:
    assert shown_score(score) == shown


@pytest.mark.parametrize(
    ("term", "said", "kind"),
    [("xterm", Said(), _Bars), ("dumb", Said(), _Lines), ("xterm", Said(quiet=True), _Quiet)],
)
def test_a_dumb_terminal_gets_lines(
    term: str, said: Said, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("NO_COLOR", raising=False)
    with terminal() as shown:
        monkeypatch.setattr(sys, "stderr", shown.stream)
        assert type(_view(said, named=False)) is kind


def _with_progress(out: Path) -> None:
    """Prints all that a command may decorate: progress, transfer and the table of calls."""
    view = _view(Said(), named=False)
    with view:
        view.print("reading ...")
    with shown_transfer() as on_bytes:
        on_bytes("model.safetensors", 10, 10)
    print_calls(out)


@pytest.mark.parametrize(
    ("variables", "is_plain"),
    [
        ({"TERM": "xterm"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1", "FORCE_COLOR": "1"}, True),
        ({"TERM": "dumb"}, True),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True),
    ],
)
def test_no_escape_code_with_no_color_or_in_a_dumb_terminal(
    out: Path, variables: dict[str, str], *, is_plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with terminal() as shown:
        monkeypatch.setattr(sys, "stdout", shown.stream)
        monkeypatch.setattr(sys, "stderr", shown.stream)
        _with_progress(out)
        printed = shown.printed()
    assert "virus" in printed
    assert "model.safetensors" in printed
    assert ("\x1b" not in printed) == is_plain


def test_no_escape_code_without_a_terminal(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    _with_progress(out)
    said = capsys.readouterr()
    assert "virus" in said.out
    assert "\x1b" not in said.out + said.err


@pytest.mark.parametrize("words", [["predict", "--help"], ["predict", "--nope"]])
def test_help_and_errors_are_plain_text(words: list[str]) -> None:
    command = [sys.executable, "-m", "virnucpro_assets.cli.main", *words]
    with terminal() as shown:
        environment = {**os.environ, "NO_COLOR": "1", "TERM": "xterm"}
        done = subprocess.run(
            command, env=environment, cwd=ROOT, check=False, timeout=60,
            stdout=subprocess.PIPE, stderr=shown.stream,
        )  # fmt: skip
        printed = done.stdout.decode() + shown.printed()
    assert "--help" in printed
    assert "\x1b" not in printed


def test_a_lane_that_failed_is_not_called_done() -> None:
    state: dict[str, Any] = {
        "product": "esm_embeddings",
        "rank": 0,
        "world_size": 1,
        "device": "cpu",
        "resumed": 0,
        "total": 70,
    }
    rates = {"seconds": 1.0, "sequences_per_second": 0.0, "tokens_per_second": 0.0}
    assert _tail(Progress(**state, **rates, done=0, ended=True)) == "stopped"
    assert _tail(Progress(**state, **rates, done=70, ended=True)) == "done"
