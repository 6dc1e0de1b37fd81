"""Training on blocks, for the demo: nothing held out is trained on, and the numbers mean what they say."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.blocks import (
    BLOCK_BASES,
    BlockSettings,
    LabelledFrames,
    equal_classes,
    evaluate,
    split_blocks,
    train_on_blocks,
)
from virnucpro_core.encoders.model_folder import fingerprint
from virnucpro_core.errors import UsageError
from virnucpro_core.files.manifest import verify
from virnucpro_core.models.classifier import Classifier, ClassifierNet, load_classifier
from virnucpro_core.models.profiles import DEMO
from virnucpro_core.sequences.fasta import read_records


def test_blocks_are_dealt_out_whole_and_once(tmp_path: Path) -> None:
    settings = BlockSettings(chunk_size=500, seed=3)
    train, held_out = split_blocks([DEMO / "viral.fa"], tmp_path / "virus", settings)
    genomes = {record.id: record.sequence for record in read_records([DEMO / "viral.fa"])}
    parts = [[(r.id, r.sequence) for r in read_records([path])] for path in (train, held_out)]
    covered = {name: np.zeros(len(sequence), int) for name, sequence in genomes.items()}
    for name, sequence in parts[0] + parts[1]:
        genome, place = name.removesuffix("+0").rsplit(":", 1)
        start = int(place) - 1
        assert genomes[genome][start : start + BLOCK_BASES] == sequence
        covered[genome][start : start + len(sequence)] += 1
    assert all((count == 1).all() for count in covered.values())
    assert len(parts[1]) == round(0.2 * (len(parts[0]) + len(parts[1])))


def test_shifts_cut_training_blocks_again_and_held_out_ones_once(tmp_path: Path) -> None:
    once, again = (
        split_blocks([DEMO / "viral.fa"], tmp_path / name, BlockSettings(chunk_size=300, shifts=shifts))
        for name, shifts in (("a", 1), ("b", 3))
    )
    assert once[1].read_bytes() == again[1].read_bytes()
    first, all_ = ({r.id: r.sequence for r in read_records([pair[0]])} for pair in (once, again))
    for name, sequence in first.items():
        for shift in (0, 100, 200):
            assert all_[f"{name.removesuffix('+0')}+{shift}"] == sequence[shift:]


def test_one_block_is_too_few(tmp_path: Path) -> None:
    (tmp_path / "x.fa").write_text(">a\n" + "ACGT" * 100 + "\n")
    with pytest.raises(UsageError, match="class 'virus' has 1 blocks of 5,000 bases"):
        split_blocks([tmp_path / "x.fa"], tmp_path / "virus", BlockSettings())


def test_classes_are_made_equal_by_repeating_the_smaller() -> None:
    labels = np.array([0] * 10 + [1] * 3)
    rows = equal_classes(labels, seed=1)
    assert np.bincount(labels[rows]).tolist() == [10, 10]
    assert set(rows.tolist()) == set(range(13))
    assert np.bincount(rows)[10:].min() >= 3


def test_evaluation_counts_frames_and_chunks() -> None:
    """One feature, the score for virus rises with it; chunk 7 is saved by its best frame, chunk 9 is lost."""
    state = ClassifierNet(1, 1).state_dict()
    state["hidden_layer.weight"][:], state["hidden_layer.bias"][:] = 1.0, 100.0
    state["output_layer.weight"][:] = torch.tensor([[-1.0], [1.0]])
    state["output_layer.bias"][:] = torch.tensor([100.0, -100.0])
    classifier = Classifier(state, device=torch.device("cpu"))
    frames = LabelledFrames(
        features=np.array([[-5], [-5], [-1], [3], [2]], np.float32),
        labels=np.array([0, 0, 1, 1, 0]),
        chunk=np.array([5, 5, 7, 7, 9]),
    )
    evaluation = evaluate(classifier, frames)
    assert (evaluation.frames, evaluation.chunks, evaluation.viral_chunks) == (5, 3, 1)
    assert evaluation.frame_accuracy == pytest.approx(3 / 5)
    assert evaluation.chunk_accuracy == pytest.approx(2 / 3, abs=1e-4)
    assert evaluation.chunk_recall == {"others": 0.5, "virus": 1.0}


def test_trained_folder_says_what_it_is_for(tmp_path: Path) -> None:
    settings = BlockSettings(chunk_size=1000, epochs=1, hidden=8)
    files = ([DEMO / "viral.fa"], [DEMO / "non_viral.fa"], DEMO / "dnabert_s", DEMO / "esm2")
    evaluation = train_on_blocks(*files, tmp_path / "out", settings)
    manifest = verify(tmp_path / "out")
    assert (manifest["chunk_size"], manifest["hidden_dim"], manifest["input_dim"]) == (1000, 8, 128)
    assert manifest["trained_on"] == {
        "dnabert-s": fingerprint(DEMO / "dnabert_s"),
        "esm2": fingerprint(DEMO / "esm2"),
    }
    assert manifest["held_out"] == asdict(evaluation)
    assert evaluation.chunks > evaluation.viral_chunks > 0
    assert load_classifier(tmp_path / "out", torch.device("cpu")).chunk_size == 1000
