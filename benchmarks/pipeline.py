"""Measure the pipeline from FASTA to verified shards of both encoders, and the bare forward of the same batches.

    python -m benchmarks.pipeline --precision fp8 --records 560000 --tokenizer tokenizer.json --out benchmarks/results

Records are random coding sequences of 36 to 66 codons, with one stop-free frame by design and others by chance. Weights
are random with the published shapes. The bare forward runs batches that are already on the device, for at least
--seconds. The pipeline reads the frame store, tokenizes, packs, copies, computes, checks and publishes every shard.
Device idle time is measured by CUDA events on the compute stream.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.ceiling import ceiling
from benchmarks.record import finish, print_table, provenance
from benchmarks.seeded import write_model, write_reads
from virnucpro_core.devices.compute import LoaderSettings, default_attention
from virnucpro_core.devices.cuda import DTYPES, device_name, usable_device
from virnucpro_core.encoders.encoder import Encoder, Kind, encoder_input, load_encoder
from virnucpro_core.encoders.packing import PackedBatch, PackedShard
from virnucpro_core.engine.inference import embed_shards
from virnucpro_core.engine.loading import Feed, ShardDataset, start_worker_server, token_budget_of
from virnucpro_core.engine.shards import Entry, ShardStore, ids_digest
from virnucpro_core.engine.telemetry import LaneSummary, Recorder
from virnucpro_core.files.verification import Verification
from virnucpro_core.models.profiles import DEMO
from virnucpro_core.sequences.chunks import write_chunks
from virnucpro_core.sequences.frames import Frames, write_frames

BARE_BATCHES = 12
COLUMNS = (
    "model",
    "precision",
    "sequences",
    "tokens_per_second",
    "share_of_bare",
    "share_of_ceiling",
    "device_idle",
    "seconds",
    "packing_efficiency",
    "io_wait_p99_ms",
    "load_seconds",
    "first_batches_seconds",
    "verify_seconds",
)


def bare_rate(encoder: Encoder, dataset: ShardDataset, seconds: float) -> float:
    """Tokens/s of the forward alone, over batches of the dataset's first shard that are already on the device."""
    batches = [batch.to(encoder.device) for batch in _batches(dataset)]
    for batch in batches[:4]:
        encoder.forward(batch)
    rates = []
    for _ in range(3):
        tokens, started = 0, _now(encoder.device)
        while tokens == 0 or time.perf_counter() - started < seconds:
            for batch in batches:
                encoder.forward(batch)
                tokens += batch.n_tokens
            torch.cuda.synchronize() if encoder.device.type == "cuda" else None
        rates.append(tokens / (_now(encoder.device) - started))
    return statistics.median(rates)


def _batches(dataset: ShardDataset) -> tuple[PackedBatch, ...]:
    packed = dataset[0]
    assert isinstance(packed, PackedShard)
    return packed.batches[:BARE_BATCHES]


