"""From the frame store to shards: the loader, write-behind, non-finite rows, memory that runs out."""

import multiprocessing
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType

import numpy as np
import psutil
import pytest
import torch

from tests.support import ROOT
from virnucpro_core.devices.compute import LoaderSettings
from virnucpro_core.encoders.encoder import Encoder, load_encoder
from virnucpro_core.encoders.packing import PackedBatch, PackedShard, pack_shard
from virnucpro_core.engine.inference import embed_shards
from virnucpro_core.engine.loading import Feed, ShardDataset, assert_cpu_only, end_workers, shard_loader
from virnucpro_core.engine.shards import Entry, ShardStore, ids_digest
from virnucpro_core.engine.sharing import OwnShards
from virnucpro_core.engine.telemetry import LaneSummary, Recorder, read_lines, read_progress
from virnucpro_core.errors import DeviceError, StoreError
from virnucpro_core.files.verification import Verification
from virnucpro_core.models.profiles import DEMO
from virnucpro_core.pipeline.lane import OnShard
from virnucpro_core.sequences.chunks import write_chunks
from virnucpro_core.sequences.frames import Frames, write_frames

N_SHARDS = 3


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    letters = random.Random(1)
    records = "".join(
        f">r{i}\n{''.join(letters.choices('ACGT', k=letters.randint(40, 160)))}\n" for i in range(60)
    )
    (folder / "reads.fa").write_text(records)
    write_frames(write_chunks([folder / "reads.fa"], folder / "chunks", chunk_size=300), folder / "frames")
    return folder / "frames"


@pytest.fixture
def esm() -> Encoder:
    return load_encoder(
        "esm2", DEMO / "esm2", device=torch.device("cpu"), dtype=torch.float32, attention="reference"
    )


class Lane:
    """One lane's run over all shards of a frame store."""

    def __init__(self, folder: Path, frames: Path, encoder: Encoder, settings: LoaderSettings) -> None:
        self.frames, self.encoder, self.settings = frames, encoder, settings
        self.store = ShardStore(
            folder / "esm", dataset="embeddings", identity={"encoder": encoder.fingerprint}
        )
        self.telemetry = folder / "telemetry.jsonl"
        self.summary = LaneSummary("esm_embeddings", 0, 1, "cpu", "float32", "reference")
        self.entries: list[Entry] = []

    def run(self, on_shard: OnShard | None = None) -> None:
        dataset = ShardDataset(
            self.frames,
            self.encoder.input,
            list(range(N_SHARDS)),
            n_shards=N_SHARDS,
            token_budget=self.settings.token_budget,
        )
        feed = Feed(dataset, self.settings, torch.device("cpu"))
        with feed, Recorder(self.telemetry, self.summary) as recorder:
            embed_shards(
                self.encoder,
                feed,
                self.store,
                recorder,
                on_shard=on_shard or self.entries.append,
                on_rows=lambda *_: None,
                verification=Verification(),
            )


