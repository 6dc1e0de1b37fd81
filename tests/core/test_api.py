"""The public interface: lazy names, in-memory steps that equal the pipeline's, refusals."""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import virnucpro_core as vp
from tests.support import ROOT
from virnucpro_core.errors import InputError, StoreError, UsageError
from virnucpro_core.models.profiles import DEMO, NO_MEANING
from virnucpro_core.sequences.chunks import write_chunks
from virnucpro_core.sequences.export import export_translations
from virnucpro_core.sequences.frames import write_frames

TEXT = (
    ">a one\n" + "ACGTTGCAN" * 70 + "\n>short\nAC\n>b\n" + "GATTACA" * 20 + "\n>strange\nAC-GT\n>u\nACGUU\n"
)


def test_importing_the_package_imports_nothing_heavy() -> None:
    """Not torch, not pandas, not even numpy; reading records does not need torch either."""
    code = (
        "import sys, virnucpro_core as vp\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'dnaio'} & set(sys.modules)))\n"
        "vp.read_records, vp.cut, vp.translate, vp.call_records, vp.write_results, vp.read_results\n"
        "print(sorted({'torch', 'pandas', 'dagster'} & set(sys.modules)))\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert said.stdout.split("\n")[:2] == ["[]", "[]"]


def test_every_public_name_is_there_and_has_a_docstring() -> None:
    assert set(vp.__all__) <= set(dir(vp))
    for name in vp.__all__:
        assert name == "__version__" or len(getattr(vp, name).__doc__) > 40, name
    assert not hasattr(vp, "nothing")


def test_the_version_has_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    assert vp.__version__ == importlib.metadata.version("virnucpro")
    command = [sys.executable, "-m", "virnucpro_assets.cli.main", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert said.stdout.split()[-1] == vp.__version__
    assert f"\nversion: {vp.__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "reads.fa").write_text(TEXT)
    return tmp_path / "reads.fa"


@pytest.mark.parametrize("size", [50, 300, 500])
def test_cut_and_translate_are_the_pipeline_s(file: Path, tmp_path: Path, size: int) -> None:
    chunks = vp.cut(vp.read_records(str(file)), size)
    frames = vp.translate(chunks)
    store = write_chunks([file], tmp_path / "chunks", chunk_size=size)
    paths = export_translations(store, write_frames(store, tmp_path / "frames"), tmp_path, "x")
    _, nucleotides, proteins = (path.read_bytes() for path in paths)
    assert [c.id for c in chunks] == store.chunk_ids(0, store.n_chunks)
    assert [c.index for c in chunks] == list(range(store.n_chunks))
    for chunk in chunks:
        record = vp.read_records(file)[chunk.record]
        assert record.sequence[chunk.start :].startswith(chunk.sequence)
    assert b"".join(b">%b\n%b\n" % (f.id.encode(), f.nucleotides) for f in frames) == nucleotides
    assert b"".join(b">%b\n%b\n" % (f.id.encode(), f.protein) for f in frames) == proteins
    assert all(chunks[f.chunk].id + f.name == f.id for f in frames)


@settings(max_examples=30)
@given(st.lists(st.text("ACGTN", min_size=1, max_size=90), min_size=1, max_size=8), st.integers(3, 60))
def test_translation_does_not_depend_on_how_chunks_are_grouped(sequences: list[str], size: int) -> None:
    records = [vp.Record(f"r{i}", "", s.encode(), 0, i + 1) for i, s in enumerate(sequences)]
    chunks = vp.cut(records, size)
    assert vp.translate(chunks) == [frame for chunk in chunks for frame in vp.translate([chunk])]
    assert vp.translate([]) == []


def test_calls_say_what_the_tables_say(file: Path, tmp_path: Path) -> None:
    records = vp.read_records([file])
    frames = vp.translate(vp.cut(records, 300))
    virus = np.linspace(0.1, 0.9, len(frames), dtype=np.float32)
    calls = vp.call_records(records, frames, np.stack([1 - virus, virus], axis=1), chunk_size=300, cutoff=0.6)
    assert [c.id for c in calls] == ["a", "short", "b", "strange", "u"]
    assert calls[1].call == "no_call"
    assert calls[1].score is None
    assert "letter '-'" in calls[3].reason
    assert isinstance(calls[:2], list)
    summary = vp.write_results(calls, tmp_path / "out", sample="mine", models=vp.find_models("demo", 300))
    assert (summary.sample, summary.note) == ("mine", NO_MEANING)
    table = vp.read_results(tmp_path / "out")
    assert list(table["record_id"]) == [c.id for c in calls]
    assert list(table["call"]) == [c.call for c in calls]
    assert [None if np.isnan(s) else s for s in table["score"]] == [c.score for c in calls]
    assert list(table["reason"]) == [c.reason for c in calls]
    assert table["length"].dtype == np.int64
    (tmp_path / "out" / "contigs.tsv").write_text("else\n")
    with pytest.raises(StoreError, match=r"contigs\.tsv: missing, or its sha256 is not the one in run\.json"):
        vp.read_results(tmp_path / "out")


def test_an_id_that_pandas_would_take_for_missing_or_quoted_is_a_string(tmp_path: Path) -> None:
    (tmp_path / "odd.fa").write_text('>NA\nACGACG\n>"q\nACGACG\n>007\nACGACG\n')
    records = vp.read_records(tmp_path / "odd.fa")
    frames = vp.translate(vp.cut(records))
    scores = np.full((len(frames), 2), 0.5, np.float32)
    vp.write_results(vp.call_records(records, frames, scores), tmp_path / "out")
    assert list(vp.read_results(tmp_path / "out")["record_id"]) == ["NA", '"q', "007"]


def test_what_does_not_belong_together_is_refused(file: Path) -> None:
    records = vp.read_records(file)
    frames = vp.translate(vp.cut(records, 50))
    scores = np.full((len(frames), 2), 0.5, np.float32)
    with pytest.raises(UsageError, match=r"frames are not the .* in chunks of 300 bases"):
        vp.call_records(records, frames, scores, chunk_size=300)
    with pytest.raises(UsageError, match="frames are not the"):
        vp.call_records(records, frames[1:], scores[1:], chunk_size=50)
    with pytest.raises(UsageError, match=r"scores of shape \(2,\)"):
        vp.call_records(records, frames, scores[0], chunk_size=50)
    with pytest.raises(UsageError, match=r"cut-off 1\.5 is not from 0 to 1"):
        vp.call_records(records, frames, scores, chunk_size=50, cutoff=1.5)
    with pytest.raises(StoreError, match="not two probabilities"):
        vp.call_records(records, frames, scores * np.nan, chunk_size=50)
    with pytest.raises(UsageError, match="two records have one id"):
        vp.cut([*records, records[0]])
    with pytest.raises(UsageError, match="no records"):
        vp.cut([])
    with pytest.raises(UsageError, match="chunk size 2 is shorter than a codon"):
        vp.cut(records, 2)
    with pytest.raises(InputError, match=r"No such file"):
        vp.read_records("absent.fa")
    with pytest.raises(UsageError, match="the models of profile esm2-3b are in a model store"):
        vp.find_models("esm2-3b")
    with pytest.raises(UsageError, match="there is no profile 'x'"):
        vp.find_models("x")
    assert vp.find_models("demo").esm2 == DEMO / "esm2"
