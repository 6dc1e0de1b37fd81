"""Loads an encoder (ESM-2 or DNABERT-S) from a model folder and embeds sequences with it."""

import functools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from virnucpro_core.devices.compute import default_attention
from virnucpro_core.devices.cuda import DTYPES, usable_device
from virnucpro_core.encoders.attention import require_kernel
from virnucpro_core.encoders.batches import Pass, Room, again_in_float32
from virnucpro_core.encoders.dnabert_s import DnabertModel
from virnucpro_core.encoders.esm2 import POOLED_RESIDUES, Esm2Model
from virnucpro_core.encoders.model_folder import DnabertShape, Esm2Shape, fingerprint
from virnucpro_core.encoders.operations import Operations, ReferenceOperations, bytes_per_token
from virnucpro_core.encoders.packing import (
    MIDDLE_TILE,
    SHORT_TILE,
    PackedBatch,
    PackedShard,
    pack,
    pack_shard,
)
from virnucpro_core.encoders.tokenizers import DnabertTokenizer, Esm2Tokenizer, Tokenizer
from virnucpro_core.errors import DeviceError, SequenceError, UsageError, WeightsError

log = logging.getLogger(__name__)

Kind = Literal["esm2", "dnabert-s"]
Overlong = Literal["truncate", "isolate"]
# Tokens that fill an H100 (benchmarks/results), more of narrow models (up to ESM-2 650M); no batch is planned smaller.
FULL_BATCH: dict[Kind, int] = {"esm2": 16_384, "dnabert-s": 65_536}
NARROW_BATCH = 65_536
NARROW_BYTES = 35_840
SMALLEST_BATCH = 1024
CPU_BATCH = 4096
BLOCK_SEQUENCES = 10_000  # of `Encoder.embed`, packed together
STOP = b"*"
_ANY_TOKEN = 5  # a letter in both vocabularies
KINDS: tuple[Kind, ...] = ("esm2", "dnabert-s")


