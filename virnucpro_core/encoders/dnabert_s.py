"""DNABERT-S (Zhou et al. 2024; the DNABERT-2 architecture), computed on packed sequences.

A post-norm transformer with ALiBi positions and a gated feed-forward (GEGLU), without a norm after the last layer. The
biases of the attention output and of the feed-forward output are added by the norm that follows, as its float32 offset.

Shapes: T tokens of a batch, B sequences, D width, F feed-forward width, V vocabulary, C = 3 D, G = 2 F.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F

from virnucpro_core.encoders.heads import Heads, alibi_slopes
from virnucpro_core.encoders.model_folder import DnabertShape
from virnucpro_core.encoders.operations import Linear, Norm, Operations, ReferenceOperations, Window
from virnucpro_core.encoders.packing import PackedBatch
from virnucpro_core.encoders.weights import Weights, map_dnabert_names, open_weights


@dataclass(frozen=True, slots=True)
class DnabertLayer:
    """One layer: qkv (3D, D), out (D, D), gated (2F, D) as the operations prepared it, down (D, F).

    The biases of out and down are not in here: see the module.
    """

    qkv: Linear
    out: Linear
    attention_norm: Norm
    gated: Any
    down: Linear
    mlp_norm: Norm

    def float(self) -> Self:
        linears = {name: getattr(self, name).float() for name in ("qkv", "out", "gated", "down")}
        return replace(self, **linears)


class DnabertModel:
    """Computes one row for each sequence: the mean over all its tokens, with [CLS] and [SEP]; (B, D) float32."""

    def __init__(self, folder: Path, operations: Operations, *, device: torch.device) -> None:
        shape = DnabertShape.read(folder)
        weights = open_weights(folder, map_dnabert_names, shape.tensors())
        self.dim, self.operations = shape.width, operations
        slopes_H = torch.tensor(alibi_slopes(shape.heads), dtype=torch.float32, device=device)
        self.heads = Heads(shape.heads, shape.width // shape.heads, slopes_H=slopes_H)
        words_VD = weights.read("embeddings.word_embeddings.weight", device=device)
        types_ND = weights.read("embeddings.token_type_embeddings.weight", device=device)
        self.embedding_VD = (words_VD + types_ND[0]).to(operations.dtype)
        self.embedding_norm = _norm(weights, "embeddings.LayerNorm", shape.eps, device)
        self.layers = [_read_layer(weights, n, shape.eps, device, operations) for n in range(shape.layers)]

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Pooled rows (B, D) float32 on the device, in the order of the batch. Does not wait for the device."""
        return self._forward(batch, self.operations, self.layers)

    def forward_float32(self, batch: PackedBatch) -> torch.Tensor:
        """As `forward`, but computed in float32 with plain torch. The weights in use are converted layer by layer."""
        operations = ReferenceOperations(torch.float32)
        return self._forward(batch, operations, (layer.float() for layer in self.layers))

    def _forward(
        self, batch: PackedBatch, operations: Operations, layers: Iterable[DnabertLayer]
    ) -> torch.Tensor:
        x_TD = operations.norm(F.embedding(batch.tokens_T, self.embedding_VD), self.embedding_norm)
        for layer in layers:
            o_TD = operations.attend(operations.linear(x_TD, layer.qkv), batch, self.heads)
            x_TD = operations.norm(operations.add_linear(x_TD, o_TD, layer.out), layer.attention_norm)
            f_TF = operations.gated_gelu(x_TD, layer.gated)
            x_TD = operations.norm(operations.add_linear(x_TD, f_TF, layer.down), layer.mlp_norm)
        return operations.pool(x_TD, batch, Window(first=0, last=0), None)


def _read_layer(
    weights: Weights, n: int, eps: float, device: torch.device, operations: Operations
) -> DnabertLayer:
    name = f"encoder.layer.{n}."
    read: dict[str, Any] = {"device": device, "dtype": operations.dtype}
    out, down = f"{name}attention.output.dense", f"{name}mlp.wo"
    qkv = f"{name}attention.self.Wqkv"
    qkv_bias = weights.read(f"{qkv}.bias", **read)
    return DnabertLayer(
        qkv=Linear(weights.read(f"{qkv}.weight", **read), qkv_bias),
        out=Linear(weights.read(f"{out}.weight", **read)),
        attention_norm=_norm(
            weights,
            f"{name}attention.output.LayerNorm",
            eps,
            device,
            offset_D=weights.read(f"{out}.bias", device=device),
        ),
        gated=operations.prepare_gated(Linear(weights.read(f"{name}mlp.gated_layers.weight", **read))),
        down=Linear(weights.read(f"{down}.weight", **read)),
        mlp_norm=_norm(
            weights, f"{name}mlp.layernorm", eps, device, offset_D=weights.read(f"{down}.bias", device=device)
        ),
    )


def _norm(
    weights: Weights, name: str, eps: float, device: torch.device, offset_D: torch.Tensor | None = None
) -> Norm:
    return Norm(
        weights.read(f"{name}.weight", device=device),
        weights.read(f"{name}.bias", device=device),
        eps,
        offset_D,
    )
