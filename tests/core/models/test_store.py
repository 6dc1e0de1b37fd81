"""Models from the layouts they are published in to the model store, and what a person is told."""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from esm.model.esm2 import ESM2
from safetensors.torch import load_file
from transformers import EsmConfig, EsmForMaskedLM

from virnucpro_core.encoders.encoder import load_encoder
from virnucpro_core.encoders.model_folder import fingerprint
from virnucpro_core.encoders.packing import pack
from virnucpro_core.errors import StoreError, UsageError, WeightsError
from virnucpro_core.files import manifest
from virnucpro_core.files.digests import sha256_file
from virnucpro_core.files.manifest import verify
from virnucpro_core.models import sources
from virnucpro_core.models.classifier import load_classifier
from virnucpro_core.models.convert import import_model
from virnucpro_core.models.fetching import fetch_model
from virnucpro_core.models.profiles import resolve_profile
from virnucpro_core.models.sources import SOURCES, RemoteFile, Source
from virnucpro_core.models.store import ModelStore

CPU = torch.device("cpu")
LAYERS, WIDTH, HEADS = 2, 48, 3
PROTEIN = b"MKVLAAGIWRRKTNE"


@pytest.fixture(scope="module")
def fair_esm() -> ESM2:
    torch.manual_seed(0)
    model = ESM2(num_layers=LAYERS, embed_dim=WIDTH, attention_heads=HEADS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def published_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names as in the published files, where the contact head is a file of its own."""
    return {
        ("encoder." if k.startswith("lm_head.") else "encoder.sentence_encoder.") + k: v
        for k, v in state.items()
        if not k.startswith("contact_head.")
    }


def save_fair_esm(model: ESM2, path: Path) -> Path:
    settings = argparse.Namespace(
        encoder_layers=LAYERS, encoder_embed_dim=WIDTH, encoder_attention_heads=HEADS, token_dropout=True
    )
    torch.save({"cfg": {"model": settings}, "model": published_names(model.state_dict())}, path)
    return path


def embed(folder: Path) -> np.ndarray:
    encoder = load_encoder("esm2", folder, device=CPU, dtype=torch.float32, attention="reference")
    (batch,) = pack(*encoder.tokenizer.encode([PROTEIN]), 2048)
    return encoder.forward(batch).numpy()[0]


def embed_fair_esm(model: ESM2) -> np.ndarray:
    tokens = torch.tensor([[0, *(model.alphabet.get_idx(chr(c)) for c in PROTEIN), 2]])
    with torch.no_grad():
        return model(tokens, repr_layers=[LAYERS])["representations"][LAYERS][0, 1:-1].mean(0).numpy()


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sharded folder of EsmForMaskedLM, head and all, as the hub has it."""
    torch.manual_seed(1)
    config = EsmConfig(
        vocab_size=33, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH, position_embedding_type="rotary", token_dropout=True,
        emb_layer_norm_before=False, layer_norm_eps=1e-5, pad_token_id=1, mask_token_id=32,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("hf")
    EsmForMaskedLM(config).save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


# Importing encoders


def test_fair_esm_file_gives_what_fair_esm_computes(fair_esm: ESM2, tmp_path: Path) -> None:
    out = import_model("esm2", save_fair_esm(fair_esm, tmp_path / "esm2.pt"), tmp_path / "out")
    np.testing.assert_allclose(embed(out), embed_fair_esm(fair_esm), rtol=1e-5, atol=1e-6)
    manifest = verify(out)
    assert {k: manifest[k] for k in ("kind", "layers", "dim", "heads")} == {
        "kind": "esm2", "layers": LAYERS, "dim": WIDTH, "heads": HEADS,
    }  # fmt: skip
    assert manifest["dtypes"] == ["float32"]
    head = ("lm_head", "contact_head")
    assert manifest["parameters"] == sum(
        p.numel() for n, p in fair_esm.named_parameters() if not n.startswith(head)
    )
    assert list(manifest["imported_files"]) == ["esm2.pt"]


def test_heads_from_the_rotary_table_when_the_settings_are_gone(fair_esm: ESM2, tmp_path: Path) -> None:
    torch.save(published_names(fair_esm.state_dict()), tmp_path / "bare.pt")
    bare = import_model("esm2", tmp_path / "bare.pt", tmp_path / "bare")
    full = import_model("esm2", save_fair_esm(fair_esm, tmp_path / "full.pt"), tmp_path / "full")
    assert fingerprint(bare) == fingerprint(full)
    state = {k: v for k, v in fair_esm.state_dict().items() if "inv_freq" not in k}
    torch.save(published_names(state), tmp_path / "bare.pt")
    with pytest.raises(WeightsError, match=r"bare\.pt: the number of attention heads is not in it"):
        import_model("esm2", tmp_path / "bare.pt", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_hugging_face_layouts_give_one_fingerprint(hugging_face: Path, tmp_path: Path) -> None:
    """Sharded safetensors, sharded .bin, one .bin: the same model, the same bytes."""
    model = EsmForMaskedLM.from_pretrained(hugging_face).eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    sharded, whole = tmp_path / "sharded", tmp_path / "whole"
    for folder in (sharded, whole):
        folder.mkdir()
        shutil.copy(hugging_face / "config.json", folder)
    names = sorted(state)
    parts = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, part in parts.items():
        torch.save({name: state[name] for name in part}, sharded / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    (sharded / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    torch.save(state, whole / "pytorch_model.bin")
    folders = [
        import_model("esm2", path, tmp_path / f"out{n}")
        for n, path in enumerate((hugging_face, sharded, whole))
    ]
    assert len({fingerprint(folder) for folder in folders}) == 1
    ids = torch.tensor([[0, *("LAGVSERTIDPKQNFYMHWCXBUZO".index(chr(c)) + 4 for c in PROTEIN), 2]])
    with torch.no_grad():
        expected = model.esm(ids).last_hidden_state[0, 1:-1].mean(0).numpy()
    np.testing.assert_allclose(embed(folders[0]), expected, rtol=1e-5, atol=1e-6)
    (sharded / "pytorch_model-00002-of-00002.bin").unlink()
    for content in ("{", "[]", '{"weight_map": []}'):
        (whole / "pytorch_model.bin.index.json").write_text(content)
        with pytest.raises(WeightsError, match=r"index\.json: not an index of weight files"):
            import_model("esm2", whole, tmp_path / "none")
    with pytest.raises(WeightsError, match=r"'pytorch_model-00002-of-00002.bin' is missing"):
        import_model("esm2", sharded, tmp_path / "none")


def test_stored_dtype_is_kept_unless_asked(fair_esm: ESM2, tmp_path: Path) -> None:
    state = {k: v.bfloat16() if v.is_floating_point() else v for k, v in fair_esm.state_dict().items()}
    torch.save({"model": published_names(state)}, tmp_path / "esm2.pt")
    path = tmp_path / "esm2.pt"
    kept = load_file(import_model("esm2", path, tmp_path / "kept") / "model.safetensors")
    cast = import_model("esm2", path, tmp_path / "cast", dtype=torch.float16)
    name = "encoder.layer.0.attention.self.query.weight"
    assert kept[name].dtype == torch.bfloat16
    assert torch.equal(kept[name], state["layers.0.self_attn.q_proj.weight"])
    assert torch.equal(load_file(cast / "model.safetensors")[name], kept[name].half())
    assert verify(cast)["dtypes"] == ["float16"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("layers.1.fc2.bias"), r"'encoder\.layer\.1\.output\.dense\.bias' is missing"),
        (
            lambda s: s.update(bias_of_nothing=torch.zeros(1)),
            "unknown tensor 'encoder.sentence_encoder.bias_of",
        ),
        (
            lambda s: s.update({"layers.1.fc1.bias": torch.zeros(3)}),
            r"intermediate\.dense\.bias' is F32 \(3,\)",
        ),
        (
            lambda s: s["layers.0.fc1.weight"][0].fill_(torch.inf),
            r"layer\.0\.intermediate\.dense\.weight' has NaN",
        ),
    ],
)
def test_bad_encoder_weights_name_the_tensor_and_the_file(
    fair_esm: ESM2, tmp_path: Path, damage, message: str
) -> None:
    state = {k: v.clone() for k, v in fair_esm.state_dict().items()}
    damage(state)
    torch.save({"model": published_names(state)}, tmp_path / "esm2.pt")
    with pytest.raises(WeightsError, match=message) as caught:
        import_model("esm2", tmp_path / "esm2.pt", tmp_path / "out")
    assert str(caught.value).startswith(str(tmp_path / "esm2.pt"))
    assert not (tmp_path / "out").exists()


def test_dnabert_s_folder_keeps_no_code(shared: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(shared / "golden/dnabert_s_tiny", source)
    config = json.loads((source / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "bert_layers.BertModel"}
    source.chmod(0o755)
    (source / "config.json").unlink()
    (source / "config.json").write_text(json.dumps(config))
    (source / "bert_layers.py").write_text("raise SystemExit\n")
    out = import_model("dnabert-s", source, tmp_path / "out")
    assert sorted(f.name for f in out.iterdir()) == [
        "config.json", "manifest.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert "auto_map" not in json.loads((out / "config.json").read_text())
    encoder = load_encoder("dnabert-s", out, device=CPU, dtype=torch.float32, attention="reference")
    case = json.loads((source / "cases.json").read_text())
    first = (case["cases"] if isinstance(case, dict) else case)[0]
    (batch,) = pack(*encoder.tokenizer.encode([first["sequence"].encode()]), 4096)
    expected = np.load(source / "mean_embeddings.npy")[0]
    np.testing.assert_allclose(encoder.forward(batch).numpy()[0], expected, rtol=1e-5, atol=2e-6)
    (source / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"no tokenizer\.json"):
        import_model("dnabert-s", source, tmp_path / "none")


def test_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file or folder"):
        import_model("esm2", tmp_path / "none", tmp_path / "out")
    with pytest.raises(WeightsError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        import_model("esm2", tmp_path, tmp_path / "out")
    (tmp_path / "x.pt").write_bytes(b"")
    with pytest.raises(WeightsError, match="a single file is not enough for this model"):
        import_model("dnabert-s", tmp_path / "x.pt", tmp_path / "out")


# The published classifier

PUBLISHED = """
import sys, numpy as np, torch
from torch import nn
import torch.nn.functional as F

class MLPClassifier(nn.Module):
    def __init__(self, inputs, hidden, classes):
        super().__init__()
        self.hidden_layer = nn.Linear(inputs, hidden)
        self.bn1 = nn.BatchNorm1d(hidden)
        self.output_layer = nn.Linear(hidden, classes)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.output_layer(self.dropout(F.relu(self.bn1(self.hidden_layer(x)))))

torch.manual_seed(3)
model = MLPClassifier(40, 16, 2)
for _ in range(20):
    model(torch.randn(32, 40) * 2 + 1)
model.eval()
x = torch.randn(50, 40)
np.savez(sys.argv[1] + "/expected.npz", x=x.numpy(), y=torch.softmax(model(x), 1).detach().numpy())
torch.save(model, sys.argv[1] + "/500_model.pth")
torch.save(model.state_dict(), sys.argv[1] + "/state.pth")
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    subprocess.run([sys.executable, "-c", PUBLISHED, folder], check=True)
    return folder


def test_published_classifier_scores_as_its_module(published: Path, tmp_path: Path) -> None:
    expected = np.load(published / "expected.npz")
    whole = import_model("classifier", published / "500_model.pth", tmp_path / "a", chunk_size=500)
    state = import_model("classifier", published / "state.pth", tmp_path / "b")
    again = import_model("classifier", whole, tmp_path / "c")
    classifiers = [load_classifier(folder, CPU) for folder in (whole, state, again)]
    assert len({c.fingerprint for c in classifiers}) == 1
    assert [c.chunk_size for c in classifiers] == [500, None, 500]
    np.testing.assert_allclose(classifiers[0].score(expected["x"]), expected["y"], rtol=1e-5, atol=1e-7)
    assert verify(whole)["parameters"] == 40 * 16 + 16 + 2 * 16 + 16 * 2 + 2


def test_other_module_is_not_taken_for_the_classifier(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"x\.pth: not the published classifier"):
        import_model("classifier", tmp_path / "x.pth", tmp_path / "out")


# Store, fetching, messages


class Hub:
    """Gives the files of a pinned source from a local folder, and notes what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []

    def get(self, name: str, source: Source, file: RemoteFile, folder: Path) -> Path:
        self.asked.append((name, source.revision, file.name))
        return Path(shutil.copy(self.folder / file.name, folder / file.name))


def hub(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Hub:
    files = tuple(RemoteFile(f.name, f.stat().st_size) for f in sorted(folder.iterdir()) if f.is_file())
    monkeypatch.setitem(sources.SOURCES, name, replace(SOURCES[name], size=1000, files=files))
    return Hub(folder)


def test_fetch_converts_and_leaves_no_download(
    hugging_face: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(tmp_path / "models")
    files = hub(hugging_face, monkeypatch, "esm2-8m")
    folder = fetch_model(store, "esm2-8m", files)
    assert store.require("esm2-8m") == store.verify("esm2-8m") == folder
    assert {revision for _, revision, _ in files.asked} == {"c731040fcd8d73dceaa04b0a8e6329b345b0f5df"}
    manifest = verify(folder)
    assert manifest["source"].endswith(f"facebook/esm2_t6_8M_UR50D/tree/{manifest['revision']}")
    assert [p.name for p in store.root.iterdir()] == ["esm2-8m"]
    files.asked.clear()
    assert fetch_model(store, "esm2-8m", files) == folder
    assert files.asked == []
    (folder / "config.json").write_text("{}")
    fetch_model(store, "esm2-8m", files)
    assert files.asked
    assert store.verify("esm2-8m") == folder
    assert fingerprint(folder) == fingerprint(import_model("esm2", hugging_face, tmp_path / "by_hand"))


def test_fetch_does_not_replace_a_model_that_was_imported_by_hand(
    hugging_face: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(tmp_path / "models")
    files = hub(hugging_face, monkeypatch, "esm2-8m")
    folder = import_model("esm2", hugging_face, store.path("esm2-8m"), dtype=torch.float16)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(
        UsageError, match=r"another model esm2-8m is there and intact \(imported by hand\); .*--force"
    ):
        fetch_model(store, "esm2-8m", files)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert files.asked == []
    fetch_model(store, "esm2-8m", files, force=True)
    assert verify(folder)["revision"] == SOURCES["esm2-8m"].revision

    # Imported by hand from the files that are pinned: it is the model that would be fetched.
    pinned = tuple(
        one if "index" in one.name else replace(one, sha256=sha256_file(hugging_face / one.name))
        for one in sources.SOURCES["esm2-8m"].files
        if one.name != "generation_config.json"
    )
    monkeypatch.setitem(sources.SOURCES, "esm2-8m", replace(SOURCES["esm2-8m"], size=1000, files=pinned))
    import_model("esm2", hugging_face, folder)
    files.asked.clear()
    fetch_model(store, "esm2-8m", files)
    assert (files.asked, verify(folder)["source"]) == ([], "imported by hand")


def test_fetch_deletes_no_file_that_is_not_of_the_model(
    hugging_face: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(tmp_path / "models")
    files = hub(hugging_face, monkeypatch, "esm2-8m")
    folder = shutil.copytree(hugging_face, store.path("esm2-8m"))
    with pytest.raises(UsageError, match="esm2-8m: holds files that are no model of the store; give --force"):
        fetch_model(store, "esm2-8m", files)
    fetch_model(store, "esm2-8m", files, force=True)
    (folder / "calibration-500.json").write_text("mine")
    fetch_model(store, "esm2-8m", files)  # it is there
    (folder / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"is damaged, and calibration-500\.json would be deleted with it"):
        fetch_model(store, "esm2-8m", files)
    assert (folder / "calibration-500.json").read_text() == "mine"


def test_fetch_of_the_published_classifier(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hub").mkdir()
    shutil.copy(published / "500_model.pth", tmp_path / "hub")
    files = hub(tmp_path / "hub", monkeypatch, "virnucpro-500")
    folder = fetch_model(ModelStore(tmp_path / "models"), "virnucpro-500", files)
    assert load_classifier(folder, CPU).chunk_size == 500
    assert verify(folder)["revision"] == "0f93f2755a7ea1acd3ff1bcf182892f960ef3326"


def test_what_is_not_pinned_is_not_fetched(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    words = r"download https://huggingface.co/facebook/esm2_t48_15B_UR50D/tree/5fbca.* \(60.6 GB\) yourself"
    with pytest.raises(WeightsError, match=rf"esm2-15b cannot be fetched; .*{words}.*models import"):
        fetch_model(store, "esm2-15b")
    with pytest.raises(UsageError, match=r"no published model 'esm2-3'; did you mean esm2-3b\?"):
        fetch_model(store, "esm2-3")
    with pytest.raises(UsageError, match=r"no published model 'nosuch'; published models: dnabert-s, "):
        fetch_model(store, "nosuch")
    assert not list(tmp_path.iterdir())


def test_fetch_wants_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 5 * 10**9))
    with pytest.raises(StoreError, match=r"5\.0 GB free, 23\.9 GB needed to fetch and convert esm2-3b"):
        fetch_model(ModelStore(tmp_path), "esm2-3b")


def test_every_missing_model_of_a_profile_is_named(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    with pytest.raises(WeightsError) as caught:
        resolve_profile("esm2-3b", 500, store)
    assert str(caught.value) == (
        f"{tmp_path}: 3 of 3 models of profile esm2-3b are missing: dnabert-s, esm2-3b, virnucpro-500;"
        " run `virnucpro models fetch dnabert-s esm2-3b virnucpro-500` (11.8 GB)"
    )
    with pytest.raises(WeightsError) as caught:
        resolve_profile("esm2-8m", 300, store)
    assert "`virnucpro models fetch dnabert-s esm2-8m` (0.5 GB)" in str(caught.value)
    assert "virnucpro-esm2-8m-300: no such classifier is published: train one" in str(caught.value)


def test_missing_model_message(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        ModelStore(tmp_path).require("esm2-3b")
    assert str(caught.value) == (
        f"{tmp_path}/esm2-3b: the model esm2-3b is not in the model store; run `virnucpro models"
        " fetch esm2-3b` (11.4 GB from https://huggingface.co/facebook/esm2_t36_3B_UR50D/tree/"
        "476b639933c8baad5ad09a60ac1a87f987b656fc), or import files that you have with"
        f" `virnucpro models import esm2 PATH --out {tmp_path}/esm2-3b`"
    )
    for name in ("../x", "", "A", ".tmp-1"):
        with pytest.raises(UsageError, match="is not a model name"):
            ModelStore(tmp_path).require(name)


def test_damage_is_found(published: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    folder = import_model("classifier", published / "500_model.pth", tmp_path / "virnucpro-500")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert store.require("virnucpro-500") == folder
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged"):
        store.verify("virnucpro-500")
    (folder / "model.safetensors").write_bytes(data[:-1])
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged"):
        store.require("virnucpro-500")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors is missing"):
        store.require("virnucpro-500")
    for content in ("{", "{}", '{"files": {}}', '{"files": {"../x": {"bytes": 1, "sha256": ""}}}'):
        (folder / "manifest.json").write_text(content)
        with pytest.raises(WeightsError, match=r"manifest\.json"):
            store.require("virnucpro-500")


def test_a_large_file_is_held_against_the_digests_of_its_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "BLOCK_BYTES", 1000)
    weights = tmp_path / "model.safetensors"
    whole = bytes(range(256)) * 10
    weights.write_bytes(whole)
    manifest.write_manifest(tmp_path, [weights], {"kind": "esm2"})
    [entry] = verify(tmp_path)["files"].values()
    assert entry["sha256"] == hashlib.sha256(whole).hexdigest()
    assert entry["blocks"] == [hashlib.sha256(whole[k : k + 1000]).hexdigest() for k in (0, 1000, 2000)]
    for place in (0, 1500, 2559):
        weights.write_bytes(
            whole[:place] + b"\xff" + whole[place + 1 :] if whole[place] != 0xFF else whole[:-1]
        )
        with pytest.raises(WeightsError, match=r"model\.safetensors is damaged"):
            verify(tmp_path)
    weights.write_bytes(whole)
    verify(tmp_path)
    text = (tmp_path / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(text.replace(entry["blocks"][1][:8], "00000000"))
    with pytest.raises(WeightsError, match=r"damaged manifest\.json"):
        verify(tmp_path)


def test_every_source_is_pinned_to_a_commit() -> None:
    for name, source in SOURCES.items():
        assert len(source.revision) == 40, name
        assert set(source.revision) <= set("0123456789abcdef"), name
        assert not any(file.name.endswith(".py") for file in source.files)
        known = sum(file.size or 0 for file in source.files)
        assert known <= source.size <= known + 10_000_000 or not source.files, name