def run_encoder(
    kind: Kind, model: Path, frames: Path, folder: Path, options: argparse.Namespace
) -> dict[str, object]:
    """Run one encoder over the whole frame store. Returns the figures of the lane and of its bare forward."""
    precision = "float16" if options.precision == "fp8" and kind == "dnabert-s" else options.precision
    device = usable_device(options.device, precision)
    attention = default_attention(options.device, precision)
    opened = Frames.open(frames)
    n_shards = opened.n_shards(options.shard_rows)
    settings = LoaderSettings(options.token_budget, options.workers)
    taken = encoder_input(kind, model, DTYPES[precision])
    budget = token_budget_of(taken, settings, device)
    dataset = ShardDataset(frames, taken, list(range(n_shards)), n_shards=n_shards, token_budget=budget)
    started = time.perf_counter()
    feed = Feed(dataset, settings, device)
    encoder = load_encoder(kind, model, device=device, dtype=DTYPES[precision], attention=attention)
    loaded = _now(device) - started
    for batch in _batches(dataset)[:2]:  # compiles the kernels before time is measured
        encoder.forward(batch.to(device))
    first = _now(device) - started - loaded
    store = ShardStore(folder / kind, dataset="embeddings", identity={"encoder": kind, "weights": "seeded"})
    summary = LaneSummary(kind, 0, 1, device_name(device), precision, attention)
    entries: list[Entry] = []
    with Recorder(folder / f"{kind}.jsonl", summary) as recorder:
        embed_shards(
            encoder,
            feed,
            store,
            recorder,
            on_shard=entries.append,
            on_rows=lambda *_: None,
            verification=Verification(),
        )
    bare = bare_rate(encoder, dataset, options.seconds)
    started = time.perf_counter()
    states = {store.state(k, ids_digest(opened.digests[opened.shard(k, n_shards)])) for k in range(n_shards)}
    if states != {"done"} or sum(e.rows for e in entries) != opened.n_unique:
        raise SystemExit(f"{kind}: shards are {states}, {sum(e.rows for e in entries)} rows")
    name = options.dnabert if kind == "dnabert-s" else options.esm2
    top = ceiling(name, seconds=1.0, repeats=3, fp8=precision == "fp8") if device.type == "cuda" else None
    return asdict(summary) | {
        "model": name,
        "share_of_ceiling": top and summary.tokens_per_second / top,
        "ceiling_tokens_per_second": top,
        "bare_tokens_per_second": bare,
        "tokens_per_second": summary.tokens_per_second,
        "share_of_bare": summary.tokens_per_second / bare,
        "device_idle": 1 - summary.device_utilisation,
        "token_budget": budget,
        "load_seconds": loaded,
        "first_batches_seconds": first,
        "verify_seconds": time.perf_counter() - started,
        "total_seconds": summary.seconds + loaded + first,
        "bytes": sum(e.bytes for e in entries),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--precision", default="float16", choices=["float32", "float16", "fp8"])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--encoders", nargs="+", default=["dnabert-s", "esm2"], choices=["dnabert-s", "esm2"])
    parser.add_argument("--esm2", default="esm2-3b")
    parser.add_argument("--dnabert", default="dnabert-s")
    parser.add_argument("--tokenizer", type=Path, default=DEMO / "dnabert_s" / "tokenizer.json")
    parser.add_argument("--shard-rows", type=int, default=10_000)
    parser.add_argument("--token-budget", type=int, default=0)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    device = torch.device(options.device)
    start_worker_server()
    dtype = torch.float32 if options.precision == "float32" else torch.float16
    names: dict[Kind, str] = {"dnabert-s": options.dnabert, "esm2": options.esm2}
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_reads(folder / "reads.fa", options.records)
        started = time.perf_counter()
        chunks = write_chunks([folder / "reads.fa"], folder / "chunks", chunk_size=300)
        frames = write_frames(chunks, folder / "frames")
        translated = time.perf_counter() - started
        print(f"{frames.n_unique:,} unique frames in {translated:.1f} s", flush=True)
        for kind in options.encoders:
            model = write_model(names[kind], folder / "models" / kind, device=device, dtype=dtype)
            if kind == "dnabert-s":
                shutil.copyfile(options.tokenizer, model / "tokenizer.json")
            rows.append(run_encoder(kind, model, frames.path, folder, options))
            print_table(rows[-1:], COLUMNS)
    total = translated + sum(float(str(row["total_seconds"])) for row in rows)
    result = provenance() | {
        "device": device_name(device),
        "records": options.records,
        "unique_frames": frames.n_unique,
        "translate_seconds": translated,
        "total_seconds": total,
        "encoders": rows,
    }
    print(f"{frames.n_unique:,} unique frames from FASTA to verified shards in {total:,.0f} s")
    finish(result, options.out, "pipeline", *options.encoders, options.precision, result["device"])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
