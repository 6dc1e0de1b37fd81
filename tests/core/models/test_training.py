"""Training: whole groups are held out, the epoch and the seed are chosen by others than those that are evaluated."""

import html
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.genomes import LABELS_TABLE, write_genomes
from virnucpro_core.encoders.model_folder import fingerprint
from virnucpro_core.errors import UsageError, WeightsError
from virnucpro_core.evaluation.evaluation import FULL, OPEN, EvaluationSettings
from virnucpro_core.evaluation.trained import publish_trained, scored
from virnucpro_core.files.manifest import verify
from virnucpro_core.models.classifier import load_classifier
from virnucpro_core.models.fitting import Recipe, train_classifier
from virnucpro_core.models.profiles import DEMO, NO_MEANING, note_of, resolve_profile
from virnucpro_core.models.store import ModelStore
from virnucpro_core.models.training import PARTS, Trained, TrainingSettings, cut, divided, train
from virnucpro_core.models.training_data import Overlap, digests_of, overlap
from virnucpro_core.results.record_calls import chunk_scores
from virnucpro_core.sequences.fasta import read_records
from virnucpro_core.sequences.labelled import LabelledInput, Truth

RECIPE = Recipe(hidden=8, epochs=4, seed=7, learning_rate=0.01, patience=2, class_weights=True)
SETTINGS = TrainingSettings(chunk_size=300, augment=(200,), seeds=2, lengths=(600, 1_500), recipe=RECIPE)
MEASURING = EvaluationSettings(bootstrap=20)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> LabelledInput:
    return write_genomes(tmp_path_factory.mktemp("genomes"))


@pytest.fixture(scope="module")
def trained(labelled: LabelledInput) -> Trained:
    return train(labelled, DEMO / "dnabert_s", DEMO / "esm2", SETTINGS)


def test_the_same_input_and_seed_give_the_same_weights(labelled: LabelledInput, trained: Trained) -> None:
    again = train(labelled, DEMO / "dnabert_s", DEMO / "esm2", SETTINGS)
    assert again.classifier.fingerprint == trained.classifier.fingerprint
    assert again.facts == trained.facts
    assert (again.scores == trained.scores).all()


def test_every_part_has_groups_of_its_own(labelled: LabelledInput, trained: Trained) -> None:
    truth = labelled.truth()
    records = list(read_records(labelled.files))
    parts = divided(records, truth, RECIPE.seed)
    assert sorted(r.id for part in parts for r in part) == sorted(r.id for r in records)
    groups = [{truth[r.id].group for r in part} for part in parts]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    for name, part in zip(PARTS, parts, strict=True):
        for label, words in enumerate(("others", "virus")):
            mine = [r for r in part if truth[r.id].label == label]
            said = trained.facts["parts"][name][words]
            assert said["records"] == len(mine) > 0
            assert said["bases"] == sum(len(r.sequence) for r in mine)
    assert {one.group for one in trained.truth.values()} == groups[2]


def test_pieces_of_one_genome_stay_on_one_side(tmp_path: Path) -> None:
    """The table says which pieces are of one genome; their ids do not."""
    whole = write_genomes(tmp_path)
    pieces, truth = cut(list(read_records(whole.files)), whole.truth(), (1_000,))
    for seed in range(5):
        parts = divided(pieces, truth, seed)
        genomes = [{piece.id.rpartition(":")[0] for piece in part} for part in parts]
        assert not genomes[0] & genomes[1] | genomes[0] & genomes[2] | genomes[1] & genomes[2]


def test_the_seed_with_the_lowest_loss_is_kept(trained: Trained) -> None:
    losses = [report.held_out_loss for report in trained.reports]
    assert len(losses) == 2
    assert losses[trained.best] == min(losses)
    for one, report in zip(trained.facts["seeds"], trained.reports, strict=True):
        assert report.held_out_loss == min(report.held_out_losses)
        assert one["best_epoch"] == report.held_out_losses.index(min(report.held_out_losses)) + 1


def test_too_few_genomes_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    labelled = write_genomes(tmp_path, most=2)
    with pytest.raises(UsageError, match=r"has 2 group\(s\); 3 or more are needed"):
        train(labelled, Path("missing"), Path("missing"), SETTINGS)


def test_record_scores_are_those_of_the_formula(trained: Trained) -> None:
    found = scored(trained)
    frames, scores = trained.evaluated, trained.scores
    assert len(found.records.label) == len(trained.truth)
    assert sorted(set(trained.lengths.tolist())) == [600, 1_500]
    for record in range(0, len(trained.truth), 7):
        maxima = [
            scores[frames.chunk == chunk].max(axis=0)
            for chunk in np.unique(frames.chunk[frames.record == record])
        ]
        expected = chunk_scores(np.array(maxima)).mean() if maxima else np.nan
        assert found.records.score[record] == pytest.approx(expected, nan_ok=True)
    assert found.chunks_without == trained.chunks.sum() - len(np.unique(frames.chunk))


