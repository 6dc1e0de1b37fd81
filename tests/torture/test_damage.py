"""A sample of `torture/damage.py`, and that each step by itself looks before it trusts."""

import logging
import shutil
from pathlib import Path

import pytest

from torture.damage import run_damage
from torture.pipeline import Pipeline, write_reads
from virnucpro_core.devices.compute import Compute, LoaderSettings
from virnucpro_core.errors import StoreError, UsageError, WeightsError
from virnucpro_core.files import manifest
from virnucpro_core.models.profiles import DEMO
from virnucpro_core.pipeline.embed import embed_lane
from virnucpro_core.pipeline.steps import call_sample, translate_sample
from virnucpro_core.samples.products import DNABERT

COMPUTE = Compute("cpu", loader=LoaderSettings(workers=0))


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path / "home", write_reads(tmp_path / "reads.fa"))


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_damage_is_found_by_name_and_mended_or_refused(tmp_path: Path) -> None:
    row = run_damage(tmp_path, seconds=20, seed=5, points=40)
    assert row.findings == []
    assert row.clean


def test_translations_do_not_trust_damaged_chunks(pipeline: Pipeline) -> None:
    sample = pipeline.prepared(pipeline.register())
    shutil.rmtree(sample.translations)
    _flip(sample.chunks / "sequences.bin")
    with pytest.raises(StoreError, match="column sequences is damaged"):
        translate_sample(sample)


def test_a_lane_does_not_trust_damaged_translations(pipeline: Pipeline) -> None:
    sample = pipeline.prepared(pipeline.register())
    _flip(sample.translations / "nucleotides.bin")
    with pytest.raises(StoreError, match="column nucleotides is damaged"):
        embed_lane(pipeline.lane(sample, 0), DNABERT, COMPUTE, on_shard=lambda _: None)


def test_results_are_not_written_from_damaged_chunks(pipeline: Pipeline) -> None:
    sample = pipeline.run()
    _flip(sample.chunks / "ids.bin")
    with pytest.raises(StoreError, match="column ids is damaged"):
        call_sample(pipeline.lane(sample, 0))


def test_weights_that_rot_after_the_start_are_refused_when_a_lane_loads_them(tmp_path: Path) -> None:
    models = shutil.copytree(DEMO, tmp_path / "models")
    pipeline = Pipeline(tmp_path / "home", write_reads(tmp_path / "reads.fa"), models=models)
    sample = pipeline.prepared(pipeline.register())
    lane = pipeline.lane(sample, 0)  # resolved while they were sound
    _flip(models / "dnabert_s" / "model.safetensors")
    with pytest.raises(WeightsError, match=r"dnabert_s: model\.safetensors is damaged"):
        embed_lane(lane, DNABERT, COMPUTE, on_shard=lambda _: None)
    assert not list(sample.product(DNABERT).glob("*.h5"))


def test_a_model_is_read_against_its_digests_once_a_process_and_again_when_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(DEMO / "esm2", tmp_path / "esm2")
    read: list[Path] = []
    monkeypatch.setattr(manifest, "verify", read.append)
    for _ in range(3):
        manifest.verify_once(folder)
    assert read == [folder]
    shutil.copy(DEMO / "esm2" / "config.json", folder / "config.json")
    manifest.verify_once(folder)
    assert read == [folder, folder]


def test_a_damaged_sample_is_written_anew_only_where_its_chunks_are_of_the_same_file(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    sample = pipeline.prepared(pipeline.register())
    whole = (sample.folder / "sample.json").read_bytes()
    _flip(sample.folder / "sample.json")
    with caplog.at_level(logging.WARNING):
        assert pipeline.register() == sample
    assert "sample.json" in caplog.text
    assert (sample.folder / "sample.json").read_bytes() == whole
    pipeline.reads.write_text(">other\nACGTACGT\n")
    with pytest.raises(UsageError, match="already stands for other sequences"):
        pipeline.register()
    _flip(sample.folder / "sample.json")
    with pytest.raises(StoreError, match=r"sample\.json: damaged .*with the same file; --fresh discards"):
        pipeline.register()
