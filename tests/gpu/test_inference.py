"""Frame store to shards on the GPU: memory that runs out, rows that are not finite, the same bytes again."""

from pathlib import Path

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from benchmarks.seeded import write_model, write_reads
from virnucpro_core.devices.compute import LoaderSettings
from virnucpro_core.devices.cuda import usable_device
from virnucpro_core.encoders.encoder import Encoder, load_encoder
from virnucpro_core.engine.inference import embed_shards
from virnucpro_core.engine.loading import Feed, ShardDataset, token_budget_of
from virnucpro_core.engine.shards import ShardStore
from virnucpro_core.engine.telemetry import LaneSummary, Recorder, read_lines
from virnucpro_core.errors import DeviceError
from virnucpro_core.files.verification import Verification
from virnucpro_core.sequences.chunks import write_chunks
from virnucpro_core.sequences.frames import Frames, write_frames

pytestmark = pytest.mark.gpu
SHARDS = 3
FP8 = pytest.param(
    torch.float8_e4m3fn,
    marks=pytest.mark.skipif(
        torch.cuda.get_device_capability() < (8, 9), reason="needs fp8 units (Hopper, Ada)"
    ),
)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    write_reads(folder / "reads.fa", 4_000)
    return write_frames(
        write_chunks([folder / "reads.fa"], folder / "chunks", chunk_size=300), folder / "frames"
    ).path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    device = torch.device("cuda")
    return write_model("esm2-650m", tmp_path_factory.mktemp("model"), device=device, dtype=torch.float16)


def _load(weights: Path, dtype: torch.dtype = torch.float16) -> Encoder:
    return load_encoder(
        "esm2", weights, device=usable_device("cuda:0", "float16"), dtype=dtype, attention="triton"
    )


def _embed(encoder: Encoder, frames: Path, folder: Path) -> tuple[ShardStore, LaneSummary]:
    settings = LoaderSettings(workers=1)
    budget = token_budget_of(encoder.input, settings, encoder.device)
    dataset = ShardDataset(frames, encoder.input, range(SHARDS), n_shards=SHARDS, token_budget=budget)
    store = ShardStore(folder / "esm", dataset="embeddings", identity={"made": "for a test"})
    summary = LaneSummary("esm_embeddings", 0, 1, "GPU", "float16", "triton")
    recorded = Recorder(folder / "telemetry.jsonl", summary)
    with recorded as recorder, Feed(dataset, settings, encoder.device) as feed:
        embed_shards(
            encoder,
            feed,
            store,
            recorder,
            on_shard=lambda _: None,
            on_rows=lambda *_: None,
            verification=Verification(),
        )
    return store, summary


@pytest.mark.parametrize("dtype", [torch.float16, FP8])
def test_the_same_shards_are_the_same_bytes_again(
    weights: Path, frames: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    encoder = _load(weights, dtype)
    stores = [_embed(encoder, frames, tmp_path / name)[0] for name in ("once", "again")]
    for shard in range(SHARDS):
        once, again = (store.path(shard).read_bytes() for store in stores)
        assert once == again


def test_embed_gives_the_shards_rows(weights: Path, frames: Path, tmp_path: Path) -> None:
    """`Encoder.embed` and the engine run one loop: the same batches give the same bytes."""
    encoder, opened = _load(weights), Frames.open(frames)
    store, _ = _embed(encoder, frames, tmp_path)
    frame_R, expected_RD = store.read(0)
    found_RD = encoder.embed(opened.proteins.take(frame_R))
    distinct = len(set(opened.proteins.take(frame_R))) == len(frame_R)
    cosine = torch.cosine_similarity(torch.from_numpy(expected_RD), torch.from_numpy(found_RD))
    assert np.array_equal(expected_RD, found_RD) if distinct else cosine.min() > 0.9999
    exact_RD = encoder.embed(opened.proteins.take(frame_R)[:20], float32=True)
    assert torch.cosine_similarity(torch.from_numpy(exact_RD), torch.from_numpy(found_RD[:20])).min() > 0.9999


def test_embed_halves_its_batches_on_a_capped_card(weights: Path, frames: Path) -> None:
    encoder, proteins = _load(weights), Frames.open(frames).proteins[:2000]
    expected_RD = encoder.embed(proteins)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    room = 16_384 * encoder.input.bytes_per_token // 7
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + room) / total)
    try:
        found_RD = encoder.embed(proteins)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    cosine = torch.cosine_similarity(torch.from_numpy(expected_RD), torch.from_numpy(found_RD))
    assert cosine.min() > 0.99999


def test_loading_by_names_is_loading_by_torch_s(weights: Path) -> None:
    encoder = load_encoder("esm2", weights, device="cuda", dtype="float16")
    assert (encoder.device.type, encoder.dtype) == ("cuda", torch.float16)
    assert np.array_equal(encoder.embed(["MKTAYIAKQR"]), _load(weights).embed(["MKTAYIAKQR"]))
    with pytest.raises(DeviceError, match=r"cuda:99: there are \d+ GPUs; cuda:\d+ is the last"):
        load_encoder("esm2", weights, device="cuda:99", dtype="float16")


def test_a_capped_card_halves_its_batches_and_loses_nothing(
    weights: Path, frames: Path, tmp_path: Path
) -> None:
    """The process may take what it holds and a seventh of what a full batch wants."""
    encoder = _load(weights)
    whole, _ = _embed(encoder, frames, tmp_path / "whole")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    room = 16_384 * encoder.input.bytes_per_token // 7
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + room) / total)
    try:
        store, summary = _embed(encoder, frames, tmp_path / "capped")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert summary.oom_backoffs >= 1
    for shard in range(SHARDS):
        (frame_R, expected_RD), (again_R, found_RD) = whole.read(shard), store.read(shard)
        assert np.array_equal(frame_R, again_R)
        cosine = torch.cosine_similarity(torch.from_numpy(expected_RD), torch.from_numpy(found_RD))
        assert cosine.min() > 0.99999


def test_rows_that_float16_cannot_hold_are_computed_in_float32(
    weights: Path, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = _load(weights)
    sound, _ = _embed(encoder, frames, tmp_path / "sound")
    forward = encoder.forward

    def spoiled(batch: object) -> torch.Tensor:
        rows = forward(batch).clone()  # type: ignore[arg-type]
        rows[::100, 3] = float("inf")
        return rows

    monkeypatch.setattr(encoder, "forward", spoiled)
    store, summary = _embed(encoder, frames, tmp_path / "spoiled")
    assert summary.fp32_recomputed >= 3
    for shard in range(SHARDS):
        expected, found = (torch.from_numpy(s.read(shard)[1]) for s in (sound, store))
        assert torch.cosine_similarity(expected, found).min() > 0.9999


def test_telemetry_tells_what_the_driver_counts(weights: Path, frames: Path, tmp_path: Path) -> None:
    encoder = _load(weights)
    _, summary = _embed(encoder, frames, tmp_path)
    batches = [line for line in read_lines(tmp_path / "telemetry.jsonl") if line["event"] == "batch"]
    shards = [line for line in read_lines(tmp_path / "telemetry.jsonl") if line["event"] == "shard"]
    assert sum(len(line["batch_seconds"]) for line in shards) == len(batches) == summary.batches
    assert sum(sum(line["batch_seconds"]) for line in shards) == pytest.approx(
        summary.device_busy_seconds, rel=0.01
    )