def test_every_row_is_the_embedding_of_its_frame(tmp_path: Path, frames: Path, esm: Encoder) -> None:
    lane = Lane(tmp_path, frames, esm, LoaderSettings(token_budget=500, workers=0))
    lane.run()
    opened = Frames.open(frames)
    assert [e.shard for e in lane.entries] == list(range(N_SHARDS))
    assert sum(e.rows for e in lane.entries) == opened.n_unique == lane.summary.sequences
    alone = esm.forward
    for shard in range(N_SHARDS):
        frame_R, values_RD = lane.store.read(shard)
        assert lane.store.state(shard, ids_digest(opened.digests[opened.shard(shard, N_SHARDS)])) == "done"
        for row in (0, len(frame_R) // 2, len(frame_R) - 1):
            tokens_T, lengths_B = esm.tokenizer.encode([opened.proteins[int(frame_R[row])]])
            expected = alone(pack_shard(0, tokens_T, lengths_B, 10_000).batches[0])[0].numpy()
            np.testing.assert_allclose(values_RD[row], expected, rtol=2e-5, atol=2e-5)


def test_a_worker_process_gives_the_same_bytes(tmp_path: Path, frames: Path, esm: Encoder) -> None:
    lanes = [
        Lane(tmp_path / str(w), frames, esm, LoaderSettings(token_budget=700, workers=w)) for w in (0, 1)
    ]
    for lane in lanes:
        lane.run()
    assert [e.sha256 for e in lanes[0].entries] == [e.sha256 for e in lanes[1].entries]


def test_workers_end_with_the_lane_whoever_still_looks_at_it(
    tmp_path: Path, frames: Path, esm: Encoder
) -> None:
    """A debugger, or an exception that somebody keeps, holds the lane's frames and so the loader."""
    kept: list[FrameType] = []
    before = set(multiprocessing.active_children())
    lane = Lane(tmp_path, frames, esm, LoaderSettings(token_budget=700, workers=2))
    lane.run(on_shard=lambda _: kept.append(sys._getframe(1)))
    assert len(kept) == N_SHARDS
    assert isinstance(kept[0].f_locals["feed"], Feed)
    assert set(multiprocessing.active_children()) == before


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_relied_on_in_torch_to_end_workers(frames: Path, esm: Encoder, workers: int) -> None:
    """torch has no public way: with workers that stay, iterating a DataLoader anew gives the same iterator, whose
    `_shutdown_workers` ends them, also in the middle and also twice."""
    dataset = ShardDataset(frames, esm.input, range(N_SHARDS), n_shards=N_SHARDS, token_budget=700)
    loader = shard_loader(
        dataset, LoaderSettings(workers=workers), torch.device("cpu"), OwnShards(range(N_SHARDS))
    )
    shards = iter(loader)
    assert hasattr(shards, "_shutdown_workers") == (workers > 0)
    if not workers:
        return
    assert sum(isinstance(shard, PackedShard) for shard in shards) == N_SHARDS
    assert iter(loader) is shards
    next(shards)
    children = multiprocessing.active_children()
    assert len(children) >= workers
    started = time.monotonic()
    end_workers(shards)
    end_workers(shards)
    assert time.monotonic() - started < 4.0  # torch's own wait for one that does not listen is 5 s
    assert not set(multiprocessing.active_children()) & set(children)


def test_a_worker_that_has_touched_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_cpu_only(0)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(DeviceError, match="worker 3 has initialised CUDA"):
        assert_cpu_only(3)


class Faulty:
    """An encoder that spoils the row of every longest sequence; its float32 pass may be sound."""

    def __init__(self, encoder: Encoder, *, sound_in_float32: bool) -> None:
        self.inner, self.sound = encoder, sound_in_float32
        self.kind, self.dim, self.device = encoder.kind, encoder.dim, encoder.device
        self.input, self.fingerprint = encoder.input, encoder.fingerprint

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        rows_BD = self.inner.forward(batch).clone()
        rows_BD[0, 0] = torch.nan
        return rows_BD

    def forward_float32(self, batch: PackedBatch) -> torch.Tensor:
        rows_BD = self.inner.forward_float32(batch).clone()
        return rows_BD if self.sound else rows_BD * torch.inf


def test_rows_that_are_not_finite_are_computed_again_in_float32(
    tmp_path: Path, frames: Path, esm: Encoder
) -> None:
    sound = Lane(tmp_path / "sound", frames, esm, LoaderSettings(500, workers=0))
    sound.run()
    lane = Lane(
        tmp_path / "faulty", frames, Faulty(esm, sound_in_float32=True), LoaderSettings(500, workers=0)
    )  # type: ignore[arg-type]
    lane.run()
    assert lane.summary.fp32_recomputed == lane.summary.batches
    for shard in range(N_SHARDS):
        np.testing.assert_allclose(
            lane.store.read(shard)[1], sound.store.read(shard)[1], rtol=2e-5, atol=2e-5
        )


def test_the_lane_fails_when_they_stay_bad_and_publishes_nothing_bad(
    tmp_path: Path, frames: Path, esm: Encoder
) -> None:
    lane = Lane(tmp_path, frames, Faulty(esm, sound_in_float32=False), LoaderSettings(500, workers=0))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="no finite embedding even in float32; check the weights"):
        lane.run()
    assert not list(lane.store.folder.glob("*.h5"))


class Watched:
    """An encoder that counts, before each batch, the shards that are computed and not on disk."""

    def __init__(self, encoder: Encoder, folder: Path, rows: list[int]) -> None:
        self.inner, self.folder, self.ends = encoder, folder, np.cumsum(rows)
        self.kind, self.dim, self.device = encoder.kind, encoder.dim, encoder.device
        self.input, self.fingerprint = encoder.input, encoder.fingerprint
        self.done, self.most = 0, 0

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        rows_BD = self.inner.forward(batch)
        self.done += batch.n_sequences
        computed = int((self.ends <= self.done).sum())
        self.most = max(self.most, computed - len(list(self.folder.glob("*.json"))))
        return rows_BD


