"""The published tool's two tables: byte for byte, in any order of rows, and refused when damaged."""

import io
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_core.errors import InputError
from virnucpro_core.results.chunk_calls import (
    CHUNK_CALLS_HEADER,
    PREDICTIONS_HEADER,
    SortedRows,
    consensus_from_predictions,
    prediction_rows,
    write_chunk_calls,
)
from virnucpro_core.results.rows import Texts, decimals

HEADER = PREDICTIONS_HEADER.decode()


def test_consensus_equals_the_golden_file(shared: Path, tmp_path: Path) -> None:
    golden = shared / "golden" / "vanilla"
    number = consensus_from_predictions(golden / "predictions.txt", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == (golden / "predictions_consensus.csv").read_bytes()
    assert number == 259


def test_golden_predictions_survive_float32(shared: Path) -> None:
    golden = (shared / "golden" / "vanilla" / "predictions.txt").read_bytes()
    rows = [line.split("\t") for line in golden.decode().splitlines()[1:]]
    names = Texts([row[0].encode() for row in rows])
    scores = np.array([row[2:] for row in rows], dtype=np.float32)
    written = prediction_rows([names], scores, [decimals(column) for column in scores.T])
    assert PREDICTIONS_HEADER + written == golden


def test_scores_are_printed_as_numpy_prints_float32() -> None:
    scores = np.float32(
        [[1e-4, 1 - 1e-4], [1.2e-5, 1], [0, 1], [np.nextafter(np.float32(1), np.float32(0)), 6e-8]]
    )
    written = prediction_rows([b"aF1"], scores, [decimals(column) for column in scores.T])
    assert [row.split(b"\t")[2:] for row in written.splitlines()] == [
        [b"1e-04", b"0.9999"],
        [b"1.2e-05", b"1.0"],
        [b"0.0", b"1.0"],
        [b"0.99999994", b"6e-08"],
    ]


def test_rows_may_come_shuffled_and_spill_to_disk(shared: Path, tmp_path: Path) -> None:
    golden = shared / "golden" / "vanilla"
    rows = (golden / "predictions.txt").read_text().splitlines()[1:]
    random.Random(3).shuffle(rows)
    calls = SortedRows(tmp_path, run_rows=50)
    for row in rows:
        name, _, others, virus = row.split("\t")
        calls.add([f"{name[:-2]}\t{others}\t{virus}\n".encode()])
    stream = io.BytesIO()
    write_chunk_calls(calls, stream)
    assert stream.getvalue() == (golden / "predictions_consensus.csv").read_bytes()
    assert list(tmp_path.iterdir()) == []


SCORES = st.integers(0, 8).map(lambda k: k / 8)


@given(
    st.lists(st.tuples(st.sampled_from(["a_chunk_1", "a_chunk_10", "a_chunk_2", "é", "Z"]), SCORES, SCORES)),
    st.integers(1, 4),
)
def test_consensus_is_the_plain_loop(rows: list[tuple[str, float, float]], run_rows: int) -> None:
    others: dict[str, float] = {}
    virus: dict[str, float] = {}
    for name, first, second in rows:
        others[name] = max(first, others.get(name, 0.0))
        virus[name] = max(second, virus.get(name, 0.0))
    expected = "".join(f"{name}\t{virus[name] >= others[name]}\n" for name in sorted(others))

    calls = SortedRows(Path(tempfile.gettempdir()), run_rows=run_rows)
    calls.add(f"{name}\t{a}\t{b}\n".encode() for name, a, b in rows)
    stream = io.BytesIO()
    assert write_chunk_calls(calls, stream) == len(others)
    assert stream.getvalue() == CHUNK_CALLS_HEADER + expected.encode()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Sequence_ID,Prediction,score1,score2\n", 1),
        ("", 1),
        (HEADER + "a_chunk_1F1\tvirus\t0.5\t0.5\na_chunk_1F2\tvirus\t0.5\n", 3),
        (HEADER + "a_chunk_1F1\tvirus\t0.5\t0.5\t0.5\n", 2),
        (HEADER + "a_chunk_1\tvirus\t0.5\t0.5\n", 2),
        (HEADER + "F1\tvirus\t0.5\t0.5\n", 2),
        (HEADER + "a_chunk_1F1\tVirus\t0.5\t0.5\n", 2),
        (HEADER + "a_chunk_1F1\tvirus\tnan\t0.5\n", 2),
        (HEADER + "a_chunk_1F1\tvirus\t0.5\t1.5\n", 2),
        (HEADER + "a_chunk_1F1\tvirus\t0.1.2\t0.5\n", 2),
        (HEADER + "a_chunk_1F1\tvirus\t0.5\t0.5\n\n", 3),
    ],
)
def test_a_malformed_table_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    table, out = tmp_path / "predictions.txt", tmp_path / "out" / "calls.csv"
    table.write_text(text)
    with pytest.raises(InputError) as caught:
        consensus_from_predictions(table, out)
    assert str(caught.value).startswith(f"{table}, line {line}: ")
    assert list(out.parent.iterdir()) == []


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        consensus_from_predictions(tmp_path / "none.txt", tmp_path / "out.csv")
    with pytest.raises(InputError, match="not a regular file"):
        consensus_from_predictions(tmp_path, tmp_path / "out.csv")


def test_line_ends_of_windows_are_read(tmp_path: Path) -> None:
    table = tmp_path / "predictions.txt"
    table.write_bytes(
        (HEADER + "a_chunk_1F1\tothers\t0.75\t0.25\nb_chunk_1R3\tothers\t0.5\t0.5")
        .replace("\n", "\r\n")
        .encode()
    )
    assert consensus_from_predictions(table, tmp_path / "out.csv") == 2
    assert (tmp_path / "out.csv").read_text() == "Modified_ID\tIs_Virus\na_chunk_1\tFalse\nb_chunk_1\tTrue\n"
