"""Several processes give what one gives, in the same order; a killed process costs one line."""

import os
import signal
from pathlib import Path

import pytest

from tests.core.sequences.test_frames import sequences
from virnucpro_core.errors import StoreError
from virnucpro_core.sequences import frames as module
from virnucpro_core.sequences.chunks import write_chunks
from virnucpro_core.sequences.frames import write_frames
from virnucpro_core.sequences.parallel import Processes


def _square(number: int) -> int:
    if number == 13:
        raise ValueError("thirteen")
    return number * number


def _die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_keep_the_order_and_errors_and_deaths_are_raised() -> None:
    with Processes(2) as pool:
        assert list(pool.map(_square, [])) == []
        assert list(pool.map(_square, range(12))) == [n * n for n in range(12)]
        with pytest.raises(ValueError, match="thirteen"):
            list(pool.map(_square, range(20)))
        assert list(pool.map(_square, [3])) == [9]
        with pytest.raises(StoreError, match="was killed"):
            list(pool.map(_die, range(20)))


STOPPED = [f"TTAACTAACTAACTAG{letters}TTAACTAACTAACTAG" for letters in ("GCC" * 8, "GAC" * 9)]


def test_a_store_has_the_same_bytes_however_many_processes_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.fa").write_text("".join(f">r{i}\n{s}\n" for i, s in enumerate([*sequences(1), *STOPPED])))
    chunks = write_chunks([tmp_path / "a.fa"], tmp_path / "chunks", chunk_size=60)
    monkeypatch.setattr(module, "BASES_A_PROCESS", 1)
    monkeypatch.setattr(module, "_BLOCK_BASES", 500)
    for least in (0, 5):
        alone, together = (
            write_frames(chunks, tmp_path / f"f{n}-{least}", processes=n, min_open=least) for n in (1, 2)
        )
        assert alone.digest == together.digest
        together.store.verify()
        assert (together.n_open > 0) == (least > 0)
