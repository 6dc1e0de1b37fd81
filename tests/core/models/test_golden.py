"""The golden self-check: a stand-in whose answers are the golden ones passes, and each injected fault is named."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from tests.support import stand_in
from virnucpro_core.errors import StoreError, WeightsError
from virnucpro_core.models.golden import (
    GOLDEN,
    Golden,
    Outcome,
    flips,
    largest_difference,
    published,
    read_golden,
    read_record,
    write_golden,
    write_record,
)
from virnucpro_core.models.golden_check import SelfCheck, bytes_needed, check_models, shown_bounds
from virnucpro_core.models.golden_diagnosis import rounded_weights

CPU = torch.device("cpu")
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "dnabert-s": stand_in.dnabert(folder / "dnabert-s"),
        "esm2-3b": stand_in.esm2(folder / "esm2-3b"),
        "virnucpro-500": stand_in.classifier(folder / "virnucpro-500"),
    }


@pytest.fixture(scope="module")
def golden(models: dict[str, Path]) -> Golden:
    return stand_in.recorded(*models.values())


def check(golden: Golden, models: dict[str, Path]) -> SelfCheck:
    return check_models(golden, models, device=CPU, precision="float32", on_outcome=lambda _: None)


def outcome_of(golden: Golden, models: dict[str, Path], name: str, folder: Path) -> Outcome:
    """The outcome of the faulty model `folder`; both other models must pass."""
    found = {o.model: o for o in check(golden, models | {name: folder}).outcomes}
    assert [o.model for o in found.values() if not o.passed] == [name]
    return found[name]


def test_the_shipped_facts_are_the_published_ones(shared: Path) -> None:
    facts = published()
    with (shared / "golden/published/frames.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    stored = np.load(shared / "golden/published/vectors.npz", allow_pickle=False)
    assert list(facts.ids) == [row["id"] for row in rows] == stored["ids"].tolist()
    assert list(facts.nucleotides) == [row["nucleotide"] for row in rows]
    assert list(facts.proteins) == [row["protein"] for row in rows]
    assert facts.scores_N2[:, 1].tolist() == [np.float32(row["score_virus"]) for row in rows]
    assert facts.scores_N2[:, 0].tolist() == [np.float32(row["score_others"]) for row in rows]
    np.testing.assert_array_equal(facts.vectors["dnabert-s"], stored["dnabert_s"])
    np.testing.assert_array_equal(facts.vectors["esm2"], stored["esm2_3b"])
    calls = ["virus" if virus > others else "others" for others, virus in facts.scores_N2]
    assert calls == [row["prediction"] for row in rows]
    assert facts.features().shape == (8, 3328)
    assert facts.lengths_N.sum() == len(facts.tokens_T)


def test_facts_are_read_without_pickle(golden: Golden, tmp_path: Path) -> None:
    write_golden(golden, tmp_path / "g.npz")
    again = read_golden(tmp_path / "g.npz")
    assert (again.ids, again.proteins, again.shapes) == (golden.ids, golden.proteins, golden.shapes)
    np.testing.assert_array_equal(again.features(), golden.features())
    np.savez(tmp_path / "evil.npz", ids=np.array([object()], dtype=object))
    (tmp_path / "cut.npz").write_bytes(GOLDEN.read_bytes()[:500])
    for name in ("evil.npz", "cut.npz", "none.npz"):
        with pytest.raises(StoreError, match=rf"{name}: damaged; install"):
            read_golden(tmp_path / name)


def test_the_stand_in_passes(golden: Golden, models: dict[str, Path]) -> None:
    seen: list[Outcome] = []
    found = check_models(golden, models, device=CPU, precision="float32", on_outcome=seen.append)
    assert found.passed
    assert tuple(seen) == found.outcomes
    assert [o.model for o in seen] == ["dnabert-s", "esm2-3b", "virnucpro-500"]
    assert (found.agreeing, found.difference) == (8, 0.0)
    assert [(o.vectors, o.scores, o.flips, o.diagnosis) for o in seen] == [
        (0.0, 0.0, 0, ""), (0.0, 0.0, 0, ""), (None, 0.0, 0, ""),
    ]  # fmt: skip
    assert shown_bounds(seen[0]) == "vector 0.001, score 0.001"
    assert shown_bounds(seen[2]) == "score 0.0001"
    alone = check(golden, {"esm2-3b": models["esm2-3b"]})
    assert alone.passed
    assert (alone.agreeing, alone.outcomes[0].scores) == (None, None)


def test_damaged_files_are_not_called_another_model(
    golden: Golden, models: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "esm2-3b"
    shutil.copytree(models["esm2-3b"], copy)
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:-1] + b"\0")
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged"):
        check(golden, models | {"esm2-3b": copy})


# Injected faults: ESM-2


def without_last_layer(folder: Path) -> Path:
    def drop(state: State) -> None:
        for name in [n for n in state if n.startswith(f"encoder.layer.{stand_in.LAYERS - 1}.")]:
            del state[name]

    config = json.loads((folder / "config.json").read_text())
    out = stand_in.changed(folder, folder.with_name("short"), drop)
    (out / "config.json").write_text(json.dumps(config | {"num_hidden_layers": stand_in.LAYERS - 1}))
    return stand_in.changed(out, folder.with_name("shorter"), lambda state: None)


def with_one_more_layer(folder: Path) -> Path:
    def add(state: State) -> None:
        last = f"encoder.layer.{stand_in.LAYERS - 1}."
        for name in [n for n in state if n.startswith(last)]:
            state[name.replace(last, f"encoder.layer.{stand_in.LAYERS}.")] = 1.1 * state[name].flip(0)

    config = json.loads((folder / "config.json").read_text())
    out = stand_in.changed(folder, folder.with_name("long"), add)
    (out / "config.json").write_text(json.dumps(config | {"num_hidden_layers": stand_in.LAYERS + 1}))
    return stand_in.changed(out, folder.with_name("longer"), lambda state: None)


def with_swapped_columns(folder: Path) -> Path:
    """Columns 8 to 15 and 40 to 47 of the residual stream are exchanged: the same model, other columns."""
    order = list(range(stand_in.WIDTHS["esm2"]))
    order[8:16], order[40:48] = order[40:48], order[8:16]

    def swap(state: State) -> None:
        for name, tensor in state.items():
            if name.endswith(("output.dense.weight", "output.dense.bias")):
                state[name] = tensor[order]
            elif tensor.ndim == 2:
                state[name] = tensor[:, order]
            elif "orm" in name:
                state[name] = tensor[order]

    return stand_in.changed(folder, folder.with_name("swapped"), swap)


def with_fp8_weights(folder: Path) -> Path:
    def quantise(state: State) -> None:
        for name, tensor in state.items():
            if tensor.ndim == 2 and "embeddings" not in name:
                scale = tensor.abs().amax(dim=1, keepdim=True) / 448
                state[name] = (tensor / scale).to(torch.float8_e4m3fn).float() * scale

    return stand_in.changed(folder, folder.with_name("fp8"), quantise)


def with_bfloat16_weights(folder: Path) -> Path:
    def cast(state: State) -> None:
        state.update({name: tensor.bfloat16().float() for name, tensor in state.items()})

    return stand_in.changed(folder, folder.with_name("bf16"), cast)


def with_noise(folder: Path) -> Path:
    def shake(state: State) -> None:
        generator = torch.Generator().manual_seed(1)
        state.update(
            {n: t * (1 + 0.05 * torch.randn(t.shape, generator=generator)) for n, t in state.items()}
        )

    return stand_in.changed(folder, folder.with_name("other"), shake)


@pytest.mark.parametrize(
    ("inject", "words"),
    [
        (
            without_last_layer,
            "config.json and weights are of another model: 3 layers (the published model has 4)",
        ),
        (with_one_more_layer, "wrong layer: the published vectors are those after layer 4 of this model's 5"),
        (
            with_swapped_columns,
            "columns are in another order (16 of 64): columns 8 to 15 hold what columns 40 to 47 should, so a block of"
            " columns is swapped",
        ),
        (with_fp8_weights, "the weights were rounded: a row has at most"),
        (
            with_bfloat16_weights,
            "the weights were rounded: all values are bfloat16; fetch the published ones",
        ),
        (
            with_noise,
            "none of the known faults explains it: it is probably another model or revision; fetch it again",
        ),
    ],
)
def test_faults_of_esm2_are_told_apart(
    golden: Golden, models: dict[str, Path], tmp_path: Path, inject: Callable[[Path], Path], words: str
) -> None:
    copy = tmp_path / "esm2"
    shutil.copytree(models["esm2-3b"], copy)
    found = outcome_of(golden, models, "esm2-3b", inject(copy))
    assert found.diagnosis.startswith(words)
    assert found.vectors is not None
    assert found.vectors > 1e-3


def test_fp8_weights_say_so(golden: Golden, models: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "esm2"
    shutil.copytree(models["esm2-3b"], copy)
    assert rounded_weights(copy) == ""
    assert rounded_weights(models["virnucpro-500"]) == ""
    assert rounded_weights(with_fp8_weights(copy)).endswith("different values, as in fp8 or int8")


def test_a_model_of_other_columns(golden: Golden, models: dict[str, Path], tmp_path: Path) -> None:
    config = json.loads((models["dnabert-s"] / "config.json").read_text())
    assert config["hidden_size"] == 48
    wide = Golden(
        **{name: getattr(golden, name) for name in golden.__slots__}
        | {"vectors": golden.vectors | {"esm2": np.ones((8, 80), np.float32)}}
        | {"shapes": golden.shapes | {"esm2": stand_in.Shape(4, 80, 4)}}
    )
    found = check(wide, {"esm2-3b": models["esm2-3b"]}).outcomes[0]
    assert (found.passed, found.vectors) == (False, None)
    assert found.diagnosis.endswith("another model: 64 columns (the published model has 80)")


# Injected faults: DNABERT-S and its tokenizer


def test_a_tokenizer_of_another_version_is_named(
    golden: Golden, models: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "dnabert-s"
    shutil.copytree(models["dnabert-s"], copy)
    facts = json.loads((copy / "tokenizer.json").read_text())
    facts["model"]["merges"] = facts["model"]["merges"][:-100]
    (copy / "tokenizer.json").write_text(json.dumps(facts))
    Tokenizer.from_file(str(copy / "tokenizer.json"))  # a tokenizer all the same
    faulty = stand_in.changed(copy, tmp_path / "faulty", lambda state: None)
    found = outcome_of(golden, models, "dnabert-s", faulty)
    assert found.diagnosis == "tokenizer.json is of another version: it cuts 8 of 8 frames into other tokens"
    both = stand_in.changed(
        copy, tmp_path / "both", lambda state: state["encoder.layer.1.mlp.wo.weight"].mul_(2)
    )
    found = outcome_of(golden, models, "dnabert-s", both)
    assert "but the weights differ, too" in found.diagnosis


def test_a_layer_too_many_in_dnabert(golden: Golden, models: dict[str, Path]) -> None:
    found = outcome_of(golden, models, "dnabert-s", with_one_more_layer(models["dnabert-s"]))
    assert found.diagnosis == "wrong layer: the published vectors are those after layer 4 of this model's 5"


# Injected faults: the classifier


def exchange(state: State) -> None:
    state["output_layer.weight"] = state["output_layer.weight"].flip(0)
    state["output_layer.bias"] = state["output_layer.bias"].flip(0)


def swap_blocks(state: State) -> None:
    first = stand_in.WIDTHS["dnabert-s"]
    weight = state["hidden_layer.weight"]
    state["hidden_layer.weight"] = torch.cat([weight[:, first:], weight[:, :first]], dim=1)


def both(state: State) -> None:
    exchange(state)
    swap_blocks(state)


def fp8(state: State) -> None:
    weight = state["hidden_layer.weight"]
    state["hidden_layer.weight"] = (weight * 100).to(torch.float8_e4m3fn).float() / 100


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (exchange, "its two outputs are exchanged: the first is virus, the second others"),
        (swap_blocks, "its two blocks of columns are swapped: it takes ESM-2's first and DNABERT-S's second"),
        (
            both,
            "its two blocks of columns are swapped: it takes ESM-2's first and DNABERT-S's second; and its two",
        ),
        (fp8, "the weights were rounded: "),
        (lambda state: state["hidden_layer.bias"].add_(0.5), "none of the known faults explains it"),
    ],
)
def test_faults_of_the_classifier_are_told_apart(
    golden: Golden, models: dict[str, Path], tmp_path: Path, change: Callable[[State], None], words: str
) -> None:
    faulty = stand_in.changed(models["virnucpro-500"], tmp_path / "faulty", change)
    found = outcome_of(golden, models, "virnucpro-500", faulty)
    assert found.diagnosis.startswith(words)


def test_the_classifier_of_the_other_chunk_size(
    golden: Golden, models: dict[str, Path], tmp_path: Path
) -> None:
    faulty = stand_in.changed(
        models["virnucpro-500"], tmp_path / "f", lambda s: s["hidden_layer.bias"].add_(0.5)
    )
    config = json.loads((faulty / "config.json").read_text())
    (faulty / "config.json").write_text(json.dumps(config | {"chunk_size": 300}))
    stand_in.written(faulty, "classifier", {})
    found = outcome_of(golden, models, "virnucpro-500", faulty)
    assert found.diagnosis == "it is the classifier for chunks of 300 bases; the stored scores are for 500"


# Figures and records


def test_figures() -> None:
    stored = np.array([[3.0, 4.0], [0.0, 2.0]], np.float32)
    assert largest_difference(
        stored + np.array([[0.3, 0.4], [0.0, 0.0]], np.float32), stored
    ) == pytest.approx(0.1)
    assert flips(np.array([[0.5, 0.5], [0.2, 0.8]]), np.array([[0.4, 0.6], [0.1, 0.9]])) == 1


def test_a_record_counts_for_these_weights_only(
    golden: Golden, models: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "esm2"
    shutil.copytree(models["esm2-3b"], folder)
    assert read_record(folder) is None
    write_record(folder, check(golden, {"esm2-3b": folder}).outcomes[0], "2026-11-28")
    record = read_record(folder)
    assert record is not None
    assert (record["passed"], record["date"], record["precision"]) == (True, "2026-11-28", "float32")
    other = stand_in.changed(
        folder, tmp_path / "other", lambda s: s["encoder.layer.0.output.dense.bias"].add_(1)
    )
    assert read_record(other) is None
    (folder / "golden.json").write_text("{")
    assert read_record(folder) is None
    assert bytes_needed(folder) > 4 * 4 * 12 * 64 * 64
