"""The listed rubbish of `torture/rubbish.py` and some drawn; masked DNA; model files that are not what they say."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from torture.rubbish import judge, run_rubbish
from virnucpro_core.encoders.encoder import load_encoder
from virnucpro_core.errors import WeightsError
from virnucpro_core.models.profiles import DEMO
from virnucpro_core.sequences.fasta import read_records

CPU = torch.device("cpu")


def test_rubbish_is_accounted_for_or_refused_in_a_line(tmp_path: Path) -> None:
    row = run_rubbish(tmp_path, seconds=20, seed=3, points=2_200, large=False)
    assert row.findings == []
    assert row.points > 1_600


@given(st.binary(max_size=80) | st.text(">@+\n\r ACGTX#\t", max_size=40).map(str.encode))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    assert list(judge(tmp_path_factory.getbasetemp(), "x.fa", data, None)) == []


def test_x_alone_makes_no_protein(tmp_path: Path) -> None:
    """X also masks vectors and repeats: such a record is kept and set aside, and the others are scored."""
    (tmp_path / "x.fa").write_text(">masked\nACGTACGTXXXXXXXXACGT\n>all\nXXXXXX\n>sound\nACGTTGCA\n")
    found = {r.id: r.reason for r in read_records([tmp_path / "x.fa"])}
    assert found == {
        "masked": "letter 'X' at position 9 (line 2) is not a nucleotide code",
        "all": "letter 'X' at position 1 (line 4) is not a nucleotide code",
        "sound": "",
    }


Tensors = dict[str, torch.Tensor]
KEY = "encoder.layer.0.attention.self.query.weight"


def _set(key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.update({key: change(tensors[key]).contiguous()})


def _with_nan(tensor: torch.Tensor) -> torch.Tensor:
    changed = tensor.clone()
    changed.view(-1)[3] = torch.nan
    return changed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set(KEY, lambda t: t[:-1]), rf"tensor '{KEY}' is F32 \(63, 64\), expected float \(64, 64\)"),
        (_set(KEY, lambda t: t.to(torch.int32)), rf"tensor '{KEY}' is I32"),
        (_set(KEY, _with_nan), rf"tensor '{KEY}' has NaN"),
        (lambda t: t.pop(KEY), rf"tensor '{KEY}' is missing"),
        (
            lambda t: t.update({"encoder.layer.99.x": t[KEY].clone()}),
            r"tensor 'encoder\.layer\.99\.x' is not of",
        ),
        (lambda t: t.update({"os.system": t[KEY].clone()}), r"unknown tensor 'os\.system'"),
    ],
    ids=["shape", "dtype", "NaN", "missing", "extra", "unknown"],
)
def test_hostile_safetensors_are_refused_with_the_key(
    tmp_path: Path, change: Callable[[Tensors], Any], said: str
) -> None:
    folder = shutil.copytree(DEMO / "esm2", tmp_path / "esm2")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=said) as caught:
        load_encoder("esm2", folder, device=CPU, dtype=torch.float32, attention="reference")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"[]",
        json.dumps({KEY: {"dtype": "F32", "shape": [64, 64], "data_offsets": [0, 1 << 60]}}).encode(),
        json.dumps({KEY: {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}).encode(),
        json.dumps({KEY: {"dtype": "XX", "shape": [1], "data_offsets": [0, 4]}}).encode(),
    ],
    ids=["cut", "list", "beyond the file", "negative", "dtype"],
)
def test_a_false_header_is_refused(tmp_path: Path, header: bytes) -> None:
    folder = shutil.copytree(DEMO / "esm2", tmp_path / "esm2")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_encoder("esm2", folder, device=CPU, dtype=torch.float32, attention="reference")


@pytest.mark.parametrize(
    "index", ["{", "[]", '{"weight_map": 1}', '{"weight_map": {"a": "../x.safetensors"}}']
)
def test_a_false_index_is_refused(tmp_path: Path, index: str) -> None:
    folder = shutil.copytree(DEMO / "esm2", tmp_path / "esm2")
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(WeightsError, match=r"index|missing"):
        load_encoder("esm2", folder, device=CPU, dtype=torch.float32, attention="reference")