@dataclass(frozen=True, slots=True)
class EncoderInput:
    """What a loader worker needs to prepare batches without loading the weights. Can be pickled.

    longest: sequences of more tokens are over-long (None: no limit). bytes_per_token: device memory of a forward.
    """

    kind: Kind
    tokenizer: Tokenizer
    longest: int | None
    bytes_per_token: int

    def pack(self, sequences: Sequence[bytes], budget: int, *, shard: int = 0) -> PackedShard:
        """Tokenized, and packed into batches of at most `budget` tokens. Raises SequenceError."""
        tokens_T, lengths_B = self.tokenizer.encode(sequences)
        return pack_shard(shard, tokens_T, lengths_B, budget, longest=self.longest)

    def budget_on(self, device: torch.device) -> int:
        """Default number of tokens in a batch: the same on all devices of one model."""
        if device.type == "cuda":
            return self.token_budget(torch.cuda.get_device_properties(device).total_memory)
        return CPU_BATCH

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
    """A loaded model: `embed` takes sequences, `forward` takes packed batches.

    `kind` "esm2" or "dnabert-s"; `dim` columns of a row; `device`; `dtype` of the products; `fingerprint`.
    """

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

    def embed(
        self, sequences: Sequence[str] | Sequence[bytes], *, token_budget: int = 0, float32: bool = False
    ) -> NDArray[np.float32]:
        """One row a sequence, in the order given: (n, dim) float32.

        ESM-2 takes proteins (upper-case amino acids, with X, B, U, Z and O; one stop `*` at the end is no residue and
        left out) and gives means over the residues, at most the first 1,024 of them unless loaded with overlong
        "isolate" (Lin et al. 2023; as VirNucPro uses it). DNABERT-S takes nucleotides (what is not upper-case A, C, G
        or T is one unknown token) and gives means over all tokens (Zhou et al. 2024). Equal sequences are computed
        once. On the CPU a row's bits do not depend on the sequences beside it.

        token_budget: tokens a batch holds at most (a longer sequence goes alone); 0: what suits the device. Batches
        are halved where the device's memory runs out. float32: by the reference operations, the weights in use upcast.
        Raises SequenceError, with the index, for letters without a token and for an empty sequence; DeviceError where
        one sequence alone does not fit the device; StoreError where a row is not finite even in float32.
        """
        letters = [_letters(i, s) for i, s in enumerate(_listed(sequences))]
        proteins, stops = without_stops(letters) if self.kind == "esm2" else (letters, 0)
        if stops:
            log.warning("%d sequences end in a stop (*), which is no residue: left out", stops)
        place = {sequence: row for row, sequence in enumerate(dict.fromkeys(proteins))}
        values_UD = np.empty((len(place), self.dim), np.float32)
        room = Room(token_budget or self.input.budget_on(self.device))
        distinct, overlong = list(place), 0
        for start in range(0, len(distinct), BLOCK_SEQUENCES):
            end = start + BLOCK_SEQUENCES
            try:
                packed = self.input.pack(distinct[start:end], room.tokens)
            except SequenceError as error:
                bad = proteins.index(distinct[start + error.sequence])
                raise SequenceError(
                    error.what, sequence=bad, letter=error.letter, remedy=error.remedy
                ) from error
            overlong += packed.overlong
            values_UD[start:end] = self._rows(packed, room, float32=float32)
        if overlong:
            log.warning("%d sequences are longer than the model was trained on", overlong)
        return values_UD[np.fromiter((place[s] for s in proteins), np.int64, len(proteins))]

    def _rows(self, packed: PackedShard, room: Room, *, float32: bool) -> NDArray[np.float32]:
        """(R, dim) on the host, in the sequences' order, every value finite."""
        rows_RD = torch.empty((packed.n_sequences, self.dim), dtype=torch.float32, device=self.device)
        forward = self.forward_float32 if float32 else self.forward
        rows_RD = Pass(packed.batches, rows_RD, forward, room).finish()
        values_RD: NDArray[np.float32] = rows_RD.cpu().numpy()[packed.place_R.numpy()]
        bad_N = np.flatnonzero(~np.isfinite(values_RD).all(axis=1))
        if len(bad_N):
            log.warning("%d rows not finite, computed again in float32", len(bad_N))
            again_in_float32(self, packed.batches, values_RD, bad_N, room, where=self.folder)
        return values_RD

    def warm_up(self, longest: int) -> None:
        """Run one batch of made-up sequences of up to `longest` tokens (at least 3), as large as the device's batches.

        A GPU's kernels for such sequences are then compiled and loaded, so that the first real ones wait for nothing.
        """
        budget = self.input.budget_on(self.device)
        sizes = sorted({min(longest, size) for size in (SHORT_TILE, MIDDLE_TILE, longest)})
        lengths_B = np.concatenate(
            [np.full(max(budget // len(sizes) // size, 1), size, np.int32) for size in sizes]
        )
        batches = pack(np.full(int(lengths_B.sum()), _ANY_TOKEN, np.int32), lengths_B, budget)
        rows_BD = torch.empty((len(lengths_B), self.dim), dtype=torch.float32, device=self.device)
        Pass(batches, rows_BD, self.forward, Room(budget)).finish()

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


def without_stops(sequences: Sequence[bytes]) -> tuple[list[bytes], int]:
    """Proteins without the `*` that gene finders write for the stop at the end, and how many had one."""
    stripped = [s.removesuffix(STOP) for s in sequences]
    return stripped, sum(len(a) != len(b) for a, b in zip(stripped, sequences, strict=True))


def _listed(sequences: Sequence[str] | Sequence[bytes]) -> Sequence[str | bytes]:
    if isinstance(sequences, str | bytes):
        raise UsageError("one sequence where a list of sequences is wanted", remedy="put it into a list")
    return sequences


def _letters(index: int, sequence: str | bytes) -> bytes:
    """The sequence as bytes, one for each letter. Raises SequenceError with the position of a letter outside ASCII."""
    if isinstance(sequence, bytes):
        return sequence
    if sequence.isascii():
        return sequence.encode("ascii")
    place = next(i for i, letter in enumerate(sequence) if not letter.isascii())
    raise SequenceError(
        f"letter {sequence[place]!r} at place {place + 1:,} is not an ASCII letter",
        sequence=index,
        letter=place,
        remedy="use the letters of the model's alphabet",
    )


def load_encoder(
    kind: Kind,
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    attention: str = "",
    overlong: Overlong = "truncate",
) -> Encoder:
    """Load config.json, safetensors (and tokenizer.json for dnabert-s) of `folder` onto `device` in `dtype`.

    kind: "esm2" or "dnabert-s". device: "cpu", "cuda" or "cuda:i" (it becomes the process's current device). dtype:
    "float32", on a GPU also "float16" and, for ESM-2, "fp8". attention: name of a kernel, "" for the device's own.
    `overlong`, ESM-2 only: "truncate" pools the first 1,024 residues as the published tool does, "isolate"
    all of them; the model sees every token either way. Raises WeightsError, DeviceError or UsageError; what was asked
    for is never replaced by something else.
    """
    folder = Path(folder)
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise UsageError(f"no dtype is named {dtype!r}", remedy=f"choose of {', '.join(DTYPES)}")
        dtype = DTYPES[dtype]
    if isinstance(device, str):
        device = usable_device(device, dtype_name(dtype), option="dtype")
    attention = attention or default_attention(device.type, dtype_name(dtype))
    if overlong not in ("truncate", "isolate"):
        raise UsageError(
            f"no policy for over-long sequences is named {overlong!r}", remedy="truncate or isolate"
        )
    taken = encoder_input(kind, folder, dtype)
    operations = _operations(kind, device, dtype, attention)
    model: Esm2Model | DnabertModel
    with ThreadPoolExecutor(1, thread_name_prefix="first-kernels") as background:
        warm_up = background.submit(operations.warm_up, device)  # while the weights are read
        if kind == "esm2":
            pooled = POOLED_RESIDUES if overlong == "truncate" else None
            model = Esm2Model(folder, operations, device=device, pooled_residues=pooled)
        else:
            model = DnabertModel(folder, operations, device=device)
        warm_up.result()
    return Encoder(taken, folder, model, dtype)


def dtype_name(dtype: torch.dtype) -> str:
    """The name by which people ask for it."""
    return next((name for name, known in DTYPES.items() if known == dtype), str(dtype)[6:])


def _operations(kind: Kind, device: torch.device, dtype: torch.dtype, attention: str) -> Operations:
    """The set of operations that was asked for, or DeviceError."""
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"device {device} was requested, but CUDA sees no GPU",
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
        f"{dtype_name(dtype)} with attention {attention!r} is not available for {kind} on {device}",
        remedy="use float32 with 'reference'; on a GPU float16 with 'triton'; fp8 (ESM-2) on Hopper or Ada",
    )
