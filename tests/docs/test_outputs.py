"""docs/outputs.md names every file that is written, and every column of every table."""

import re

import pytest

from tests.support import ROOT
from virnucpro_core.evaluation import evaluation, trained
from virnucpro_core.results import batch, chunk_calls, folder, record_calls, region_files, viral_reads

PAGE = (ROOT / "docs" / "outputs.md").read_text()
HEADERS = {
    "contigs.tsv": record_calls.contigs_header(30, is_calibrated=True),
    "chunks.tsv": region_files.CHUNKS_HEADER.rstrip() + region_files.SCORED_BY,
    "prediction_results.txt": chunk_calls.PREDICTIONS_HEADER,
    "prediction_results_highestscore.csv": chunk_calls.CHUNK_CALLS_HEADER,
    "pairs.tsv": viral_reads.PAIRS_HEADER,
    "summary.tsv": "\t".join(batch.COLUMNS).encode(),
    "evaluation.tsv": "\t".join(evaluation._COLUMNS).encode(),
}


@pytest.mark.parametrize("file", HEADERS)
def test_every_column_is_explained(file: str) -> None:
    assert f"`{file}`" in PAGE or f"### {file}" in PAGE
    for column in HEADERS[file].decode().split():
        assert f"`{column}`" in PAGE, (file, column)


def test_every_file_is_named() -> None:
    for name in (*folder.RESULT_FILES, evaluation.PAGE, evaluation.JSON, trained.CARD, batch.INDEX):
        assert re.search(rf"(`|### ){re.escape(name)}", PAGE), name
