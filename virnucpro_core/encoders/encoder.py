"""The two encoders behind one door: a model folder in, pooled rows of packed batches out."""

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from virnucpro_core.encoders.attention import require_kernel
from virnucpro_core.encoders.dnabert_s import DnabertModel, DnabertShape
from virnucpro_core.encoders.esm2 import POOLED_RESIDUES, Esm2Model, Esm2Shape
from virnucpro_core.encoders.operations import Operations, ReferenceOperations, bytes_per_token
from virnucpro_core.encoders.packing import PackedBatch
from virnucpro_core.encoders.tokenizers import DnabertTokenizer, Esm2Tokenizer, Tokenizer
from virnucpro_core.encoders.weights import fingerprint
from virnucpro_core.errors import DeviceError, UsageError, WeightsError

Kind = Literal["esm2", "dnabert-s"]
Overlong = Literal["truncate", "isolate"]
# Tokens that fill an H100 (benchmarks/results), more of narrow models (up to ESM-2 650M); no batch is planned smaller.
FULL_BATCH: dict[Kind, int] = {"esm2": 16_384, "dnabert-s": 65_536}
NARROW_BATCH = 65_536
NARROW_BYTES = 35_840
SMALLEST_BATCH = 1024
KINDS: tuple[Kind, ...] = ("esm2", "dnabert-s")


@dataclass(frozen=True, slots=True)
class EncoderInput:
    """What a process without the weights must know to prepare an encoder's batches; travels to loader workers.

    longest: sequences of more tokens are over-long (None: no limit). bytes_per_token: device memory of a forward.
    """

    kind: Kind
    tokenizer: Tokenizer
    longest: int | None
    bytes_per_token: int

    def token_budget(self, memory: int) -> int:
        """Tokens of a batch that fill a large GPU, or fewer where a quarter of `memory` does not hold them.

        `memory` is what the device has in all (bytes), not what is free, so that one kind of device has one
        budget and a shard the same bytes.
        """
        fitting = memory // 4 // self.bytes_per_token
        return max(min(full_batch(self.kind, self.bytes_per_token), fitting // 128 * 128), SMALLEST_BATCH)


def full_batch(kind: Kind, bytes_per_token: int) -> int:
    """Tokens of a batch that fill a large GPU."""
    return NARROW_BATCH if bytes_per_token <= NARROW_BYTES else FULL_BATCH[kind]


def encoder_input(kind: Kind, folder: Path, dtype: torch.dtype) -> EncoderInput:
    """From config.json (and tokenizer.json for dnabert-s) of `folder` alone. Raises WeightsError or UsageError."""
    if kind not in KINDS:
        raise UsageError(f"no encoder is named {kind!r}", remedy=f"choose of {', '.join(KINDS)}")
    if not folder.is_dir():
        raise WeightsError("there is no such model folder", where=folder, remedy="fetch or import the model")
    between = torch.float16 if dtype.itemsize == 1 else dtype  # fp8 products have float16 between them
    if kind == "esm2":
        esm2 = Esm2Shape.read(folder)
        needed = bytes_per_token(esm2.width, esm2.feed_forward, between)
        return EncoderInput(kind, Esm2Tokenizer(), POOLED_RESIDUES + 2, needed)
    dnabert = DnabertShape.read(folder)
    tokenizer = DnabertTokenizer(folder / "tokenizer.json")
    if tokenizer.vocabulary > dnabert.vocabulary:
        raise WeightsError(
            f"the tokenizer has {tokenizer.vocabulary:,} ids, the model {dnabert.vocabulary:,}",
            where=folder,
            remedy="use the tokenizer of the same model",
        )
    return EncoderInput(kind, tokenizer, None, bytes_per_token(dnabert.width, dnabert.feed_forward, between))


class Encoder:
    """A loaded model and what its input is."""

    def __init__(
        self, taken: EncoderInput, folder: Path, model: Esm2Model | DnabertModel, dtype: torch.dtype
    ) -> None:
        self.input, self.folder, self.dtype = taken, folder, dtype
        self.kind, self.tokenizer = taken.kind, taken.tokenizer
        self.dim = model.dim
        self.device = model.embedding_VD.device
        self._model = model

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identity of the model's files; computed when first asked for (see weights.fingerprint)."""
        return fingerprint(self.folder)

    @torch.inference_mode()
    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Pooled rows (B, dim) float32 on the device; row i belongs to `batch.rows_B[i]`.

        No host sync: whether the rows are finite is the caller's to check (`torch.isfinite(rows).all()`).
        """
        return self._model.forward(batch)

    @torch.inference_mode()
    def forward_float32(self, batch: PackedBatch) -> torch.Tensor:
        """`forward` in float32 by the reference operations, the weights in use upcast layer by layer."""
        return self._model.forward_float32(batch)


def load_encoder(
    kind: Kind,
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    attention: str,
    overlong: Overlong = "truncate",
) -> Encoder:
    """Load config.json, safetensors (and tokenizer.json for dnabert-s) of `folder` onto `device` in `dtype`.

    `overlong`, ESM-2 only: "truncate" pools the first 1,024 residues as the published tool does, "isolate"
    all of them; the model sees every token either way. Raises WeightsError, DeviceError or UsageError.
    """
    if overlong not in ("truncate", "isolate"):
        raise UsageError(
            f"no policy for over-long sequences is named {overlong!r}", remedy="truncate or isolate"
        )
    taken = encoder_input(kind, folder, dtype)
    operations = _operations(kind, device, dtype, attention)
    model: Esm2Model | DnabertModel
    with ThreadPoolExecutor(1, thread_name_prefix="first-kernels") as beside:
        begun = beside.submit(operations.begin, device)  # while the weights are read
        if kind == "esm2":
            pooled = POOLED_RESIDUES if overlong == "truncate" else None
            model = Esm2Model(folder, operations, device=device, pooled_residues=pooled)
        else:
            model = DnabertModel(folder, operations, device=device)
        begun.result()
    return Encoder(taken, folder, model, dtype)


def _operations(kind: Kind, device: torch.device, dtype: torch.dtype, attention: str) -> Operations:
    """The set of operations that was asked for, or DeviceError."""
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"device {device} was asked for, but CUDA sees no GPU",
            remedy="see `virnucpro doctor`, or use cpu",
        )
    require_kernel(attention, device, alibi=kind == "dnabert-s")
    if attention == "reference" and dtype == torch.float32:
        return ReferenceOperations(dtype)
    if attention != "reference":
        from virnucpro_core.encoders.fused import E4M3, Fp8Operations, FusedOperations  # noqa: PLC0415 (triton)

        if dtype in (torch.float16, torch.bfloat16):
            return FusedOperations(dtype, attention)
        if dtype == E4M3 and kind == "esm2" and torch.cuda.get_device_capability(device) >= (8, 9):
            return Fp8Operations(attention)
    raise DeviceError(
        f"{str(dtype)[6:]} with attention {attention!r} is not available for {kind} on {device}",
        remedy="use float32 with 'reference'; on a GPU float16 with 'triton'; fp8 (ESM-2) on Hopper or Ada",
    )