@pytest.mark.parametrize("budget", [200, 100_000], ids=["many batches a shard", "one batch a shard"])
def test_a_lane_that_dies_loses_at_most_one_computed_shard(
    tmp_path: Path, frames: Path, esm: Encoder, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    opened = Frames.open(frames)
    rows = [len(opened.shard(k, N_SHARDS)) for k in range(N_SHARDS)]
    lane = Lane(tmp_path, frames, esm, LoaderSettings(budget, workers=0))
    watched = Watched(esm, lane.store.folder, rows)
    lane.encoder = watched  # type: ignore[assignment]
    write = ShardStore.write

    def slowly(*args: object, **options: object) -> Entry:
        time.sleep(0.3)
        return write(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ShardStore, "write", slowly)
    lane.run()
    assert watched.most == 1
    assert len(lane.entries) == N_SHARDS


class Small:
    """An encoder on a device that holds `room` tokens."""

    def __init__(self, encoder: Encoder, room: int) -> None:
        self.inner, self.room = encoder, room
        self.kind, self.dim, self.device = encoder.kind, encoder.dim, encoder.device
        self.input, self.fingerprint = encoder.input, encoder.fingerprint

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        if batch.n_tokens > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner.forward(batch)


def test_out_of_memory_halves_the_batches_and_loses_nothing(
    tmp_path: Path, frames: Path, esm: Encoder
) -> None:
    whole = Lane(tmp_path / "whole", frames, esm, LoaderSettings(1000, workers=0))
    whole.run()
    lane = Lane(tmp_path / "small", frames, Small(esm, 150), LoaderSettings(1000, workers=0))  # type: ignore[arg-type]
    lane.run()
    assert lane.summary.oom_backoffs >= 2
    assert lane.summary.sequences == whole.summary.sequences
    for shard in range(N_SHARDS):
        np.testing.assert_allclose(
            lane.store.read(shard)[1], whole.store.read(shard)[1], rtol=2e-5, atol=2e-5
        )
    assert not any("batches_halved" in entry.maker for entry in whole.entries)
    assert any(
        entry.maker.get("batches_halved", 0) > 0 for entry in lane.entries
    )  # it says that it is another kind


def test_one_sequence_that_does_not_fit_ends_the_lane_with_a_remedy(
    tmp_path: Path, frames: Path, esm: Encoder
) -> None:
    lane = Lane(tmp_path, frames, Small(esm, 5), LoaderSettings(1000, workers=0))  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match=r"one sequence of \d+ tokens does not fit.*smaller --chunk-size"):
        lane.run()


def test_overlong_sequences_are_counted_and_said(
    tmp_path: Path, frames: Path, esm: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    esm.input = replace(esm.input, longest=40)
    lane = Lane(tmp_path, frames, esm, LoaderSettings(500, workers=0))
    lane.run()
    expected = int((Frames.open(frames).protein_lengths + 2 > 40).sum())
    assert lane.summary.overlong == expected > 0
    assert "sequences above 40 tokens" in caplog.text


def test_telemetry_adds_up_and_shows_progress(tmp_path: Path, frames: Path, esm: Encoder) -> None:
    lane = Lane(tmp_path, frames, esm, LoaderSettings(500, workers=0))
    lane.summary.sequences_total = Frames.open(frames).n_unique
    assert read_progress(lane.telemetry) is None
    lane.run()
    lines = list(read_lines(lane.telemetry))
    batches = [line for line in lines if line["event"] == "batch"]
    assert sum(line["tokens"] for line in batches) == lane.summary.tokens
    shards = [line for line in lines if line["event"] == "shard"]
    assert len(shards) == N_SHARDS
    assert sum(len(line["batch_seconds"]) for line in shards) == len(batches)
    assert 0.5 < lane.summary.packing_efficiency <= 1.0
    assert 0.0 < lane.summary.device_busy_seconds < lane.summary.seconds
    assert lane.summary.device_busy_seconds + lane.summary.device_idle_seconds <= lane.summary.seconds
    assert 0.0 < lane.summary.device_utilisation <= 1.0
    progress = read_progress(lane.telemetry)
    assert progress is not None
    assert progress.ended
    assert progress.done == progress.total


LANE = """
import multiprocessing, time
from virnucpro_core.engine.loading import begin_worker, start_worker_server

def work():
    multiprocessing.parent_process().join()  # the lane is gone before the worker begins
    begin_worker(0)
    time.sleep(300)

if __name__ == "__main__":
    start_worker_server()
    worker = multiprocessing.get_context("forkserver").Process(target=work)
    worker.start()
    print(worker.pid, flush=True)
    time.sleep(300)
"""


def test_a_worker_whose_lane_was_killed_before_it_began_ends(tmp_path: Path) -> None:
    (tmp_path / "lane.py").write_text(LANE)
    with subprocess.Popen(
        [sys.executable, "lane.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT)},
    ) as lane:
        assert lane.stdout is not None
        worker = psutil.Process(int(lane.stdout.readline()))
        worker.cpu_times()
        time.sleep(0.5)  # the worker has read what it is by now
        lane.kill()
    _, alive = psutil.wait_procs([worker], timeout=30)
    assert alive == []
