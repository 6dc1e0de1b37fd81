"""Feature files of the published tool are read as data, and refused with the place of what is wrong."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.feature_files import write_published
from virnucpro_core.errors import WeightsError
from virnucpro_core.models import feature_files
from virnucpro_core.models.feature_files import kind_of, read_features
from virnucpro_core.models.golden import published


def test_all_three_forms_give_the_golden_vectors(tmp_path: Path) -> None:
    golden = published()
    files = sorted(f for folder in write_published(golden, tmp_path) for f in folder.glob("*.pt"))
    found = {"dnabert-s": {}, "esm2": {}, "merged": {}}
    for file in files:
        kind = kind_of(file)
        features = read_features(file, kind)
        assert features.values.dtype == np.float32
        found[kind] |= dict(zip(features.ids, features.values, strict=True))
    wanted = golden.vectors | {"merged": golden.features()}
    for kind, rows in found.items():
        np.testing.assert_array_equal(np.stack([rows[i] for i in golden.ids]), wanted[kind])
    assert kind_of(tmp_path / "output_1.pt") is None


def test_vectors_of_esm_may_be_dicts_and_half_precision(tmp_path: Path) -> None:
    values = torch.arange(2560) / 2560
    data = [{"label": "a", "mean_representation": values.bfloat16()}, values.half()]
    torch.save({"proteins": ["a", "b"], "data": data}, tmp_path / "x_ESM.pt")
    found = read_features(tmp_path / "x_ESM.pt", "esm2")
    np.testing.assert_allclose(found.values, np.stack([values, values]), atol=4e-3)


VECTOR = [0.5] * 768


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"nucleotide": ["a"]}, "no list 'data' of vectors in it"),
        ({"data": [VECTOR]}, "no list 'nucleotide' of ids in it"),
        ({"nucleotide": ["a", 3], "data": [VECTOR] * 2}, "no list 'nucleotide' of ids in it"),
        (
            {"nucleotide": ["a", "b"], "data": [VECTOR]},
            "2 ids, but 1 vectors: it is not known which vector is whose",
        ),
        (
            {"nucleotide": ["a"], "data": [{"label": "b", "mean_representation": VECTOR}]},
            "the vector of 'a' is labelled 'b'",
        ),
        ({"nucleotide": ["a"], "data": [VECTOR[:9]]}, r"the vector of 'a' has shape \(9,\), 768 numbers"),
        ({"nucleotide": ["a"], "data": [[*VECTOR[:-1], "x"]]}, "neither a tensor nor a list of numbers"),
        (
            {"nucleotide": ["a"], "data": [[float("nan")] * 768]},
            "the vector of 'a' has values that are not finite",
        ),
        ([1, 2], "no list 'nucleotide' of ids in it"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path: Path, content: object, line: str) -> None:
    file = tmp_path / "x_DNABERT_S.pt"
    torch.save(content, file)
    with pytest.raises(WeightsError, match=line) as error:
        read_features(file, "dnabert-s")
    assert str(error.value).startswith(f"{file}: ")
    assert error.value.remedy


def test_merged_files_with_shifted_rows_are_refused(tmp_path: Path) -> None:
    torch.save({"ids": ["a", "b"], "data": torch.zeros(1, 3328)}, tmp_path / "x_merged.pt")
    with pytest.raises(
        WeightsError, match=r"2 ids, but 1 vectors.*use the \*_DNABERT_S\.pt and \*_ESM\.pt files"
    ):
        read_features(tmp_path / "x_merged.pt", "merged")
    torch.save({"ids": ["a"], "data": torch.zeros(1, 2048)}, tmp_path / "x_merged.pt")
    with pytest.raises(WeightsError, match="vectors of 2,048 numbers, 3,328 are expected"):
        read_features(tmp_path / "x_merged.pt", "merged")
    torch.save({"ids": ["a"], "data": [0.0]}, tmp_path / "x_merged.pt")
    with pytest.raises(WeightsError, match="no matrix 'data' in it"):
        read_features(tmp_path / "x_merged.pt", "merged")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def test_nothing_in_a_feature_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"nucleotide": ["a"], "data": [Evil()]}, tmp_path / "x_DNABERT_S.pt")
    with pytest.raises(WeightsError, match="neither a tensor nor a list"):
        read_features(tmp_path / "x_DNABERT_S.pt", "dnabert-s")
    assert not (tmp_path / "executed").exists()


def test_a_pickle_larger_than_any_feature_file_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_files, "LARGEST_PICKLE", 1000)
    torch.save({"nucleotide": ["a"], "data": [VECTOR]}, tmp_path / "x_DNABERT_S.pt")
    with pytest.raises(WeightsError, match=r"data\.pkl' has .* bytes, more than any checkpoint needs"):
        read_features(tmp_path / "x_DNABERT_S.pt", "dnabert-s")
