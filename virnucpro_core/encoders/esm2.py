"""ESM-2 of any published size (Lin et al. 2023), computed on packed sequences.

A pre-norm transformer with rotary positions and GELU (float32: erf form, half precision: tanh form), and a norm after
the last layer. The biases of the attention output and of the second feed-forward product are not added to the residual
stream. Each norm adds the sum of all earlier ones as a float32 offset. So a matrix product can add its result to the
residual stream directly.

Shapes: T tokens of a batch, B sequences, D width, F feed-forward width, V vocabulary, C = 3 D.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F

from virnucpro_core.encoders.heads import Heads, Rotary
from virnucpro_core.encoders.model_folder import Esm2Shape
from virnucpro_core.encoders.operations import Linear, Norm, Operations, ReferenceOperations, Window
from virnucpro_core.encoders.packing import PackedBatch
from virnucpro_core.encoders.weights import Weights, map_esm2_names, open_weights

# The published tool averages over the first 1,024 residues; training saw 1,022 residues, <cls> and <eos>.
POOLED_RESIDUES = 1024


@dataclass(frozen=True, slots=True)
class Esm2Layer:
    """One layer: qkv (3D, D), out (D, D), up (F, D), down (D, F), as the operations prepared them.

    The biases of out and down are not in here: see the module.
    """

    attention_norm: Norm
    qkv: Any
    heads: Heads
    out: Any
    mlp_norm: Norm
    up: Any
    down: Any

    def float(self) -> Self:
        """The weights in use, in float32."""
        linears = {name: getattr(self, name).float() for name in ("qkv", "out", "up", "down")}
        return replace(self, heads=replace(self.heads, e4m3_scale=None), **linears)


class Esm2Model:
    """Computes one row for each sequence: the mean over its residues, without <cls> and <eos>; (B, D) float32."""

    def __init__(
        self, folder: Path, operations: Operations, *, device: torch.device, pooled_residues: int | None
    ) -> None:
        shape = Esm2Shape.read(folder)
        weights = open_weights(folder, map_esm2_names, shape.tensors())
        self.dim, self.operations = shape.width, operations
        self.window = Window(first=1, last=1, limit=pooled_residues)
        table_VD = weights.read("embeddings.word_embeddings.weight", device=device) * shape.embedding_scale
        self.embedding_VD = table_VD.to(operations.dtype)
        self.layers: list[Esm2Layer] = []
        offset_D = torch.zeros(shape.width, device=device)
        for layer, after_D in _read_layers(weights, shape, offset_D, operations):
            self.layers.append(layer)
            offset_D = after_D
        self.final_norm = _norm(weights, "encoder.emb_layer_norm_after", shape.eps, offset_D)

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Pooled rows (B, D) float32 on the device, in the order of the batch. Does not wait for the device."""
        return self._forward(batch, self.operations, self.layers)

    def forward_float32(self, batch: PackedBatch) -> torch.Tensor:
        """As `forward`, but computed in float32 with plain torch. The weights in use are converted layer by layer."""
        operations = ReferenceOperations(torch.float32)
        return self._forward(batch, operations, (layer.float() for layer in self.layers))

    def _forward(
        self, batch: PackedBatch, operations: Operations, layers: Iterable[Esm2Layer]
    ) -> torch.Tensor:
        x_TD = F.embedding(batch.tokens_T, self.embedding_VD).to(operations.dtype)
        for layer in layers:
            h_TD = operations.norm(x_TD, layer.attention_norm)
            qkv_TC = operations.linear(h_TD, layer.qkv)
            o_TD = operations.attend(qkv_TC, batch, layer.heads)
            x_TD = operations.add_linear(x_TD, o_TD, layer.out)
            h_TD = operations.norm(x_TD, layer.mlp_norm)
            f_TF = operations.linear_gelu(h_TD, layer.up)
            x_TD = operations.add_linear(x_TD, f_TF, layer.down)
        return operations.pool(x_TD, batch, self.window, self.final_norm)


def _read_layers(
    weights: Weights, shape: Esm2Shape, offset_D: torch.Tensor, operations: Operations
) -> Iterator[tuple[Esm2Layer, torch.Tensor]]:
    """Yield each layer, and the sum of all biases up to it that were not added to the residual stream."""
    device = offset_D.device
    size = shape.width // shape.heads
    heads = Heads(shape.heads, size, Rotary(size, device))
    for n in range(shape.layers):
        name = f"encoder.layer.{n}."
        parts = [f"{name}attention.self.{part}" for part in ("query", "key", "value")]
        read: dict[str, Any] = {"device": device, "dtype": operations.dtype}
        attention_D = offset_D + weights.read(f"{name}attention.output.dense.bias", device=device)
        attention_norm = _norm(weights, f"{name}attention.LayerNorm", shape.eps, offset_D)
        qkv = Linear(
            torch.cat([weights.read(f"{part}.weight", **read) for part in parts]),
            torch.cat([weights.read(f"{part}.bias", **read) for part in parts]),
        )
        out = Linear(weights.read(f"{name}attention.output.dense.weight", **read))
        mlp_norm = _norm(weights, f"{name}LayerNorm", shape.eps, attention_D)
        up = Linear(
            weights.read(f"{name}intermediate.dense.weight", **read),
            weights.read(f"{name}intermediate.dense.bias", **read),
        )
        down = Linear(weights.read(f"{name}output.dense.weight", **read))
        layer = Esm2Layer(
            *operations.prepare_attention(attention_norm, qkv, heads, out),
            *operations.prepare_feed_forward(mlp_norm, up, down),
        )
        offset_D = attention_D + weights.read(f"{name}output.dense.bias", device=device)
        yield layer, offset_D


def _norm(weights: Weights, name: str, eps: float, offset_D: torch.Tensor) -> Norm:
    device = offset_D.device
    return Norm(
        weights.read(f"{name}.weight", device=device),
        weights.read(f"{name}.bias", device=device),
        eps,
        offset_D,
    )
