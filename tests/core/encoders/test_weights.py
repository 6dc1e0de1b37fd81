"""Model folders: names by table, every key used, and each damage named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from virnucpro_core.encoders.model_folder import fingerprint, read_config
from virnucpro_core.encoders.weights import map_dnabert_names, map_esm2_names, open_weights
from virnucpro_core.errors import WeightsError
from virnucpro_core.files.digests import sha256_file

SHAPES = {"embeddings.word_embeddings.weight": (3, 2), "encoder.emb_layer_norm_after.bias": (2,)}


def _tensors() -> dict[str, torch.Tensor]:
    return {name: torch.full(shape, 0.5) for name, shape in SHAPES.items()}


def _write(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "esm"}')
    return folder


def test_names_of_every_source_become_one() -> None:
    layer = "encoder.layer.7."
    for source in (
        "encoder.sentence_encoder.layers.7.self_attn.q_proj.weight",
        "encoder.layers.7.self_attn.q_proj.weight",
        "layers.7.self_attn.q_proj.weight",
        "esm.encoder.layer.7.attention.self.query.weight",
        "encoder.layer.7.attention.self.query.weight",
    ):
        assert map_esm2_names([source]) == {f"{layer}attention.self.query.weight": source}
    assert map_esm2_names(["esm.encoder.layer.7.LayerNorm.gamma", "layers.7.final_layer_norm.bias"]) == {
        f"{layer}LayerNorm.weight": "esm.encoder.layer.7.LayerNorm.gamma",
        f"{layer}LayerNorm.bias": "layers.7.final_layer_norm.bias",
    }
    assert map_dnabert_names(["bert.embeddings.LayerNorm.beta"]) == {
        "embeddings.LayerNorm.bias": "bert.embeddings.LayerNorm.beta"
    }


def test_heads_and_computed_tables_are_dropped() -> None:
    dropped = ["lm_head.decoder.weight", "contact_head.regression.bias", "esm.embeddings.position_ids"]
    dropped += ["encoder.layer.0.attention.self.rotary_embeddings.inv_freq", "encoder.lm_head.weight"]
    dropped += ["layers.0.self_attn.rot_emb.inv_freq", "esm.embeddings.position_embeddings.weight"]
    assert map_esm2_names(dropped) == {}
    assert map_dnabert_names(["cls.predictions.bias", "bert.pooler.dense.weight"]) == {}


def test_shards_and_prefixes_are_read_in_the_asked_dtype(tmp_path: Path) -> None:
    first, second = _tensors().items()
    save_file({"esm." + first[0]: first[1]}, tmp_path / "a.safetensors")
    save_file({"esm." + second[0]: second[1]}, tmp_path / "b.safetensors")
    index = {"weight_map": {"esm." + first[0]: "a.safetensors", "esm." + second[0]: "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    weights = open_weights(tmp_path, map_esm2_names, SHAPES)
    for name, expected in _tensors().items():
        read = weights.read(name, dtype=torch.float16)
        assert read.dtype == torch.float16
        assert torch.equal(read.float(), expected)


def _missing(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["encoder.emb_layer_norm_after.bias"]


def _extra(tensors: dict[str, torch.Tensor]) -> None:
    tensors["encoder.layer.9.LayerNorm.bias"] = torch.zeros(2)


def _unknown(tensors: dict[str, torch.Tensor]) -> None:
    tensors["decoder.weight"] = torch.zeros(2)


def _reshaped(tensors: dict[str, torch.Tensor]) -> None:
    tensors["encoder.emb_layer_norm_after.bias"] = torch.zeros(3)


def _integer(tensors: dict[str, torch.Tensor]) -> None:
    tensors["encoder.emb_layer_norm_after.bias"] = torch.zeros(2, dtype=torch.int64)


def _twice(tensors: dict[str, torch.Tensor]) -> None:
    tensors["esm.encoder.emb_layer_norm_after.bias"] = torch.zeros(2)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_missing, r"'encoder\.emb_layer_norm_after\.bias' is missing"),
        (_extra, r"'encoder\.layer\.9\.LayerNorm\.bias' is not of this model"),
        (_unknown, r"unknown tensor 'decoder\.weight'"),
        (_reshaped, r"F32 \(3,\), expected float \(2,\)"),
        (_integer, r"I64 \(2,\), expected float"),
        (_twice, r"are the same weight"),
    ],
)
def test_a_wrong_tensor_is_named(
    tmp_path: Path, damage: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    tensors = _tensors()
    damage(tensors)
    with pytest.raises(WeightsError, match=message) as caught:
        open_weights(_write(tmp_path, tensors), map_esm2_names, SHAPES)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), torch.float32), (1e6, torch.float16)])
def test_values_that_are_not_finite_in_the_dtype_are_refused(
    tmp_path: Path, value: float, dtype: torch.dtype
) -> None:
    tensors = _tensors()
    tensors["encoder.emb_layer_norm_after.bias"][1] = value
    weights = open_weights(_write(tmp_path, tensors), map_esm2_names, SHAPES)
    with pytest.raises(WeightsError, match=r"emb_layer_norm_after\.bias"):
        weights.read("encoder.emb_layer_norm_after.bias", dtype=dtype)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a pickle", b"\xff" * 64])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    _write(tmp_path, _tensors())
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors: not a readable"):
        open_weights(tmp_path, map_esm2_names, SHAPES)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json is missing"):
        read_config(tmp_path)
    with pytest.raises(WeightsError, match=r"'model\.safetensors' are missing"):
        open_weights(tmp_path, map_esm2_names, SHAPES)


def test_fingerprint_follows_content_and_trusts_a_fitting_manifest(tmp_path: Path) -> None:
    _write(tmp_path, _tensors())
    computed = fingerprint(tmp_path)
    names = ("config.json", "model.safetensors")
    files = {n: {"bytes": (tmp_path / n).stat().st_size, "sha256": sha256_file(tmp_path / n)} for n in names}
    (tmp_path / "manifest.json").write_text(json.dumps({"files": files}))
    assert fingerprint(tmp_path) == computed
    (tmp_path / "config.json").write_text('{"model_type": "esm", "hidden_size": 8}')
    assert fingerprint(tmp_path) != computed
