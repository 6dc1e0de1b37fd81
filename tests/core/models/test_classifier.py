"""The classifier: the architecture's numbers, files, training."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from virnucpro_core.errors import UsageError, WeightsError
from virnucpro_core.models.classifier import Classifier, ClassifierNet, load_classifier
from virnucpro_core.models.fitting import Recipe, train_classifier

CPU = torch.device("cpu")


def random_state(input_dim: int = 12, hidden_dim: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    """Every tensor away from its default, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(seed)
    state = ClassifierNet(input_dim, hidden_dim).state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            state[name] = torch.rand(value.shape, generator=generator) + 0.1
    return state


def test_score_is_the_published_formula() -> None:
    state = random_state()
    x = np.random.default_rng(1).normal(size=(7, 12)).astype(np.float32)
    a = {k: v.double().numpy() for k, v in state.items()}
    h = x @ a["hidden_layer.weight"].T + a["hidden_layer.bias"]
    h = (h - a["bn1.running_mean"]) / np.sqrt(a["bn1.running_var"] + 1e-5) * a["bn1.weight"] + a["bn1.bias"]
    z = np.maximum(h, 0) @ a["output_layer.weight"].T + a["output_layer.bias"]
    expected = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    scores = Classifier(state, device=CPU).score(x)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=2e-6, atol=1e-7)


def test_no_rows_give_no_scores_and_many_rows_keep_their_order() -> None:
    classifier = Classifier(random_state(), device=CPU)
    assert classifier.score(np.empty((0, 12), np.float32)).shape == (0, 2)
    x = np.random.default_rng(2).normal(size=(9000, 12)).astype(np.float32)
    np.testing.assert_allclose(classifier.score(x)[8998:], classifier.score(x[8998:]), rtol=1e-6)


@pytest.mark.parametrize(("inputs", "hidden"), [(128, 512), (960, 64), (3328, 512)])
def test_a_row_s_bits_do_not_depend_on_the_rows_beside_it(inputs: int, hidden: int) -> None:
    classifier = Classifier(random_state(inputs, hidden), device=CPU)
    x = np.random.default_rng(3).normal(size=(4500, inputs)).astype(np.float32)
    whole = classifier.score(x)
    for rows in [*range(1, 20), 63, 64, 65, 300, 1000, 4097]:
        assert np.array_equal(classifier.score(x[:rows]), whole[:rows]), rows
        assert np.array_equal(classifier.score(x[-rows:]), whole[-rows:]), rows


def test_wrong_width_names_both_numbers() -> None:
    with pytest.raises(WeightsError, match=r"takes 12 features.*\(3, 13\)"):
        Classifier(random_state(), device=CPU).score(np.zeros((3, 13), np.float32))


def test_saved_folder_comes_back_the_same(tmp_path: Path) -> None:
    classifier = Classifier(random_state(), device=CPU, chunk_size=300)
    for name in ("a", "b"):
        classifier.save(tmp_path / name)
    again = load_classifier(tmp_path / "a", CPU)
    assert again.fingerprint == classifier.fingerprint
    assert (again.input_dim, again.hidden_dim, again.chunk_size) == (12, 5, 300)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("bn1.running_var"), "'bn1.running_var' is missing"),
        (lambda s: s.update(other=torch.zeros(1)), "'other' is extra"),
        (lambda s: s.update({"bn1.bias": torch.zeros(6)}), r"'bn1.bias' is float32 \(6,\)"),
        (lambda s: s.update({"bn1.bias": torch.zeros(5).half()}), r"'bn1.bias' is float16"),
        (
            lambda s: s["output_layer.bias"].fill_(torch.nan),
            "'output_layer.bias' has values that are not finite",
        ),
        (lambda s: s.pop("hidden_layer.weight"), "not the published classifier"),
    ],
)
def test_bad_weights_name_the_key(tmp_path: Path, damage, message: str) -> None:
    Classifier(random_state(), device=CPU).save(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    damage(state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=message):
        load_classifier(tmp_path, CPU)


def test_missing_damaged_or_contradicting_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no file config.json; a classifier folder holds"):
        load_classifier(tmp_path, CPU)
    Classifier(random_state(), device=CPU).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "input_dim": 13}))
    with pytest.raises(WeightsError, match=r"'input_dim': 13.*the weights say.*'input_dim': 12"):
        load_classifier(tmp_path, CPU)
    (tmp_path / "model.safetensors").write_bytes(b"\x08" * 40)
    with pytest.raises(WeightsError, match="damaged classifier file"):
        load_classifier(tmp_path, CPU)


def two_clouds(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes on columns of very different scale and offset, one column constant."""
    rng = np.random.default_rng(3)
    labels = np.arange(rows) % 2
    x = rng.normal(size=(rows, 6)) + 2.0 * labels[:, None]
    x = x * [1, 1e3, 1e-3, 1, 1, 0] + [0, 5e3, 0, -100, 1, 7]
    return x.astype(np.float32), labels


def test_training_separates_and_repeats() -> None:
    features, labels = two_clouds()
    runs = [train_classifier(features, labels, Recipe(16, 8, seed=5, learning_rate=0.01)) for _ in range(2)]
    (classifier, report), (again, _) = runs
    assert report.accuracy > 0.95
    assert report.losses[-1] < report.losses[0]
    assert classifier.fingerprint == again.fingerprint
    other, _ = train_classifier(features, labels, Recipe(16, 8, seed=6, learning_rate=0.01))
    assert other.fingerprint != classifier.fingerprint


def test_training_leaves_the_callers_random_state() -> None:
    features, labels = two_clouds(40)
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    train_classifier(features, labels, Recipe(4, 1))
    assert torch.equal(torch.rand(1), expected)


def test_training_refuses_what_it_cannot_learn_from() -> None:
    features, labels = two_clouds(40)
    with pytest.raises(UsageError, match=r"two rows of both classes, got \[40, 0\]"):
        train_classifier(features, labels * 0)
    features[3, 2] = np.inf
    with pytest.raises(UsageError, match="not finite"):
        train_classifier(features, labels)
