"""`virnucpro samples verify` finds a flipped byte in any file of a sample, and says what passed."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.assets.conftest import NAME, Finished
from virnucpro_assets.cli.main import app
from virnucpro_core.errors import StoreError
from virnucpro_core.samples.sample import register


def _verify(finished: Finished, *words: str) -> Result:
    variables = {"VIRNUCPRO_HOME": str(finished.platform.folder), "VIRNUCPRO_CHUNK_SIZE": "300"}
    return CliRunner().invoke(app, ["samples", "verify", NAME, *words], env=variables)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_whole_sample_passes_and_every_product_is_named(finished: Finished) -> None:
    done = _verify(finished)
    assert done.exit_code == 0, done.output
    products = [line.split()[1] for line in done.output.splitlines()]
    assert list(dict.fromkeys(products)) == [
        "inputs",
        "chunks",
        "translations",
        "dnabert_embeddings",
        "esm_embeddings",
        "merged_features",
        "predictions",
        "consensus",
    ]
    assert "DAMAGED" not in done.output


@pytest.mark.parametrize(
    ("product", "pattern"),
    [
        ("chunks", "chunks/sequences.bin"),
        ("translations", "translations/proteins.bin"),
        ("dnabert_embeddings", "dnabert_embeddings/00001.h5"),
        ("esm_embeddings", "esm_embeddings/00000.h5"),
        ("merged_features", "merged_features/00000.h5"),
        ("predictions", "predictions/00001.h5"),
        ("consensus", "results/report.html"),
    ],
)
def test_a_flipped_byte_is_found(finished: Finished, product: str, pattern: str) -> None:
    _flip(finished.sample.folder / pattern)
    done = _verify(finished, "--json")
    assert isinstance(done.exception, StoreError)
    lines = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
    assert {line["product"] for line in lines if not line["passed"]} >= {product}


def test_a_changed_input_is_found_and_a_missing_one_is_said(finished: Finished) -> None:
    [file] = finished.sample.inputs
    copy = finished.platform.folder / "copy.fa"
    copy.write_bytes(file.path.read_bytes())
    register(finished.platform.folder, NAME, [copy], finished.sample.settings)
    copy.unlink()
    assert "cannot be read any more" in _verify(finished).output
    copy.write_text(">other\nACGT\n")
    assert "files have changed" in _verify(finished).output
