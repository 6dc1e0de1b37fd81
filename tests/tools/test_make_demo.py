"""The shipped demo models: rebuilt byte for byte, fitting together, and honest about themselves."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tools.make_demo import SPECIAL, WIDTH, build_classifier, build_encoders
from torture.pipeline import Pipeline, write_reads
from virnucpro_core.devices.compute import Compute
from virnucpro_core.encoders.encoder import Kind, load_encoder
from virnucpro_core.encoders.model_folder import fingerprint
from virnucpro_core.encoders.tokenizers import DnabertTokenizer
from virnucpro_core.errors import UsageError, WeightsError
from virnucpro_core.files.manifest import verify
from virnucpro_core.models.classifier import Classifier, load_classifier
from virnucpro_core.models.profiles import DEMO, NO_MEANING, PROFILES, ResolvedProfile, resolve_profile
from virnucpro_core.models.sources import SOURCES
from virnucpro_core.models.store import ModelStore
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.score import score_lane
from virnucpro_core.samples.products import PREDICTIONS

CPU = torch.device("cpu")
FOLDERS = ("esm2", "dnabert_s", "classifier_300", "classifier_500")


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    build_encoders(out)
    return out


def test_encoders_are_rebuilt_byte_for_byte(rebuilt: Path) -> None:
    for folder in ("esm2", "dnabert_s"):
        shipped = sorted((DEMO / folder).iterdir())
        assert [f.name for f in shipped] == sorted(f.name for f in (rebuilt / folder).iterdir())
        for file in shipped:
            assert file.read_bytes() == (rebuilt / folder / file.name).read_bytes(), file


def test_retrained_classifier_is_about_as_good(rebuilt: Path) -> None:
    evaluation = build_classifier(rebuilt, 500, epochs=3)
    shipped = verify(DEMO / "classifier_500")["held_out"]
    assert evaluation.frames == shipped["frames"]
    assert evaluation.chunk_accuracy == pytest.approx(shipped["chunk_accuracy"], abs=0.1)
    assert evaluation.frame_accuracy == pytest.approx(shipped["frame_accuracy"], abs=0.1)


def test_shipped_models_verify_say_what_they_are_and_are_small() -> None:
    for folder in FOLDERS:
        assert verify(DEMO / folder)["note"] == NO_MEANING
    models = [f for folder in FOLDERS for f in (DEMO / folder).iterdir()]
    assert sum(f.stat().st_size for f in models) < 2_500_000
    for chunk_size in (300, 500):
        held_out = verify(DEMO / f"classifier_{chunk_size}")["held_out"]
        assert held_out["chunk_accuracy"] > 0.8
        assert f"| {chunk_size} | {held_out['frames']} | " in (DEMO / "README.md").read_text()


@pytest.mark.parametrize(("kind", "folder"), [("esm2", "esm2"), ("dnabert-s", "dnabert_s")])
def test_random_encoders_tell_sequences_apart(kind: Kind, folder: str) -> None:
    """Neither blind nor chaotic: one changed letter moves the features far less than another sequence."""
    encoder = load_encoder(kind, DEMO / folder, device=CPU, dtype=torch.float32, attention="reference")
    generator = np.random.default_rng(0)
    a, b = (bytes(generator.choice(list(b"ACGT"), 300).tolist()) for _ in range(2))
    near = b"G" + a[1:] if a[:1] != b"G" else b"T" + a[1:]
    rows = encoder.embed([a, near, b])
    assert rows.shape == (3, WIDTH)
    assert 0 < np.linalg.norm(rows[0] - rows[1]) < 0.3 * np.linalg.norm(rows[0] - rows[2])


def test_tokenizer_is_laid_out_as_dnabert_s() -> None:
    tokenizer = DnabertTokenizer(DEMO / "dnabert_s/tokenizer.json")
    content = json.loads((DEMO / "dnabert_s/tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    assert [vocabulary[name] for name in SPECIAL] == [0, 1, 2, 3, 4]
    assert tokenizer.vocabulary == 512
    assert content["pre_tokenizer"] == {"type": "Whitespace"}
    ids, lengths = tokenizer.encode([b"ACGTTGCANNACGT", b"A"])
    words = {number: word for word, number in vocabulary.items()}
    first = ids[: lengths[0]].tolist()
    assert (first[0], first[-1]) == (1, 2)
    assert "".join(words[i] if i else "N" for i in first[1:-1]) == "ACGTTGCANNACGT"
    assert ids[lengths[0] :].tolist() == [1, vocabulary["A"], 2]


def test_demo_profile_resolves_anywhere(tmp_path: Path) -> None:
    for chunk_size in (300, 500):
        resolved = resolve_profile("demo", chunk_size, ModelStore(tmp_path))
        assert resolved.classifier == DEMO / f"classifier_{chunk_size}"
        assert resolved.dnabert_dim + resolved.esm2_dim == 2 * WIDTH
        assert resolved.classifier_fingerprint == load_classifier(resolved.classifier, CPU).fingerprint
        assert resolved.esm2_fingerprint == fingerprint(DEMO / "esm2")
    assert PROFILES["demo"].note == NO_MEANING
    assert PROFILES["demo"].default_device == "cpu"


def test_a_chunk_size_without_classifier_needs_one_named(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    with pytest.raises(UsageError, match="classifiers for chunks of 300 and 500 bases, none for 400"):
        resolve_profile("demo", 400, store)
    own = tmp_path / "own"
    load_classifier(DEMO / "classifier_500", CPU).save(own)  # without a manifest: nobody knows its chunks
    resolved = resolve_profile("demo", 400, store, classifier=own)
    assert (resolved.chunk_size, resolved.classifier) == (400, own)
    with pytest.raises(UsageError, match="no profile 'nothing'; profiles: esm2-3b, "):
        resolve_profile("nothing", 300, store)


def test_models_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    state = load_classifier(DEMO / "classifier_500", CPU).state
    state["hidden_layer.weight"] = state["hidden_layer.weight"][:, :100].contiguous()
    Classifier(state, device=CPU).save(tmp_path)
    with pytest.raises(WeightsError, match=r"takes 100 features, the encoders .* give 64 \+ 64 = 128"):
        resolve_profile("demo", 500, ModelStore(tmp_path), classifier=tmp_path)


def test_a_classifier_of_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("virnucpro_core.models.profiles.fingerprint", lambda folder: folder.name)
    with pytest.raises(WeightsError, match="was trained on other dnabert-s weights"):
        resolve_profile("demo", 500, ModelStore(tmp_path))
    with pytest.raises(WeightsError, match=r"other dnabert-s weights \(427366a7b6de\) than the profile has"):
        resolve_profile("demo", 500, ModelStore(tmp_path), classifier=DEMO / "classifier_500")


def test_a_classifier_of_other_chunks_is_refused_with_both_sizes(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"trained on chunks of 300 bases, .* chunks of 500; give --chunk-size 300"
    ):
        resolve_profile("demo", 500, ModelStore(tmp_path), classifier=DEMO / "classifier_300")


def test_weights_without_a_manifest_are_in_the_identity_and_their_change_is_noticed(
    tmp_path: Path,
) -> None:
    pipeline = Pipeline(tmp_path / "home", write_reads(tmp_path / "reads.fa"))
    sample, own = pipeline.run(), tmp_path / "own"
    own.mkdir()

    def identity(change: float) -> ResolvedProfile:
        state = load_classifier(DEMO / "classifier_300", CPU).state
        state["output_layer.bias"] = state["output_layer.bias"] + change
        save_file(state, own / "model.safetensors")
        shutil.copyfile(DEMO / "classifier_300" / "config.json", own / "config.json")
        return resolve_profile("demo", 300, ModelStore(tmp_path), classifier=own)

    same, other = identity(0.0), identity(0.125)
    assert not (own / "manifest.json").exists()
    assert same.classifier_fingerprint == pipeline.profile.classifier_fingerprint
    assert other.classifier_fingerprint != same.classifier_fingerprint
    lane = Lane(sample, other, 0, 1)
    assert {lane.store(PREDICTIONS).state(k, lane.ids(k)) for k in lane.shards} == {"stale"}
    identity(0.25)  # the folder changes after the sample was given its identity
    with pytest.raises(WeightsError, match="weights changed while the sample was being scored"):
        score_lane(lane, Compute("cpu"), on_shard=lambda _: None)
    with pytest.raises(WeightsError, match=r"'output_layer\.bias' has values that are not finite"):
        identity(float("nan"))


def test_every_profile_names_what_can_be_had(tmp_path: Path) -> None:
    for profile in PROFILES.values():
        if profile.name != "demo":
            assert {profile.dnabert, profile.esm2} <= SOURCES.keys()
            with pytest.raises(
                WeightsError, match=r"are missing: dnabert-s, .*; run `virnucpro models fetch dnabert-s"
            ):
                resolve_profile(profile.name, 500, ModelStore(tmp_path))
    assert PROFILES["esm2-3b"].classifiers == {300: "virnucpro-300", 500: "virnucpro-500"}
    assert PROFILES["esm2-8m"].classifiers[300] == "virnucpro-esm2-8m-300"
