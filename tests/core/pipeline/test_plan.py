"""The estimate of a sample agrees with what it really contains, and stores nothing."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.measured import write_reads
from torture.pipeline import Pipeline
from virnucpro_core.errors import InputError
from virnucpro_core.files.disk import bytes_below
from virnucpro_core.models.profiles import DEMO, resolve_profile
from virnucpro_core.models.store import ModelStore
from virnucpro_core.pipeline import plan as planning
from virnucpro_core.pipeline.pace import RESULTS, SCORES, SEQUENCES, Pace
from virnucpro_core.pipeline.plan import plan_sample
from virnucpro_core.samples.products import DNABERT, ESM
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.sequences.chunks import write_chunks
from virnucpro_core.sequences.fasta import read_records
from virnucpro_core.sequences.frames import write_frames

SETTINGS = SampleSettings(profile="demo", chunk_size=300)
EACH = {SEQUENCES: 1e-3, DNABERT: 2e-3, ESM: 8e-3, SCORES: 4e-3, RESULTS: 5e-4}


def planned(*files: Path, pace: Pace = Pace({}), lanes: int = 1, min_open: int = 0) -> planning.Plan:  # noqa: B008 - immutable
    settings = replace(SETTINGS, frames="open", min_open=min_open) if min_open else SETTINGS
    profile = resolve_profile("demo", 300, ModelStore(DEMO))
    return plan_sample(files, settings, profile, pace=pace, kind="demo, float32, cpu", lanes=lanes)


@pytest.mark.parametrize("min_open", [0, 40])
def test_a_small_sample_is_counted_exactly(tmp_path: Path, min_open: int) -> None:
    file = DEMO / "viral.fa"
    chunks = write_chunks([file], tmp_path / "chunks", chunk_size=300)
    frames = write_frames(chunks, tmp_path / "frames", min_open=min_open)
    counts = planned(file, min_open=min_open).counts
    assert counts.exact
    assert (counts.records, counts.chunks) == (6, chunks.n_chunks)
    assert counts.bases == sum(len(record.sequence) for record in read_records([file]))
    assert (counts.frames, counts.unique_frames) == (frames.n_frames, frames.n_unique)
    assert counts.tokens[ESM] == frames.proteins.lengths.sum() + 2 * frames.n_unique
    assert frames.n_unique * 40 < counts.tokens[DNABERT] < frames.n_unique * 300


def as_fastq(fasta: Path, out: Path) -> Path:
    records = [
        f"@{r.id} x\n{r.sequence.decode()}\n+\n{'I' * len(r.sequence)}\n" for r in read_records([fasta])
    ]
    out.write_text("".join(records))
    return out


@pytest.mark.parametrize("form", ["fasta", "fasta.gz", "fastq", "fastq.gz", "two files"])
def test_a_large_sample_is_estimated_from_its_beginning(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "BASES", 100_000)
    monkeypatch.setattr(planning, "RATIO_BYTES", 50_000)
    file = tmp_path / "reads.fa"
    write_reads(file, 8_000, seed=1)
    chunks = write_chunks([file], tmp_path / "chunks", chunk_size=300)
    frames = write_frames(chunks, tmp_path / "frames")
    if form.startswith("fastq"):
        file = as_fastq(file, tmp_path / "reads.fq")
    if form.endswith(".gz"):
        packed = file.with_name(file.name + ".gz")
        packed.write_bytes(gzip.compress(file.read_bytes(), mtime=0))
        file = packed
    files = [file]
    if form == "two files":
        other = tmp_path / "more.fa"
        write_reads(other, 4_000, seed=2)
        files.append(other)
    scale = len(files) if form != "two files" else 1.5
    counts = planned(*files).counts
    assert not counts.exact
    assert counts.records == pytest.approx(8_000 * scale, rel=0.05)
    assert counts.bases == pytest.approx(8_000 * 150 * scale, rel=0.05)
    assert counts.unique_frames == pytest.approx(frames.n_unique * scale, rel=0.1)


def test_disk_and_time_are_those_of_the_sample_and_of_the_lanes(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "home", DEMO / "viral.fa")
    pipeline.run()
    sample = pipeline.register()
    plan = planned(DEMO / "viral.fa")
    assert plan.total_seconds is None
    assert bytes_below(sample.folder) == pytest.approx(plan.disk_bytes, rel=0.6)
    pace = Pace({step: {"demo, float32, cpu": seconds} for step, seconds in EACH.items()})
    unique = plan.counts.unique_frames
    assert planned(DEMO / "viral.fa", pace=pace).total_seconds == pytest.approx(unique * sum(EACH.values()))
    shared = sum(EACH[step] for step in (DNABERT, ESM, SCORES)) / 2 + EACH[SEQUENCES] + EACH[RESULTS]
    assert planned(DEMO / "viral.fa", pace=pace, lanes=2).total_seconds == pytest.approx(unique * shared)
    assert planned(DEMO / "viral.fa", pace=Pace({ESM: {"demo, float32, cpu": 1.0}})).total_seconds is None


def test_a_file_that_would_be_refused_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.fa").write_text("no sequence")
    with pytest.raises(InputError, match="neither FASTA nor FASTQ"):
        planned(tmp_path / "x.fa")
