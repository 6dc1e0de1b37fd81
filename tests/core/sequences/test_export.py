"""The published tool's files, byte for byte."""

from pathlib import Path

import pytest

from virnucpro_core.sequences.chunks import write_chunks
from virnucpro_core.sequences.export import export_translations
from virnucpro_core.sequences.frames import write_frames


@pytest.mark.parametrize("size", [300, 500])
def test_export_equals_the_golden_files(shared: Path, tmp_path: Path, size: int) -> None:
    golden = shared / "golden" / "vanilla"
    chunks = write_chunks([golden / f"mixed_{size}.fa"], tmp_path / "chunks", chunk_size=size)
    frames = write_frames(chunks, tmp_path / "frames")
    written = export_translations(chunks, frames, tmp_path / "out", f"mixed_{size}")
    expected = {
        f"mixed_{size}_chunked{size}.fa",
        f"mixed_{size}_identified_nucleotide.fa",
        f"mixed_{size}_identified_protein.faa",
    }
    assert {path.name for path in written} == expected
    for path in written:
        assert path.read_bytes() == (golden / path.name).read_bytes(), path.name
