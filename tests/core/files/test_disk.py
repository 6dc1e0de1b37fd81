"""What is estimated covers what is written, and a disk with less is refused with both numbers before work begins."""

import errno
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from torture.pipeline import Pipeline, write_reads
from virnucpro_core.errors import StoreError
from virnucpro_core.files import disk
from virnucpro_core.samples.products import DNABERT

Usage = namedtuple("Usage", "total used free")


def _on_disk(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def test_the_estimates_cover_what_a_sample_takes(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "home", write_reads(tmp_path / "reads.fa", records=60))
    sample = pipeline.register()
    before = pipeline.lane(pipeline.prepared(sample), 0)
    stores = _on_disk(sample.chunks) + _on_disk(sample.translations)
    assert stores - 4_000 * 2 < disk.reading_bytes(pipeline.reads.stat().st_size, packed=0)
    needed = before.bytes_to_come()
    pipeline.run()
    taken = _on_disk(sample.folder) - stores
    assert taken < needed < 2 * taken + disk.REPORT_BYTES
    assert before.bytes_to_come() == disk.REPORT_BYTES + disk.RESULT_BYTES_A_FRAME * before.frames.n_frames


def test_a_disk_that_is_too_small_is_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline(tmp_path / "home", write_reads(tmp_path / "reads.fa"))
    free = 100
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, free))
    with pytest.raises(
        StoreError, match=r"reads: 100 B free, [0-9.]+ kB needed to read and translate.*make room"
    ):
        pipeline.run()
    assert not (pipeline.folder / "chunks").exists()
    free = 100_000
    with pytest.raises(StoreError, match=r"B needed for the sample's shards and results"):
        pipeline.run()
    assert (pipeline.folder / "translations").exists()
    assert not (pipeline.folder / DNABERT).exists()


def test_a_full_disk_is_that_of_the_file_that_is_written(tmp_path: Path) -> None:
    """As `shutil.copyfile` raises it: it names the file that it reads first."""
    source, copy, final = (
        tmp_path / "source",
        tmp_path / "out" / f"{disk.TEMPORARY}1.json",
        tmp_path / "out" / "x.json",
    )
    for error, named in (
        (OSError(errno.ENOSPC, "No space left on device", str(source), None, str(copy)), final),
        (
            OSError(errno.ENOSPC, "No space left on device", str(source), None, str(tmp_path / "y")),
            tmp_path / "y",
        ),
        (OSError(errno.EIO, "Input/output error", str(source), None, str(copy)), source),
        (OSError(errno.ENOSPC, "No space left on device"), final),
    ):
        with pytest.raises(StoreError) as told, disk.disk_errors(final):
            raise error
        assert told.value.where == str(named)
        assert "free)" in str(told.value)


def test_a_copy_takes_whole_blocks(tmp_path: Path) -> None:
    for name, size in (("a", 1), ("b", 4096), ("c", 4097), ("d", 0)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert disk.copied_bytes(tmp_path) == 4 * 4096
