"""Features of the published tool become a sample's embeddings: matched, marked, and never mixed with computed ones."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import DATA
from tests.support.feature_files import flip_a_byte, write_published
from virnucpro_core.devices.compute import Compute, LoaderSettings
from virnucpro_core.errors import InputError, StoreError, UsageError, VirnucproError, WeightsError
from virnucpro_core.models.classifier import Classifier, ClassifierNet, load_classifier
from virnucpro_core.models.convert import Origin, write_model_manifest
from virnucpro_core.models.golden import published
from virnucpro_core.models.profiles import resolve_profile
from virnucpro_core.models.store import ModelStore
from virnucpro_core.pipeline.embed import embed_lane
from virnucpro_core.pipeline.import_features import find_features, import_features
from virnucpro_core.pipeline.imported import RECORD, imported_features, read_import
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.precision import audit_precision
from virnucpro_core.pipeline.score import merge_lane, score_lane
from virnucpro_core.pipeline.steps import call_sample
from virnucpro_core.samples.products import DNABERT, EMBEDDINGS
from virnucpro_core.samples.sample import Sample, register
from virnucpro_core.samples.settings import SampleSettings

RECORDS = DATA / "golden_records.fa"
CPU = Compute("cpu", loader=LoaderSettings(workers=0))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """A model store with a seeded classifier of 3,328 columns, and no encoder."""
    store = ModelStore(tmp_path_factory.mktemp("models"))
    folder = store.path("virnucpro-500")
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = ClassifierNet(3328, 16)
    Classifier(net.state_dict(), device=torch.device("cpu"), chunk_size=500).save(folder)
    write_model_manifest(folder, "classifier", Origin(), {})
    return store


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return register(tmp_path / "home", "reads", [RECORDS], SampleSettings(shard_rows=3))


def run(sample: Sample, store: ModelStore, paths: list[Path], **options: bool):
    return import_features(
        sample,
        lambda record: resolve_profile("esm2-3b", 500, store, imported=record.features),
        find_features(paths),
        **options,
    )


def lane_of(sample: Sample, store: ModelStore, rank: int = 0, lanes: int = 1) -> Lane:
    features = imported_features(sample.folder, sample.settings)
    return Lane(sample, resolve_profile("esm2-3b", 500, store, imported=features), rank, lanes)


@pytest.mark.parametrize("chosen", [("nucleotide", "protein", "merged"), ("nucleotide", "protein")])
def test_imported_features_go_straight_on_to_results(
    sample: Sample, store: ModelStore, tmp_path: Path, chosen: tuple[str, ...]
) -> None:
    golden = published()
    folders = [f for f in write_published(golden, tmp_path / "old") if f.name.endswith(chosen)]
    made = run(sample, store, folders)
    assert (made.frames, made.shards) == (8, 3)
    assert made.vectors == (8 if "merged" in chosen else 16)
    for rank in (0, 1):
        lane = lane_of(sample, store, rank, 2)
        for product in EMBEDDINGS:
            assert embed_lane(lane, product, CPU, on_shard=lambda _: None).resumed == len(lane.shards)
        merge_lane(lane, on_shard=lambda _: None)
        score_lane(lane, CPU, on_shard=lambda _: None)
    lane = lane_of(sample, store)
    summary = call_sample(lane)
    scores = {
        line.split("\t")[0]: [float(n) for n in line.split("\t")[2:]]
        for line in (sample.results / "prediction_results.txt").read_text().splitlines()[1:]
    }
    expected = load_classifier(lane.profile.classifier).score(golden.features())
    np.testing.assert_allclose([scores[i] for i in golden.ids], expected, rtol=1e-6)
    # marked in every record
    record = read_import(sample.folder)
    assert record is not None
    assert record.matched_by == "id and sequence"
    assert record.origin == ", ".join(f.name for f in folders)
    facts = json.loads((sample.results / "run.json").read_text())
    assert facts["note"] == summary.note == record.note
    assert facts["products"][DNABERT]["imported"] == record.digest
    assert "precision" not in facts["products"][DNABERT]
    assert facts["digests"]["esm2"] == f"imported {record.digest}"
    assert facts["telemetry"][DNABERT]["devices"] == ["imported"]
    assert "were not computed here: they were imported from reads_nucleotide" in (
        sample.results / "report.html"
    ).read_text().replace("\n", " ")
    entry = lane.store(DNABERT).entry(0)
    assert entry is not None
    assert (entry.maker["imported"], entry.maker["origin"]) == (record.digest, record.origin)
    finding = audit_precision(lane, DNABERT, CPU)
    assert finding.passed
    assert "not computed here" in finding.what


def test_the_same_files_give_the_same_import_and_bytes(
    sample: Sample, store: ModelStore, tmp_path: Path
) -> None:
    folders = write_published(published(), tmp_path / "old")
    first = run(sample, store, folders).record
    lane = lane_of(sample, store)
    digests = [lane.store(p).entry(k).sha256 for p in EMBEDDINGS for k in lane.shards]
    again = run(sample, store, [tmp_path / "old"]).record
    assert first.digest == again.digest
    assert digests == [lane.store(p).entry(k).sha256 for p in EMBEDDINGS for k in lane.shards]


def test_a_missing_shard_is_not_computed_but_said(sample: Sample, store: ModelStore, tmp_path: Path) -> None:
    run(sample, store, write_published(published(), tmp_path / "old"))
    lane = lane_of(sample, store)
    lane.store(DNABERT).path(1).unlink()
    with pytest.raises(
        StoreError, match=r"1 of 3 shards of the imported dnabert_embeddings are missing or damaged;"
    ):
        embed_lane(lane, DNABERT, CPU, on_shard=lambda _: None)


def test_other_settings_than_those_of_the_import_are_refused(
    sample: Sample, store: ModelStore, tmp_path: Path
) -> None:
    run(sample, store, write_published(published(), tmp_path / "old"))
    for settings, line in (
        (SampleSettings(chunk_size=300), "for --chunk-size 500, not 300; give --chunk-size 500; or --fresh"),
        (SampleSettings(frames="open"), "for --frames full, not open; give --frames full; or --fresh"),
        (SampleSettings(profile="esm2-650m"), "for --profile esm2-3b, not esm2-650m; give --profile esm2-3b"),
    ):
        with pytest.raises(UsageError, match=line):
            imported_features(sample.folder, settings)
    (sample.folder / RECORD).write_text('{"format": 1}')
    with pytest.raises(StoreError, match=r"imported\.json: damaged"):
        read_import(sample.folder)


def test_computed_embeddings_are_not_replaced_unless_it_is_said(
    sample: Sample, store: ModelStore, tmp_path: Path
) -> None:
    folders = write_published(published(), tmp_path / "old")
    run(sample, store, folders)
    entry = next((sample.product(DNABERT)).glob("*.json"))
    other = run(sample, store, folders, trust_ids=True, force=True)  # another record: matched by id alone
    assert other.record.matched_by == "id alone"
    assert entry.exists()
    with pytest.raises(
        UsageError, match=r"has dnabert_embeddings already, and they are not of this import; --force"
    ):
        run(sample, store, folders)


def changed(path: Path, change) -> None:
    found = torch.load(path)
    change(found)
    torch.save(found, path)


def shift(found) -> None:
    found["data"] = found["data"] + 1


def twice(found) -> None:
    found["proteins"].append(found["proteins"][0])
    found["data"].append(found["data"][0] + 1)


def again(source: Path, target: Path, change) -> None:
    target.write_bytes(source.read_bytes())
    changed(target, change)


def shifted_dnabert(found) -> None:
    for one in found["data"]:
        one["mean_representation"] = [value + 1 for value in one["mean_representation"]]


def test_a_vector_that_is_there_twice_must_have_the_same_numbers(
    sample: Sample, store: ModelStore, tmp_path: Path
) -> None:
    nucleotide, protein, merged = write_published(published(), tmp_path / "old")
    other = protein / "output_9_ESM.pt"
    other.write_bytes((protein / "output_1_ESM.pt").read_bytes())
    assert run(sample, store, [nucleotide, protein]).vectors == 19  # equal numbers are no contradiction
    other.unlink()
    changed(protein / "output_3_ESM.pt", twice)
    with pytest.raises(UsageError, match=r"output_3_ESM\.pt: '.*' has another esm2 vector before in this"):
        run(sample, store, [nucleotide, protein], force=True)
    other = nucleotide / "output_9_DNABERT_S.pt"
    again(nucleotide / "output_1_DNABERT_S.pt", other, shifted_dnabert)
    with pytest.raises(
        UsageError,
        match=r"output_9_DNABERT_S\.pt: '.*' has another dnabert-s vector in .*output_1_DNABERT_S\.pt;",
    ):
        run(sample, store, [nucleotide, protein], force=True)
    again(merged / "output_1_merged.pt", merged / "output_9_merged.pt", shift)
    with pytest.raises(UsageError, match=r"has another dnabert-s vector in .*output_1_merged\.pt"):
        run(sample, store, [nucleotide, protein, merged], force=True)


@pytest.mark.parametrize(("factor", "is_same"), [(1.0, True), (1.001, True), (1.5, False)])
def test_frames_with_equal_sequences_have_about_the_same_vector(
    store: ModelStore, tmp_path: Path, factor: float, is_same: bool
) -> None:
    golden = published()
    text = RECORDS.read_text()
    (tmp_path / "twice.fa").write_text(text + text.replace(">", ">copy_"))
    sample = register(tmp_path / "home", "twice", [tmp_path / "twice.fa"], SampleSettings(shard_rows=3))
    copy = replace(
        golden,
        ids=tuple(f"copy_{name}" for name in golden.ids),
        vectors={kind: values * np.float32(factor) for kind, values in golden.vectors.items()},
    )
    folders = [*write_published(golden, tmp_path / "a"), *write_published(copy, tmp_path / "b")]
    if is_same:
        assert run(sample, store, folders).vectors == 16
        return
    with pytest.raises(
        UsageError, match=r"'copy_.*' has the sequence of another frame, but not its dnabert-s vector"
    ):
        run(sample, store, folders)


def test_a_few_merged_files_beside_all_separate_ones(
    sample: Sample, store: ModelStore, tmp_path: Path
) -> None:
    folders = write_published(published(), tmp_path / "old")
    (folders[2] / "output_2_merged.pt").unlink()
    with pytest.raises(
        UsageError,
        match=r"frames have no dnabert-s vector .*only .*merged.pt files were read; leave them out",
    ):
        run(sample, store, folders)
    os.mkfifo(folders[2] / "output_2_merged.pt")
    with pytest.raises(UsageError, match=r"output_2_merged\.pt: is no regular file"):
        find_features(folders)


@pytest.mark.parametrize("place", ["nucleotide", "protein", "merged"])
def test_a_changed_byte_of_a_feature_file_is_found(
    sample: Sample, store: ModelStore, tmp_path: Path, place: str
) -> None:
    folders = write_published(published(), tmp_path / "old")
    [folder] = [f for f in folders if f.name.endswith(place)]
    file = sorted(folder.glob("*.pt"))[0]
    flip_a_byte(file)
    given = folders if place == "merged" else folders[:2]
    with pytest.raises(WeightsError, match=rf"{file.name}: its entry '.*' is damaged \(CRC-32 differs\)"):
        run(sample, store, given)
    assert not sample.product(DNABERT).exists()


def rename(found) -> None:
    found["nucleotide"][0] = "other_chunk_1F1"
    found["data"][0]["label"] = "other_chunk_1F1"


@pytest.mark.parametrize(
    ("damage", "error", "line"),
    [
        (
            lambda n, p: changed(n / "output_1_DNABERT_S.pt", rename),
            UsageError,
            r"output_1_DNABERT_S\.pt: 'other_chunk_1F1' is no frame of sample 'reads'",
        ),
        (
            lambda n, p: (n / "output_2_DNABERT_S.pt").unlink(),
            UsageError,
            r"3 of 8 frames have no dnabert-s vector \(the first is 'synthetic_seq_2_chunk_1R2'\)",
        ),
        (
            lambda n, p: (p / "output_3.fa").unlink(),
            UsageError,
            r"the proteins of 2 frames were not found beside the features.*--trust-ids",
        ),
        (
            lambda n, p: (n / "output_1.fa").write_text(
                (n / "output_1.fa").read_text().replace("TTATTTCG", "TTATTTCC")
            ),
            InputError,
            r"output_1\.fa, record 'synthetic_seq_1_chunk_1R1': its letters are not those of this frame",
        ),
        (
            lambda n, p: [f.unlink() for f in p.glob("*.pt")],
            UsageError,
            r"no files \*_ESM\.pt in it; give the folders with the feature files",
        ),
    ],
)
def test_a_mismatch_is_named_and_nothing_is_changed(
    sample: Sample, store: ModelStore, tmp_path: Path, damage, error: type[VirnucproError], line: str
) -> None:
    nucleotide, protein, _ = write_published(published(), tmp_path / "old")
    damage(nucleotide, protein)
    with pytest.raises(error, match=line) as caught:
        run(sample, store, [nucleotide, protein])
    assert caught.value.exit_code == 2
    assert not (sample.folder / RECORD).exists()
    assert not sample.product(DNABERT).exists()
