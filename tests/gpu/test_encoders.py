"""The fused float16 encoders on the GPU: close to float32, deterministic, blind to their neighbours."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import triton

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from benchmarks.seeded import proteins, write_model
from tests.support import ROOT
from virnucpro_core.encoders import kernels
from virnucpro_core.encoders.attention import usable_kernels
from virnucpro_core.encoders.dnabert_s import DnabertModel
from virnucpro_core.encoders.esm2 import Esm2Model
from virnucpro_core.encoders.fused import Fp8Operations, FusedOperations
from virnucpro_core.encoders.operations import Operations, ReferenceOperations
from virnucpro_core.encoders.packing import PackedBatch, pack
from virnucpro_core.encoders.tokenizers import Esm2Tokenizer

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
LENGTHS = [1022, 700, 300, 300, 166, 166, 100, 66, 65, 64, 64, 50, 36, 36, 2, 1]
Model = Esm2Model | DnabertModel
Load = Callable[[Operations], Model]


@pytest.fixture(scope="module", params=["esm2-8m", "esm2-650m", "dnabert-tiny", "dnabert-s"])
def load(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Load:
    folder = write_model(request.param, tmp_path_factory.mktemp("model"), device=CUDA, dtype=torch.float16)

    def loaded(operations: Operations) -> Model:
        if str(request.param).startswith("esm2"):
            return Esm2Model(folder, operations, device=CUDA, pooled_residues=1024)
        return DnabertModel(folder, operations, device=CUDA)

    return loaded


def _packed(seed: int, budget: int = 10_000) -> tuple[PackedBatch, ...]:
    random = np.random.default_rng(seed)
    lengths_B = np.array(LENGTHS, dtype=np.int32) + 2
    tokens_T = random.integers(4, 24, int(lengths_B.sum()), dtype=np.int32)
    return pack(tokens_T, lengths_B, budget)


def _rows(model: Model, batches: tuple[PackedBatch, ...]) -> torch.Tensor:
    rows = torch.full((len(LENGTHS), model.dim), float("nan"))
    with torch.inference_mode():
        for batch in batches:
            rows[batch.rows_B] = model.forward(batch.to(CUDA)).cpu()
    return rows


def test_float16_is_close_to_float32_at_every_length(load: Load) -> None:
    expected = _rows(load(ReferenceOperations(torch.float32)), _packed(0))
    found = _rows(load(FusedOperations(torch.float16)), _packed(0))
    assert torch.cosine_similarity(found, expected).min() > 0.9999


def test_the_same_batch_gives_the_same_bits(load: Load) -> None:
    model = load(FusedOperations(torch.float16))
    assert torch.equal(_rows(model, _packed(0)), _rows(model, _packed(0)))


def test_no_kernel_is_compiled_anew_for_a_batch_of_another_size(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By all classes of lengths, with and without multiples of 16 rows, in all and in the long sequences."""
    compiled: list[str] = []
    monkeypatch.setattr(
        triton.knobs.runtime, "jit_post_compile_hook", lambda **found: compiled.append(str(found["repr"]))
    )
    for kernel in (x for module in (kernels.attention, kernels.rows) for x in vars(module).values()):
        if isinstance(kernel, triton.JITFunction):
            kernel.device_caches.clear()
    model = load(FusedOperations(torch.float16))
    for number, tokens in enumerate(([16, 64, 112, 1024], [17, 63, 113, 1021])):
        lengths_B = np.array(tokens, dtype=np.int32)
        (batch,) = pack(np.full(int(lengths_B.sum()), 5, dtype=np.int32), lengths_B, 10_000)
        with torch.inference_mode():
            model.forward(batch.to(CUDA))
        if number == 0:
            assert compiled
            compiled.clear()
    assert compiled == []


def test_changed_neighbours_leave_a_row_bit_equal(load: Load) -> None:
    model = load(FusedOperations(torch.float16))
    (batch,) = _packed(0)
    starts = batch.starts_B1.tolist()
    changed = batch.to(torch.device("cpu"))
    for i in range(0, len(LENGTHS), 2):
        changed.tokens_T[starts[i] : starts[i + 1]] = 9
    before, after = _rows(model, _packed(0)), _rows(model, (changed,))
    kept, moved = batch.rows_B[1::2], batch.rows_B[::2]
    assert torch.equal(before[kept], after[kept])
    assert (before[moved] != after[moved]).any(dim=1).all()


