"""What others do with the same weights: fair-esm, transformers (padded), plain packed torch; products alone.

Each peer is made from a model folder: `embed(proteins) -> (n, D) float32`, batched as the tool is used.
"""

import json
from collections.abc import Callable
from pathlib import Path

import esm
import torch
from esm.model.esm2 import ESM2
from safetensors.torch import load_file
from transformers import EsmConfig, EsmModel

from virnucpro_core.encoders.esm2 import Esm2Model
from virnucpro_core.encoders.operations import ReferenceOperations
from virnucpro_core.packing import pack
from virnucpro_core.tokenizers import Esm2Tokenizer
from virnucpro_core.weights import map_esm2_names

CUDA = torch.device("cuda")
Embed = Callable[[list[bytes]], torch.Tensor]


def fair_esm(folder: Path, *, dtype: torch.dtype, tokens: int) -> Embed:
    """fair-esm's ESM2 in `dtype`, batches of at most `tokens` padded tokens, sorted by length."""
    config = json.loads((folder / "config.json").read_text())
    layers = config["num_hidden_layers"]
    with torch.device("meta"):
        model = ESM2(layers, config["hidden_size"], config["num_attention_heads"])
    weights = load_file(folder / "model.safetensors")
    named = map_esm2_names([name for name, _ in model.named_parameters()])
    state = {stored: weights[name].to(CUDA, dtype) for name, stored in named.items()}
    model.load_state_dict(state, strict=False, assign=True)
    model.lm_head = torch.nn.Identity()  # logits are not part of an embedding
    for layer in model.layers:  # the only buffers: recomputed, since "meta" holds no values
        size = layer.self_attn.head_dim
        rates = 1.0 / (10000 ** (torch.arange(0, size, 2, device=CUDA).float() / size))
        layer.self_attn.rot_emb.inv_freq = rates.to(dtype)  # as model.half() leaves it
    convert = esm.data.Alphabet.from_architecture("ESM-1b").get_batch_converter()

    def forward(chunk: list[bytes]) -> torch.Tensor:
        ids = convert([("", protein.decode()) for protein in chunk])[2].to(CUDA)
        return model(ids, repr_layers=[layers])["representations"][layers]

    return _padded(forward, model, tokens)


def transformers_esm(folder: Path, *, dtype: torch.dtype, tokens: int, attention: str) -> Embed:
    """transformers' EsmModel in `dtype` with one of its attention settings, padded as above."""
    config = EsmConfig(**json.loads((folder / "config.json").read_text()))
    model = EsmModel.from_pretrained(
        folder, config=config, add_pooling_layer=False, dtype=dtype, attn_implementation=attention
    ).to(CUDA)
    convert = esm.data.Alphabet.from_architecture("ESM-1b").get_batch_converter()

    def forward(chunk: list[bytes]) -> torch.Tensor:
        ids = convert([("", protein.decode()) for protein in chunk])[2].to(CUDA)
        return model(ids, attention_mask=(ids != 1).long()).last_hidden_state

    return _padded(forward, model, tokens)


def plain_packed(folder: Path, *, tokens: int) -> Embed:
    """Packed, float16, eager torch and torch's varlen attention: what packing alone brings."""
    operations = ReferenceOperations(torch.float16, "torch-varlen")
    model = Esm2Model(folder, operations, device=CUDA, pooled_residues=1024)

    def embed(proteins: list[bytes]) -> torch.Tensor:
        rows = torch.empty(len(proteins), model.dim, device=CUDA)
        for batch in pack(*Esm2Tokenizer().encode(proteins), tokens):
            rows[torch.from_numpy(batch.rows_B).to(CUDA)] = model.forward(batch.to(CUDA))
        return rows

    return embed


def products_alone(shapes: list[tuple[int, int]], tokens: int, *, fp8: bool) -> Callable[[], None]:
    """One layer's matrix products, float16 or fp8 with rowwise scales, and nothing else: the ceiling."""
    dtype = torch.float16
    inputs = {i: torch.randn(tokens, i, device=CUDA).to(dtype) for _, i in shapes}
    weights = [(torch.randn(o, i, device=CUDA) * 0.02).to(dtype) for o, i in shapes]
    if not fp8:
        outputs = [torch.empty(tokens, o, device=CUDA, dtype=dtype) for o, _ in shapes]

        def half() -> None:
            for weight, output in zip(weights, outputs, strict=True):
                torch.mm(inputs[weight.shape[1]], weight.t(), out=output)

        return half
    small = {i: x.to(torch.float8_e4m3fn) for i, x in inputs.items()}
    narrow = [weight.to(torch.float8_e4m3fn) for weight in weights]
    rows = torch.ones(tokens, 1, device=CUDA)
    ones = {weight.shape[0]: torch.ones(1, weight.shape[0], device=CUDA) for weight in narrow}

    def eighth() -> None:
        for weight in narrow:
            columns = ones[weight.shape[0]]
            torch._scaled_mm(
                small[weight.shape[1]], weight.t(), rows, columns, out_dtype=dtype, use_fast_accum=True
            )

    return eighth


def _padded(forward: Callable[[list[bytes]], torch.Tensor], model: torch.nn.Module, tokens: int) -> Embed:
    model.eval()

    def embed(proteins: list[bytes]) -> torch.Tensor:
        order = sorted(range(len(proteins)), key=lambda i: -len(proteins[i]))
        rows, start = [torch.empty(0)] * len(proteins), 0
        while start < len(order):
            count = max(tokens // (len(proteins[order[start]]) + 2), 1)
            chunk = order[start : start + count]
            states = forward([proteins[i] for i in chunk])
            for i, state in zip(chunk, states, strict=True):
                rows[i] = state[1 : len(proteins[i]) + 1].float().mean(0)
            start += count
        return torch.stack(rows)

    return embed
