"""Other implementations with the same weights, to compare with: fair-esm, transformers (padded), plain packed torch.

Each peer is made from a model folder. Its `prepare(proteins)` tokenizes, makes batches as that tool does and copies
them to the device. It returns a step that computes the pooled rows (n, D) float32, in order. Only the step is timed.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from esm.model.esm2 import ESM2
from safetensors.torch import load_file
from transformers import EsmConfig, EsmModel

from virnucpro_core.encoders.esm2 import Esm2Model
from virnucpro_core.encoders.operations import ReferenceOperations
from virnucpro_core.encoders.packing import pack
from virnucpro_core.encoders.tokenizers import Esm2Tokenizer
from virnucpro_core.encoders.weights import map_esm2_names

CUDA = torch.device("cuda")
PADDING = 1  # id of <pad>
Step = Callable[[], torch.Tensor]
Prepare = Callable[[list[bytes]], Step]


def fair_esm(folder: Path, *, dtype: torch.dtype, tokens: int) -> Prepare:
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
    for layer in model.layers:  # the only buffers: computed again, because the "meta" device has no values
        size = layer.self_attn.head_dim
        rates = 1.0 / (10000 ** (torch.arange(0, size, 2, device=CUDA).float() / size))
        layer.self_attn.rot_emb.inv_freq = rates.to(dtype)  # the dtype that model.half() gives

    def forward(ids: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = model(ids, repr_layers=[layers])["representations"][layers]
        return states

    return _padded(forward, model, tokens)


def transformers_esm(folder: Path, *, dtype: torch.dtype, tokens: int, attention: str) -> Prepare:
    """transformers' EsmModel in `dtype` with one of its attention settings, padded as in `fair_esm`."""
    config = EsmConfig(**json.loads((folder / "config.json").read_text()))
    model = EsmModel.from_pretrained(
        folder, config=config, add_pooling_layer=False, dtype=dtype, attn_implementation=attention
    ).to(CUDA)

    def forward(ids: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = model(ids, attention_mask=(ids != PADDING).long()).last_hidden_state
        return states

    return _padded(forward, model, tokens)


def plain_packed(folder: Path, *, tokens: int) -> Prepare:
    """Packed batches, float16, eager torch with its varlen attention: shows the gain from packing alone."""
    operations = ReferenceOperations(torch.float16, "torch-varlen")
    model = Esm2Model(folder, operations, device=CUDA, pooled_residues=1024)

    def prepare(proteins: list[bytes]) -> Step:
        batches = [batch.to(CUDA) for batch in pack(*Esm2Tokenizer().encode(proteins), tokens)]
        return lambda: _in_order(
            [model.forward(b) for b in batches], np.concatenate([b.rows_B for b in batches])
        )

    return prepare


def _padded(forward: Callable[[torch.Tensor], torch.Tensor], model: torch.nn.Module, tokens: int) -> Prepare:
    """Batches of at most `tokens` padded tokens, longest first; means over residues."""
    model.eval()

    def prepare(proteins: list[bytes]) -> Step:
        ids_T, lengths_B = Esm2Tokenizer().encode(proteins)
        starts_B = np.cumsum(lengths_B) - lengths_B
        order = np.argsort(-lengths_B, kind="stable")
        batches, start = [], 0
        while start < len(order):
            rows = order[start : start + max(tokens // int(lengths_B[order[start]]), 1)]
            ids = np.full((len(rows), lengths_B[rows[0]]), PADDING, dtype=np.int64)
            for i, row in enumerate(rows):
                ids[i, : lengths_B[row]] = ids_T[starts_B[row] : starts_B[row] + lengths_B[row]]
            place = torch.arange(ids.shape[1], device=CUDA)
            residues = torch.from_numpy(lengths_B[rows].astype(np.int64)).to(CUDA)[:, None] - 2
            inside = ((place >= 1) & (place <= residues)) / residues
            batches.append((torch.from_numpy(ids).to(CUDA), inside.float()))
            start += len(rows)
        return lambda: _in_order([_means(forward(ids), inside) for ids, inside in batches], order)

    return prepare


def _means(states: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """(n, D) float32 from states (n, L, D) and each token's weight in the mean (n, L)."""
    return torch.bmm(inside[:, None], states.float())[:, 0]


def _in_order(rows: list[torch.Tensor], order: np.ndarray) -> torch.Tensor:
    return torch.cat(rows)[torch.from_numpy(np.argsort(order)).to(CUDA)]
