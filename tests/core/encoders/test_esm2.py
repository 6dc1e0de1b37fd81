"""ESM-2 against fair-esm and transformers, in float32 on small seeded models."""

import json
from pathlib import Path

import esm
import numpy as np
import pytest
import torch
from esm.model.esm2 import ESM2
from safetensors.torch import save_file
from transformers import EsmConfig, EsmModel

from virnucpro_core.encoders.encoder import Encoder, full_batch, load_encoder
from virnucpro_core.encoders.operations import bytes_per_token
from virnucpro_core.encoders.packing import pack
from virnucpro_core.encoders.weights import map_esm2_names
from virnucpro_core.errors import DeviceError, UsageError, WeightsError

LAYERS, WIDTH, HEADS = 3, 96, 4  # heads of 24, as in the 35M model
LETTERS = np.frombuffer(b"LAGVSERTIDPKQNFYMHWCXBUZO", dtype=np.uint8)
CONFIG = {
    "model_type": "esm",
    "vocab_size": 33,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 4 * WIDTH,
    "position_embedding_type": "rotary",
    "token_dropout": True,
    "emb_layer_norm_before": False,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "mask_token_id": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def _proteins(lengths: list[int], seed: int = 0) -> list[bytes]:
    random = np.random.default_rng(seed)
    return [random.choice(LETTERS, length).tobytes() for length in lengths]


def _shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Seeded weights that make every bias, norm and product matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.3 if parameter.ndim == 1 else 1.5 / parameter.shape[-1] ** 0.5
            noise = torch.randn(parameter.shape, generator=generator) * scale
            is_norm_weight = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(noise + 1 if is_norm_weight else noise)
    return model.eval()


@pytest.fixture(scope="module")
def fair_esm() -> ESM2:
    model = _shaken(ESM2(num_layers=LAYERS, embed_dim=WIDTH, attention_heads=HEADS))
    assert isinstance(model, ESM2)
    return model


@pytest.fixture(scope="module")
def folder(fair_esm: ESM2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fair-esm model's weights under canonical names."""
    folder = tmp_path_factory.mktemp("esm2")
    state = fair_esm.state_dict()
    tensors = {name: state[stored].clone() for name, stored in map_esm2_names(state).items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def _load(folder: Path, **options: str) -> Encoder:
    return load_encoder(
        "esm2",
        folder,
        device=torch.device("cpu"),
        dtype=torch.float32,
        attention="reference",
        **options,  # type: ignore[arg-type]
    )


def _embed(encoder: Encoder, proteins: list[bytes], budget: int = 2048) -> np.ndarray:
    tokens_T, lengths_B = encoder.tokenizer.encode(proteins)
    rows = np.full((len(proteins), encoder.dim), np.nan, dtype=np.float32)
    for batch in pack(tokens_T, lengths_B, budget):
        rows[batch.rows_B] = encoder.forward(batch).numpy()
    return rows


def _relative(rows: np.ndarray, expected: np.ndarray) -> float:
    distance = np.linalg.norm(rows - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return float(distance.max())


def _published(model: ESM2, proteins: list[bytes]) -> np.ndarray:
    """The published tool's recipe: the last layer's representation, mean over the first 1,024 residues."""
    convert = esm.data.Alphabet.from_architecture("ESM-1b").get_batch_converter()
    rows = []
    for protein in proteins:
        _, _, tokens = convert([("x", protein.decode())])
        with torch.no_grad():
            states = model(tokens, repr_layers=[LAYERS])["representations"][LAYERS][0]
        rows.append(states[1 : min(1024, len(protein)) + 1].mean(0).numpy())
    return np.stack(rows)


def test_equals_fair_esm(fair_esm: ESM2, folder: Path) -> None:
    proteins = _proteins([1, 2, 36, 66, 66, 66, 130, 300])
    assert _relative(_embed(_load(folder), proteins), _published(fair_esm, proteins)) < 1e-5


def test_equals_transformers(tmp_path: Path) -> None:
    """A folder that transformers saved is loaded as it is."""
    config = EsmConfig(**{k: v for k, v in CONFIG.items() if k != "model_type"})
    model = _shaken(EsmModel(config, add_pooling_layer=False))
    model.save_pretrained(tmp_path)
    encoder, proteins = _load(tmp_path), _proteins([1, 5, 40, 40, 64])
    expected = []
    for protein in proteins:
        tokens_T, _ = encoder.tokenizer.encode([protein])
        with torch.no_grad():
            states = model(torch.from_numpy(tokens_T)[None].long()).last_hidden_state[0]
        expected.append(states[1:-1].mean(0).numpy())
    assert _relative(_embed(encoder, proteins), np.stack(expected)) < 1e-5


def test_overlong_policies(fair_esm: ESM2, folder: Path) -> None:
    """Both policies show the model every token; what is averaged differs, above 1,024 residues only."""
    proteins = _proteins([1024, 1100])
    published = _published(fair_esm, proteins)
    truncated, isolated = _embed(_load(folder), proteins), _embed(_load(folder, overlong="isolate"), proteins)
    assert _relative(truncated, published) < 1e-5
    assert np.array_equal(truncated[0], isolated[0])
    assert _relative(isolated[1:], published[1:]) > 1e-3


def test_packed_equals_one_by_one_in_any_order(folder: Path) -> None:
    encoder, proteins = _load(folder), _proteins([3, 3, 17, 40, 40, 66, 90, 150])
    packed = _embed(encoder, proteins)
    assert _relative(packed, _embed(encoder, proteins, budget=1)) < 1e-5
    order = np.random.default_rng(3).permutation(len(proteins))
    assert _relative(_embed(encoder, [proteins[i] for i in order]), packed[order]) < 1e-5


def test_a_changed_neighbour_leaves_the_other_rows_bit_equal(folder: Path) -> None:
    encoder, proteins = _load(folder), _proteins([40, 40, 40, 66, 12])
    before = _embed(encoder, proteins)
    proteins[1] = _proteins([40], seed=9)[0]
    after = _embed(encoder, proteins)
    assert not np.array_equal(before[1], after[1])
    others = [0, 2, 3, 4]
    assert np.array_equal(before[others], after[others])


def test_float32_recomputation_is_the_forward(folder: Path) -> None:
    encoder = _load(folder)
    (batch,) = pack(*encoder.tokenizer.encode(_proteins([9, 30])), 2048)
    assert torch.equal(encoder.forward(batch), encoder.forward_float32(batch))


def test_what_is_absent_is_refused(folder: Path) -> None:
    """No kernel, precision or policy stands in for another."""
    cpu = torch.device("cpu")
    with pytest.raises(DeviceError, match="float16"):
        load_encoder("esm2", folder, device=cpu, dtype=torch.float16, attention="reference")
    with pytest.raises(DeviceError, match="triton"):
        load_encoder("esm2", folder, device=cpu, dtype=torch.float32, attention="triton")
    with pytest.raises(DeviceError, match="named 'fast'"):
        load_encoder("esm2", folder, device=cpu, dtype=torch.float32, attention="fast")
    with pytest.raises(UsageError, match="over-long"):
        _load(folder, overlong="split")


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden_size", 64), ("num_hidden_layers", 2), ("num_attention_heads", 5), ("model_type", "bert")],
)
def test_a_config_of_another_model_is_refused(folder: Path, tmp_path: Path, key: str, value: object) -> None:
    """Dimensions follow from config and weights, which must agree."""
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {key: value}))
    with pytest.raises(WeightsError):
        _load(tmp_path)


def test_token_budget_fits_the_memory_and_is_never_tiny(folder: Path) -> None:
    """The measured 71 kB a token of the 3B model in float16: a 24 GB card holds the full batch."""
    assert bytes_per_token(2560, 10240, torch.float16) == 71_680
    encoder = _load(folder)
    per_token = bytes_per_token(WIDTH, 4 * WIDTH, torch.float32)
    assert encoder.input.token_budget(24 * 10**9) == 65_536  # narrow: more tokens
    assert full_batch("esm2", 71_680) == 16_384
    assert full_batch("esm2", bytes_per_token(1280, 5120, torch.float16)) == 65_536
    assert full_batch("esm2", bytes_per_token(5120, 20480, torch.float16)) == 16_384
    assert full_batch("dnabert-s", bytes_per_token(768, 3072, torch.float16)) == 65_536
    assert encoder.input.token_budget(4 * 5000 * per_token) == 4992
    assert encoder.input.token_budget(0) == 1024