def test_recomputation_in_float32_upcasts_the_same_weights(load: Load) -> None:
    model = load(FusedOperations(torch.float16))
    (batch,) = _packed(0)
    with torch.inference_mode():
        rows = model.forward_float32(batch.to(CUDA))
    expected = _rows(load(ReferenceOperations(torch.float32)), (batch,))[batch.rows_B]
    assert torch.cosine_similarity(rows.cpu(), expected).min() > 0.999999


@pytest.mark.skipif(torch.cuda.get_device_capability() < (8, 9), reason="needs fp8 units (Hopper, Ada)")
def test_fp8_is_near_float32_deterministic_and_blind_to_neighbours(tmp_path: Path) -> None:
    folder = write_model("esm2-650m", tmp_path, device=CUDA, dtype=torch.float16)
    reference = Esm2Model(folder, ReferenceOperations(torch.float32), device=CUDA, pooled_residues=1024)
    model = Esm2Model(folder, Fp8Operations(), device=CUDA, pooled_residues=1024)
    (batch,) = _packed(0)
    found = _rows(model, (batch,))
    assert torch.cosine_similarity(found, _rows(reference, (batch,))).min() > 0.995
    assert torch.equal(found, _rows(model, (batch,)))
    starts = batch.starts_B1.tolist()
    batch.tokens_T[starts[3] : starts[4]] = 9
    changed = _rows(model, (batch,))
    others = torch.arange(len(LENGTHS)) != batch.rows_B[3]
    assert torch.equal(found[others], changed[others])


@pytest.mark.skipif(torch.cuda.get_device_capability() < (8, 9), reason="needs fp8 units (Hopper, Ada)")
def test_no_attention_output_can_saturate_e4m3(tmp_path: Path) -> None:
    """The proven scale holds for the most one-sided input there is: outputs along the largest row of the values."""
    folder = write_model("esm2-8m", tmp_path, device=CUDA, dtype=torch.float16)
    model = Esm2Model(folder, Fp8Operations(), device=CUDA, pooled_residues=1024)
    for layer in model.layers:
        width = model.dim
        values = layer.qkv.float().weight_OI[2 * width :]
        z_D = values[values.norm(dim=1).argmax()] * layer.attention_norm.weight_D
        z_D = z_D / z_D.norm() * width**0.5
        h_D = z_D * layer.attention_norm.weight_D + layer.attention_norm.bias_D
        largest = (values @ h_D + layer.qkv.bias_O[2 * width :].float()).abs().max()
        assert 448 / 8 < float(largest) * layer.heads.e4m3_scale <= 448


@pytest.mark.parametrize("kernel", ["torch-varlen", "flash-attn"])
def test_other_kernels_compute_the_same(kernel: str, tmp_path: Path) -> None:
    reason = usable_kernels()[kernel]
    if reason:
        pytest.skip(reason)
    folder = write_model("esm2-8m", tmp_path, device=CUDA, dtype=torch.float16)
    tokens = Esm2Tokenizer().encode(proteins("mixed", len(LENGTHS)))
    rows = []
    for attention in ("triton", kernel):
        model = Esm2Model(
            folder, FusedOperations(torch.float16, attention), device=CUDA, pooled_residues=1024
        )
        rows.append(_rows(model, pack(*tokens, 100_000)))
    assert torch.cosine_similarity(*rows).min() > 0.9999


def test_after_a_warm_up_no_kernel_is_compiled_for_real_sequences(tmp_path: Path) -> None:
    folder = write_model("esm2-650m", tmp_path / "model", device=CUDA, dtype=torch.float16)
    environment = dict(os.environ) | {"TRITON_CACHE_DIR": str(tmp_path / "kernels")}
    command = [sys.executable, "-m", "tests.gpu.warm_up", str(folder)]
    said = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    warm_up, after = json.loads(said.splitlines()[-1])
    assert warm_up
    assert after == []