def test_the_folder_can_be_shared(trained: Trained, tmp_path: Path) -> None:
    note = note_of(trained.facts["trained_on"])
    assert note == NO_MEANING
    for name in ("one", "two"):
        publish_trained(trained, tmp_path / name / "clas<b>", MEASURING, note=note)
    folder = tmp_path / "one" / "clas<b>"
    files = sorted(file.name for file in folder.iterdir())
    assert files == [
        "MODEL_CARD.md",
        "config.json",
        "evaluation.html",
        "evaluation.json",
        "evaluation.tsv",
        "manifest.json",
        "model.safetensors",
        "training_sequences.npy",
    ]
    assert all((folder / n).read_bytes() == (tmp_path / "two" / "clas<b>" / n).read_bytes() for n in files)
    manifest = verify(folder)
    assert manifest["trained_on"] == {
        kind: fingerprint(DEMO / f) for kind, f in (("dnabert-s", "dnabert_s"), ("esm2", "esm2"))
    }
    assert manifest["note"] == NO_MEANING
    assert load_classifier(folder).chunk_size == 300
    card, page = ((folder / name).read_text() for name in ("MODEL_CARD.md", "evaluation.html"))
    for text in (card, page):
        assert NO_MEANING in html.unescape(text)
        assert "mean nothing" in text
        assert "<b>" not in text
    assert trained.classifier.fingerprint in card
    assert "| 7 |" in card
    assert "| 8 |" in card
    assert "| 600" not in card  # lengths stand as bins
    assert "500 to 999 bases" in card
    records = json.loads((folder / "evaluation.json").read_text())["records"]
    assert sum(records[0][key] for key in ("virus", "others", "no_call_virus", "no_call_others")) == len(
        trained.truth
    )


def test_the_folder_knows_what_it_was_trained_on(
    labelled: LabelledInput, trained: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "classifier"
    publish_trained(trained, folder, MEASURING)
    assert "training_sequences.npy" in verify(folder)["files"]
    records = list(read_records(labelled.files))
    parts = divided(records, labelled.truth(), RECIPE.seed)
    every = overlap(folder, digests_of(records))
    assert every == Overlap(is_known=True, shared=len(parts[0]) + len(parts[1]), sequences=len(records))
    assert every.words == f"{every.shared} of {len(records)} sequences"
    assert overlap(folder, digests_of(parts[2])).shared == 0
    turned = parts[0][0].sequence.lower().translate(bytes.maketrans(b"acgt", b"tgca"))[::-1]
    assert overlap(folder, digests_of([replace(parts[0][0], id="other", sequence=turned)])).shared == 1
    assert not overlap(DEMO / "classifier_300", digests_of(records)).is_known
    (folder / "training_sequences.npy").write_bytes(b"no list")
    with pytest.raises(WeightsError, match="cannot be read"):
        overlap(folder, digests_of(records))


def clouds(rows: int, seed: int, shift: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    return (generator.normal(size=(rows, 4)) + shift * labels[:, None]).astype(np.float32), labels


def test_training_stops_when_held_out_rows_get_no_better() -> None:
    """Labels without any pattern: whatever is learned is noise, and the loss of other rows rises."""
    noise, held_out = clouds(60, 1, shift=0.0), clouds(400, 2, shift=0.0)
    recipe = Recipe(hidden=64, epochs=100, learning_rate=0.05, patience=3)
    classifier, report = train_classifier(*noise, recipe, held_out)
    assert report.epochs == report.best_epoch + 3 < 100
    scores = classifier.score(held_out[0]).astype(np.float64)
    loss = -np.log(scores[np.arange(400), held_out[1]]).mean()
    assert loss == pytest.approx(report.held_out_loss, rel=1e-4)


def test_class_weights_find_the_smaller_class() -> None:
    features, labels = clouds(600, 3, shift=1.0)
    few = (labels == 0) | (np.arange(600) % 20 == 1)
    test, truth = clouds(2_000, 4, shift=1.0)
    found = {}
    for weights in (False, True):
        recipe = Recipe(hidden=8, epochs=15, learning_rate=0.01, class_weights=weights)
        classifier, _ = train_classifier(features[few], labels[few], recipe)
        found[weights] = (classifier.score(test)[truth == 1].argmax(axis=1) == 1).mean()
    assert found[True] > found[False] + 0.2


def test_the_table_names_labels_and_groups(tmp_path: Path) -> None:
    labelled = write_genomes(tmp_path)
    (tmp_path / "all.fa").write_text("".join(file.read_text() for file in labelled.files))
    (tmp_path / "labels.tsv").write_text(LABELS_TABLE)
    found = LabelledInput(fasta=(tmp_path / "all.fa",), labels=tmp_path / "labels.tsv").truth()
    assert found["HM138502.1"] == Truth(1, "influenza") == found["KF527485.1"]
    assert {name: one.label for name, one in found.items()} == {
        n: o.label for n, o in labelled.truth().items()
    }


def test_open_frames_are_trained_on_if_that_is_asked_for(labelled: LabelledInput, tmp_path: Path) -> None:
    settings = replace(SETTINGS, min_open=25, augment=(), seeds=1, lengths=(300,))
    made = train(labelled, DEMO / "dnabert_s", DEMO / "esm2", settings)
    assert made.facts["min_open"] == made.facts["training"]["min_open"] == 25
    found = scored(made)
    assert found.open_chunks is not None and found.open_records is not None  # noqa: PT018 - for mypy
    assert 0 < found.open_chunks.sum() < len(found.open_chunks)
    # Pieces of 300 bases are one chunk each.
    assert found.open_records.sum() == found.open_chunks.sum()
    assert not np.isnan(found.records.score[found.open_records]).any()
    evaluation = publish_trained(made, tmp_path / "open", MEASURING)
    whole, *_, full, opened = evaluation.records
    assert (full.name, opened.name) == (FULL, OPEN)
    assert full.virus + opened.virus == whole.virus
    card = (tmp_path / "open" / "MODEL_CARD.md").read_text()
    assert "--chunk-size 300 --frames open --min-open 25" in card
    assert "A chunk without a stop-free frame has no score" not in card
    assert resolve_profile("demo", 300, ModelStore(tmp_path), classifier=tmp_path / "open").min_open == 25


def test_without_open_frames_the_manifest_does_not_name_them(trained: Trained) -> None:
    assert "min_open" not in trained.facts
    assert "min_open" not in trained.facts["training"]
    found = scored(trained)
    assert found.open_chunks is found.open_records is None
