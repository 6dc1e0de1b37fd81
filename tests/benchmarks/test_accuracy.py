"""`python -m benchmarks.accuracy`: the peers' tables are read as those programs write them, and who is missing is said.

genomad.tsv and jaeger.tsv are what geNomad 1.13.0 and Jaeger 1.26.5 wrote for genomes of the demo, with other ids.
"""

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import accuracy
from benchmarks.accuracy import COMMON, NOT_INSTALLED, genomad_scores, jaeger_scores, main, peers

GENOMAD, JAEGER = (Path(__file__).with_name(f"{name}.tsv").read_text() for name in ("genomad", "jaeger"))
VIRUS = [">a", "ACGT" * 700, ">b", "GATC" * 710]
OTHERS = [">c", "CATG" * 720, ">d", "TTGA" * 200]


def tables(folder: Path) -> tuple[Path, Path]:
    """The recorded tables in the places where the programs write them, for records.fa."""
    one = folder / "g" / "records_nn_classification" / "records_nn_classification.tsv"
    other = folder / "j" / "default" / "records_jaeger.tsv"
    for path, text in ((one, GENOMAD), (other, JAEGER)):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return one, other


def test_a_peers_table_is_read_as_it_writes_it(tmp_path: Path) -> None:
    tables(tmp_path)
    fasta = tmp_path / "records.fa"
    assert genomad_scores(fasta, tmp_path / "g") == {"r0": 0.5542, "r1": 0.9456, "r2": 0.8992, "r3": 0.8312}
    found = jaeger_scores(fasta, tmp_path / "j")
    assert list(found) == ["r0", "r1", "r2"]  # it leaves out short records
    logits = np.array([0.380, 4.852, -6.727, -3.299])
    assert found["r0"] == pytest.approx(np.exp(4.852) / np.exp(logits).sum())
    assert found["r1"] > 0.99
    assert found["r2"] < 0.5


def stand_in(path: Path, table: str, place: str) -> None:
    """A program that writes the recorded table where the peer does; its last word is the output folder."""
    path.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\n"
        "if '--version' in sys.argv: sys.exit(print('stand-in, version 1.2'))\n"
        f"table = pathlib.Path(sys.argv[-1]) / {place!r}\n"
        f"table.parent.mkdir(parents=True)\ntable.write_text({table!r})\n"
    )
    path.chmod(0o755)


def compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object], str]:
    (folder / "v.fa").write_text("\n".join(VIRUS) + "\n")
    (folder / "o.fa").write_text("\n".join(OTHERS) + "\n")
    words = f"--virus {folder}/v.fa --others {folder}/o.fa --peers {folder}/bin --bootstrap 5 --frames= --out {folder}"
    code = main(shlex.split(words))
    text = capsys.readouterr().out
    result = json.loads(text.splitlines()[-1])
    assert json.loads((folder / "accuracy.json").read_text()) == result
    return code, result, text


def test_programs_are_measured_on_the_same_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bin").mkdir()
    stand_in(tmp_path / "bin" / "genomad", GENOMAD, "records_nn_classification/records_nn_classification.tsv")
    stand_in(tmp_path / "bin" / "jaeger", JAEGER, "default/records_jaeger.tsv")
    code, result, text = compared(tmp_path, capsys)
    assert code == 0
    rows = {(row["program"], row["part"]): row for row in result["rows"]}  # type: ignore[attr-defined]
    one, other = rows["geNomad", "all"], rows["Jaeger", "all"]
    assert (one["virus"], one["others"], one["no_call"]) == (2, 2, 0)
    assert (other["virus"], other["others"], other["no_call"]) == (2, 1, 1)
    assert (one["auroc"]["value"], other["auroc"]["value"]) == (0.5, 1.0)
    assert rows["geNomad", COMMON]["others"] == rows["Jaeger", COMMON]["others"] == 1
    assert {p["version"] for p in result["programs"]} == {"stand-in, version 1.2"}  # type: ignore[attr-defined]
    assert "1.000" in text


def test_a_peer_that_is_missing_or_fails_has_a_row_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bin").mkdir()
    code, result, text = compared(tmp_path, capsys)
    assert code == 0
    assert [row["status"] for row in result["rows"]] == [NOT_INSTALLED] * 2  # type: ignore[attr-defined]
    assert text.count(NOT_INSTALLED) >= 2
    (tmp_path / "bin" / "jaeger").write_text("#!/bin/sh\necho no memory >&2\nexit 5\n")
    (tmp_path / "bin" / "jaeger").chmod(0o755)
    stand_in(
        tmp_path / "bin" / "genomad", "no table\n", "records_nn_classification/records_nn_classification.tsv"
    )
    code, result, _ = compared(tmp_path, capsys)
    assert code == 1
    genomad, jaeger = (row["status"] for row in result["rows"])  # type: ignore[attr-defined]
    assert jaeger == "failed with exit code 5: no memory"
    assert genomad.startswith("its output cannot be read: ")


def test_the_commands_are_those_of_the_peers() -> None:
    genomad, jaeger = (p.command(Path("r.fa"), Path("out"), 2) for p in peers(Path("/p")))
    assert genomad == ["/p/genomad", "nn-classification", "--threads", "2", "r.fa", "out"]
    assert jaeger == ["/p/jaeger", "predict", "--cpu", "--workers", "2", "-i", "r.fa", "-o", "out"]
    assert "genomad==" in Path(accuracy.__file__).with_name("accuracy-requirements.txt").read_text()
