"""Measure tokens per second of the packed encoders, of other tools and of the chip's ceiling, in one run.

    python -m benchmarks.encoders --out benchmarks/results

Every row has the median of repeats of at least --seconds each, after a warm-up (clocks drop under load, so short
bursts mislead). Tokens include BOS and EOS but no padding. It also has the share of the ceiling (only the layers'
matrix products, measured before and after), the peak memory, and the distance of the pooled embeddings from fair-esm
in float32 with the same weights (cosine, relative L2). Weights are random: the embeddings have no biological meaning.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.ceiling import budget, ceiling, rate
from benchmarks.record import keep, provenance
from benchmarks.seeded import GEOMETRIES, byte_pair_tokens, proteins, residues, write_model
from virnucpro_core.encoders.dnabert_s import DnabertModel
from virnucpro_core.encoders.esm2 import Esm2Model
from virnucpro_core.encoders.fused import Fp8Operations, FusedOperations
from virnucpro_core.encoders.operations import ReferenceOperations
from virnucpro_core.encoders.packing import PackedBatch, pack
from virnucpro_core.encoders.tokenizers import DnabertTokenizer, Esm2Tokenizer

CUDA = torch.device("cuda")
HALF = torch.float16
WORKLOADS = ("short", "chunks", "mixed")
PEERS_BUDGET = 16_384  # tokens of a peer's batch, padding included
TOKENS = {"esm2-3b": 200_000, "esm2-650m": 600_000, "dnabert-s": 2_000_000}  # of one timed step
COLD = """
import time; t0 = time.perf_counter()
import sys, torch, numpy as np; from pathlib import Path
from virnucpro_core.encoders.encoder import load_encoder; from virnucpro_core.encoders.packing import pack
t1 = time.perf_counter()
cuda, half = torch.device("cuda"), torch.float16
e = load_encoder("esm2", Path(sys.argv[1]), device=cuda, dtype=half, attention="triton")
torch.cuda.synchronize(); t2 = time.perf_counter()
b, = pack(*e.tokenizer.encode([b"MKV" * 15] * 300 + [b"MKV" * 30, b"MKV" * 99]), 16384)
e.forward(b.to(e.device)).cpu(); t3 = time.perf_counter()
print(t1 - t0, t2 - t1, t3 - t2)
"""


class Bench:
    """Measures and collects rows."""

    def __init__(self, seconds: float, repeats: int) -> None:
        self.seconds, self.repeats = seconds, repeats
        self.rows: list[dict[str, object]] = []

    def rate(self, step: Callable[[], object], tokens: int) -> float:
        return rate(step, tokens, seconds=self.seconds, repeats=self.repeats)

    def ceiling(self, name: str, *, fp8: bool = False) -> float:
        return ceiling(name, seconds=self.seconds, repeats=self.repeats, fp8=fp8)

    def row(self, **columns: object) -> None:
        self.rows.append(columns)
        shown = (f"{k} {v:.3f}" if isinstance(v, float) and v < 100 else f"{k} {v:,.0f}"
                 if isinstance(v, float) else f"{v}" for k, v in columns.items())  # fmt: skip
        print(" | ".join(shown), flush=True)


def closeness(found: torch.Tensor, expected: torch.Tensor) -> dict[str, object]:
    found, expected = found.double(), expected.double()
    cosine = torch.cosine_similarity(found, expected).min()
    return {
        "cos_min": f"{float(cosine):.6f}",
        "rel_l2": f"{float((found - expected).norm() / expected.norm()):.1e}",
    }


def ours(model: Esm2Model | DnabertModel, batches: tuple[PackedBatch, ...], count: int) -> torch.Tensor:
    rows = torch.empty(count, model.dim, device=CUDA)
    for batch in batches:
        rows[torch.from_numpy(batch.rows_B).to(CUDA)] = model.forward(batch.to(CUDA))
    return rows


def bench_ours(
    bench: Bench,
    what: dict[str, str],
    model: Esm2Model | DnabertModel,
    top: float,
    expected: dict[str, torch.Tensor],
) -> None:
    """Measure our forward on the three workloads. Batches are on the device and pooled rows stay there."""
    for workload in WORKLOADS:
        mean = float(residues(workload, 10_000).mean())
        if isinstance(model, Esm2Model):
            tokens = Esm2Tokenizer().encode(proteins(workload, int(TOKENS[what["model"]] / mean)))
        else:
            tokens = byte_pair_tokens(workload, int(TOKENS[what["model"]] / mean))
        batches = tuple(batch.to(CUDA) for batch in pack(*tokens, budget(what["model"])))
        torch.cuda.reset_peak_memory_stats()

        def step(batches: tuple[PackedBatch, ...] = batches) -> None:
            for batch in batches:
                model.forward(batch)

        rate = bench.rate(step, len(tokens[0]))
        peak = torch.cuda.max_memory_allocated() / 2**30
        with torch.inference_mode():
            if isinstance(model, Esm2Model):
                few = proteins(workload, len(expected[workload]))
                batches = pack(*Esm2Tokenizer().encode(few), PEERS_BUDGET)
                close = closeness(ours(model, batches, len(few)), expected[workload])
            else:
                close = closeness(model.forward(batches[0]), model.forward_float32(batches[0]))
        bench.row(**what, workload=workload, tokens_s=rate, share=rate / top, peak_gib=peak, **close)


def bench_peers(bench: Bench, name: str, folder: Path, top: float, expected: dict[str, torch.Tensor]) -> None:
    from benchmarks import peers  # noqa: PLC0415 (their packages are not everywhere)

    makers: dict[str, Callable[[], peers.Prepare]] = {
        "fair-esm float16, padded 16,384": lambda: peers.fair_esm(folder, dtype=HALF, tokens=PEERS_BUDGET),
        "transformers float16 sdpa": lambda: peers.transformers_esm(
            folder, dtype=HALF, tokens=PEERS_BUDGET, attention="sdpa"
        ),
        "transformers float16 eager": lambda: peers.transformers_esm(
            folder, dtype=HALF, tokens=PEERS_BUDGET, attention="eager"
        ),
        "plain packed torch + varlen, float16": lambda: peers.plain_packed(folder, tokens=PEERS_BUDGET),
    }
    for what, make in makers.items():
        prepare = make()
        for workload in WORKLOADS:
            few = proteins(workload, 1_200 if workload == "short" else 400)
            torch.cuda.reset_peak_memory_stats()
            rate = bench.rate(prepare(few), sum(len(p) + 2 for p in few))
            peak = torch.cuda.max_memory_allocated() / 2**30
            with torch.inference_mode():
                close = closeness(prepare(proteins(workload, len(expected[workload])))(), expected[workload])
            bench.row(model=name, what=what, workload=workload, tokens_s=rate, share=rate / top,
                      peak_gib=peak, **close)  # fmt: skip
        del prepare
        _free()


def reference(bench: Bench, name: str, folder: Path, top: float) -> dict[str, torch.Tensor]:
    """Embeddings of fair-esm in float32, with 2,048 padded tokens per batch as published: the reference."""
    from benchmarks import peers  # noqa: PLC0415 (fair-esm is not everywhere)

    prepare = peers.fair_esm(folder, dtype=torch.float32, tokens=2048)
    expected = {}
    for workload in WORKLOADS:
        few = proteins(workload, 64)
        with torch.inference_mode():
            expected[workload] = prepare(few)()
        rate = bench.rate(prepare(few), sum(len(p) + 2 for p in few))
        bench.row(model=name, what="fair-esm float32, as published", workload=workload, tokens_s=rate,
                  share=rate / top)  # fmt: skip
    del prepare
    _free()
    return expected


def own_reference(folder: Path) -> dict[str, torch.Tensor]:
    """The reference if fair-esm is not installed: our reference operations in float32 (equal to fair-esm to 3e-6)."""
    model = Esm2Model(folder, ReferenceOperations(torch.float32), device=CUDA, pooled_residues=1024)
    expected = {}
    for workload in WORKLOADS:
        few = proteins(workload, 64)
        with torch.inference_mode():
            expected[workload] = ours(model, pack(*Esm2Tokenizer().encode(few), PEERS_BUDGET), len(few))
    del model
    _free()
    return expected


def bench_model(bench: Bench, name: str, root: Path, *, with_peers: bool) -> None:
    start = time.perf_counter()
    folder = write_model(name, root / name, device=CUDA, dtype=HALF)
    size = (folder / "model.safetensors").stat().st_size
    print(f"\n{name}: {size / 1e9:.2f} GB written in {time.perf_counter() - start:.1f} s", flush=True)
    _free()
    top = bench.ceiling(name)
    expected = {}
    esm2 = GEOMETRIES[name][0] == "esm2"
    if esm2:
        expected = reference(bench, name, folder, top) if with_peers else own_reference(folder)
        cold = subprocess.run(
            [sys.executable, "-c", COLD, str(folder)], check=True, capture_output=True, text=True
        )
        imported, loaded, first = map(float, cold.stdout.split())
        bench.row(model=name, what="cold start", import_s=imported, load_s=loaded, first_batch_s=first,
                  total_s=imported + loaded + first)  # fmt: skip
    if with_peers and esm2:
        bench_peers(bench, name, folder, top, expected)
    model: Esm2Model | DnabertModel
    if esm2:
        model = Esm2Model(folder, FusedOperations(HALF), device=CUDA, pooled_residues=1024)
    else:
        model = DnabertModel(folder, FusedOperations(HALF), device=CUDA)
    bench_ours(bench, {"model": name, "what": "ours, float16"}, model, top, expected)
    del model
    _free()
    eighth = bench.ceiling(name, fp8=True)
    bench.row(model=name, what="products alone fp8", tokens_s=eighth, share=eighth / top)
    if esm2:
        model = Esm2Model(folder, Fp8Operations(), device=CUDA, pooled_residues=1024)
        bench_ours(bench, {"model": name, "what": "ours, fp8"}, model, eighth, expected)
        del model
        _free()
    after = bench.ceiling(name)
    bench.row(model=name, what="products alone float16, before", tokens_s=top, share=1.0)
    bench.row(model=name, what="products alone float16, after", tokens_s=after, share=after / top)


def bench_tokenizer(bench: Bench, path: Path) -> None:
    """Measure 300-base slices per second of the DNABERT-S tokenizer: one process with threads on all cores."""
    random = np.random.default_rng(4)
    bases = np.frombuffer(b"ACGT", dtype=np.uint8)
    slices = [random.choice(bases, 300).tobytes() for _ in range(20_000)]
    tokenizer = DnabertTokenizer(path)
    tokenizer.encode(slices[:1000])
    start = time.perf_counter()
    tokenizer.encode(slices)
    rate = len(slices) / (time.perf_counter() - start)
    bench.row(model="dnabert-s", what="byte-pair encoding, one process", sequences_s=rate)


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description="Tokens per second of the encoders and of other tools.")
    parser.add_argument("--models", nargs="+", default=["dnabert-s", "esm2-650m", "esm2-3b"], choices=TOKENS)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--no-peers",
        action="store_true",
        help="measure only our forwards and the ceiling",
    )
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json of DNABERT-S, to time it")
    parser.add_argument("--out", type=Path, help="folder for the results file")
    options = parser.parse_args()
    bench = Bench(options.seconds, options.repeats)
    if options.tokenizer is not None:
        bench_tokenizer(bench, options.tokenizer)
    with tempfile.TemporaryDirectory() as root:
        for name in options.models:
            bench_model(bench, name, Path(root), with_peers=not options.no_peers)
            result = provenance() | {
                "device": torch.cuda.get_device_name(),
                "budget_tokens": {name: budget(name) for name in TOKENS} | {"peers": PEERS_BUDGET},
                "rows": bench.rows,
            }
            # Saved after every model, so that an interrupted run keeps its results so far.
            keep(result, options.out, "encoders", result["device"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
