"""`virnucpro models`: fetch, bundle, unbundle and the golden self-check, on stand-ins for the published weights."""

import hashlib
import io
import itertools
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click.testing
import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.support import stand_in
from tests.support.feature_files import flip_a_byte
from virnucpro_assets.cli import transfer
from virnucpro_assets.cli.golden import golden_states
from virnucpro_assets.cli.main import app
from virnucpro_core.errors import UsageError, VirnucproError, WeightsError
from virnucpro_core.files.digests import sha256_file
from virnucpro_core.files.manifest import read_manifest, verify, write_manifest
from virnucpro_core.models import downloads, golden, sources
from virnucpro_core.models.classifier import load_classifier
from virnucpro_core.models.convert import Origin, write_model_manifest
from virnucpro_core.models.profiles import PROFILES
from virnucpro_core.models.sources import SOURCES, RemoteFile
from virnucpro_core.results.calibration import Calibration, Curve, find_calibration

NAMES = ("dnabert-s", "esm2-3b", "virnucpro-300", "virnucpro-500")
Run = Callable[..., str]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published files of the stand-ins, as MODEL/FILE."""
    folder = tmp_path_factory.mktemp("published")
    stand_in.dnabert(folder / "dnabert-s")
    stand_in.esm2(folder / "esm2-3b")
    made = stand_in.classifier(folder / "made")
    for size in (300, 500):
        (folder / f"virnucpro-{size}").mkdir()
        torch.save(load_file(made / "model.safetensors"), folder / f"virnucpro-{size}" / f"{size}_model.pth")
    return folder


@pytest.fixture
def run(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in this process, with an empty home and the stand-ins as the published models."""
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path / "home"))
    for name in NAMES:
        files = tuple(
            RemoteFile(f.name, f.stat().st_size, sha256_file(f))
            for f in sorted((published / name).iterdir())
            if f.name != "manifest.json"
        )
        size = sum(f.size or 0 for f in files)
        monkeypatch.setitem(sources.SOURCES, name, replace(SOURCES[name], files=files, size=size))
    facts = stand_in.recorded(published / "dnabert-s", published / "esm2-3b", published / "made")
    monkeypatch.setattr(golden, "published", lambda: facts)

    def call(*words: object) -> str:
        result = click.testing.CliRunner().invoke(app, [str(w) for w in words], standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        return result.output

    return call


def refused(run: Run, *words: object) -> str:
    with pytest.raises(VirnucproError) as caught:
        run(*words)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_profile_is_fetched_checked_carried_and_checked_again(
    run: Run, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "home/models"
    out = run("models", "fetch", "--profile", "esm2-3b", "--from", published)
    assert out.startswith("4 models, 1.6 MB\n")
    assert f"esm2-3b: {store / 'esm2-3b'}\n" in out
    assert "model.safetensors: " in out  # the progress of a file
    assert (
        "dnabert-s, esm2-3b, virnucpro-500 together reproduce the published tool's vectors and scores: 8 of 8 frames,"
        " largest score difference 0.0e+00\n" in out
    )
    passed = [line for line in out.splitlines() if " passed " in line]
    assert [line.split()[0] for line in passed] == ["dnabert-s", "esm2-3b", "virnucpro-500"]
    assert "flips 0 of 8  (float32 on cpu; allowed: vector 0.001, score 0.001)" in passed[0]
    assert sorted(p.name for p in store.iterdir()) == sorted(NAMES)
    states = list(golden_states(store, ["dnabert-s", "virnucpro-300"]))
    assert states[0][:2] == ("dnabert-s", True)
    assert states[0][2].startswith("passed on 20")
    assert states[1] == ("virnucpro-300", None, "no golden answers exist for this model")

    archive = tmp_path / "models.tar"
    out = run("models", "bundle", "--profile", "esm2-3b", "--out", archive)
    assert out.endswith(f"{sha256_file(archive)}  {archive}\n")
    assert "already exists; give another" in refused(run, "models", "bundle", "esm2-3b", "--out", archive)
    again = tmp_path / "again.tar"
    run("models", "bundle", *NAMES, "--out", again)
    assert sha256_file(again) == sha256_file(archive)
    out = run("models", "unbundle", archive)
    assert out.count("(was there already)") == 4
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path / "other"))
    out = run("models", "unbundle", archive)
    assert "was there" not in out
    for name in NAMES:
        assert verify(tmp_path / "other/models" / name) == verify(store / name)
    assert next(golden_states(tmp_path / "other/models", ["esm2-3b"]))[1] is None
    assert "8 of 8 frames" in run("models", "verify", "--golden")


def test_a_model_that_differs_is_said_in_words(run: Run, published: Path, tmp_path: Path) -> None:
    run("models", "fetch", "virnucpro-500", "esm2-3b", "--from", published, "--no-golden")
    store = tmp_path / "home/models"
    out = run("models", "verify", "--golden")
    assert "reproduce" not in out  # DNABERT-S is not there: nothing is said of the whole
    assert "dnabert-s      not compared: it is not among these models, so nothing is said of all three" in out
    assert out.count("passed") == 2

    def exchange(state: dict[str, torch.Tensor]) -> None:
        for part in ("weight", "bias"):
            state[f"output_layer.{part}"] = state[f"output_layer.{part}"].flip(0)

    faulty = stand_in.changed(store / "virnucpro-500", tmp_path / "faulty", exchange)
    shutil.rmtree(store / "virnucpro-500")
    faulty.rename(store / "virnucpro-500")
    result = click.testing.CliRunner().invoke(app, ["models", "verify", "--golden"], standalone_mode=False)
    assert isinstance(result.exception, WeightsError)
    assert str(result.exception) == (
        "virnucpro-500: not the published tool's answers; the lines above say why; until that is mended, do not trust"
        " the scores"
    )
    assert "virnucpro-500  DIFFERS" in result.output
    assert "its two outputs are exchanged" in result.output
    (state,) = golden_states(store, ["virnucpro-500"])
    assert state[1] is False
    assert "its two outputs are exchanged" in state[2]


def test_three_models_that_pass_alone_can_fail_together(
    run: Run, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("models", "fetch", "--profile", "esm2-3b", "--from", published, "--no-golden")
    store = tmp_path / "home/models"
    folders = {name: store / name for name in ("dnabert-s", "esm2-3b", "virnucpro-500")}
    folders, facts = stand_in.flipping_together(folders, tmp_path)
    for name, folder in folders.items():
        shutil.rmtree(store / name)
        shutil.copytree(folder, store / name)
    monkeypatch.setattr(golden, "published", lambda: facts)
    result = click.testing.CliRunner().invoke(app, ["models", "verify", "--golden"], standalone_mode=False)
    assert isinstance(result.exception, WeightsError)
    assert result.exception.exit_code == 2
    assert "reproduce" not in result.output
    assert (
        "all three      DIFFERS  with the other models 7 of 8 frames have the published call" in result.output
    )
    for name, passed, text in golden_states(store, folders):
        assert (name in folders, passed) == (True, False)
        assert "passed alone, but with the other models 7 of 8 frames" in text
    result = click.testing.CliRunner().invoke(app, ["doctor", "--profile", "esm2-3b", "--device", "cpu"])
    assert result.exit_code == 2
    assert "DIFFERS golden answers          virnucpro-500: differed on" in result.output


def test_a_damaged_classifier_is_not_fetched(run: Run, published: Path, tmp_path: Path) -> None:
    """No sha256 of it is published: the archive's own checksums find the byte, and no line says that it is compared."""
    for name in NAMES:
        files = tuple(replace(f, size=None, sha256=None) for f in sources.SOURCES[name].files)
        if name.startswith("virnucpro"):
            sources.SOURCES[name] = replace(sources.SOURCES[name], files=files)
    place = tmp_path / "from"
    shutil.copytree(published, place)
    out = run("models", "fetch", "virnucpro-300", "--from", place)
    assert "virnucpro-300: no sha256 is published of 300_model.pth: not compared\n" in out
    assert "reproduce" not in out
    out = run("models", "fetch", "--profile", "esm2-3b", "--from", place)
    assert "\nvirnucpro-300  not compared: no golden answers exist for it\n" in out
    shutil.rmtree(tmp_path / "home/models/virnucpro-300")
    flip_a_byte(place / "virnucpro-300/300_model.pth")
    line = refused(run, "models", "fetch", "--profile", "esm2-3b", "--from", place)
    assert "300_model.pth: its entry '300_model/data/" in line
    assert "is damaged (CRC-32 differs); copy or fetch the file again" in line
    assert not (tmp_path / "home/models/virnucpro-300").exists()


def test_help_says_what_is_compared() -> None:
    result = click.testing.CliRunner().invoke(app, ["models", "fetch", "--help"])
    said = " ".join(result.output.split())
    assert "No sha256 is published of the classifiers, nor of ESM-2's small JSON files" in said
    loose = {f.name for one in SOURCES.values() for f in one.files if f.sha256 is None}
    assert loose == {"config.json", "pytorch_model.bin.index.json", "300_model.pth", "500_model.pth"}


def test_other_encoders_have_no_golden_answers(run: Run, published: Path, tmp_path: Path) -> None:
    other = stand_in.esm2(tmp_path / "mine")
    line = run("models", "verify", "--golden", other)  # 64 columns, as the golden ESM-2 of this test has
    assert line.startswith("esm2-3b        passed")
    narrow = stand_in.dnabert(tmp_path / "narrow")
    stand_in.written(narrow, "dnabert-s", {"dim": 320})
    assert refused(run, "models", "verify", "--golden", narrow) == (
        f"{narrow}: no golden answers exist for this model; they exist for dnabert-s, esm2-3b, virnucpro-500"
    )
    assert "none of the models with golden answers is in the store" in refused(
        run, "models", "verify", "--golden"
    )


def test_without_memory_the_check_is_not_run_and_says_so(
    run: Run, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free._replace(available=10**8))
    out = run("models", "fetch", "esm2-3b", "--from", published)
    assert "golden self-check not run: it needs 1.0 GB of memory on the CPU, 0.1 GB are free" in out
    assert "--device cuda" in refused(run, "models", "verify", "--golden")


def test_what_cannot_be_fetched_is_said_before_the_first_byte(
    run: Run, published: Path, tmp_path: Path
) -> None:
    for words, line in (
        (("esm2-3b", "nosuch"), "there is no published model 'nosuch'; published models: "),
        (("esm2-3b", "esm2-15b"), "the model esm2-15b cannot be fetched; download https://huggingface.co"),
        ((), "no model is named; give names of `virnucpro models list`"),
        (("--profile", "demo"), "the profile 'demo' ships with the package; profiles: esm2-3b, "),
        (("--profile", "nosuch"), "the profile 'nosuch' is not known; profiles: esm2-3b, "),
        (("esm2-3b", "--from", tmp_path / "none"), "neither a folder nor an http(s) address"),
        (("esm2-650m", "--from", published), "esm2-650m/config.json: no such file; put the files of https"),
    ):
        assert line in refused(run, "models", "fetch", *words)
    assert not any((tmp_path / "home/models").glob("[!.]*"))
    shutil.copytree(published / "esm2-3b", tmp_path / "home/models/esm2-3b")
    (tmp_path / "home/models/esm2-3b/manifest.json").unlink()
    line = refused(run, "models", "fetch", "esm2-3b", "--from", tmp_path / "home/models")
    assert "home/models/esm2-3b: is read by this command, and would be replaced; give --from another" in line


def test_another_model_of_the_name_is_told_before_the_first_byte(
    run: Run, published: Path, tmp_path: Path
) -> None:
    store = tmp_path / "home/models"
    run(
        "models",
        "import",
        "classifier",
        published / "virnucpro-500/500_model.pth",
        "--out",
        store / "virnucpro-300",
    )
    kept = verify(store / "virnucpro-300")
    line = refused(run, "models", "fetch", "esm2-3b", "virnucpro-300", "--from", published, "--no-golden")
    assert (
        "virnucpro-300: another model virnucpro-300 is there and intact (imported by hand); give --force"
        in line
    )
    assert [path.name for path in store.iterdir()] == ["virnucpro-300"]
    assert verify(store / "virnucpro-300") == kept
    run("models", "fetch", "virnucpro-300", "--from", published, "--no-golden", "--force")
    assert verify(store / "virnucpro-300")["revision"]


def test_without_network_one_line_says_what_to_do(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(downloads.time, "sleep", lambda _: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(downloads.NetworkError) as caught:
        run("models", "fetch", "esm2-8m")
    assert str(caught.value).startswith("http://127.0.0.1:9/facebook/esm2_t6_8M_UR50D/resolve/c731040f")
    assert (
        "cannot download config.json: the connection failed: Connection refused; check the network and run"
        in str(caught.value)
    )
    assert caught.value.exit_code == 3
    assert (
        caplog.messages[-1] == "config.json: the connection failed: Connection refused; next attempt in 16 s"
    )
    monkeypatch.setenv("HF_ENDPOINT", "mirror.example")
    with pytest.raises(UsageError, match="not an address of a server; give http"):
        run("models", "fetch", "esm2-8m")


def test_list_shows_own_models(run: Run, tmp_path: Path) -> None:
    store = tmp_path / "home/models"
    made = stand_in.classifier(tmp_path / "made")
    assert " own " not in run("models", "list")
    own = store / "a-classifier-with-a-long-name"
    for folder in (own, store / "damaged"):
        shutil.copytree(made, folder)
    write_model_manifest(own, "classifier", Origin("trained here"), {"chunk_size": 300})
    (store / "damaged/manifest.json").write_text("{}")
    lines = {line.split()[0]: line for line in run("models", "list").splitlines()}
    assert lines[own.name].endswith(" classifier for chunks of 300 bases, trained here")
    assert "damaged manifest.json; fetch or import it again" in lines["damaged"]
    assert len({line.find("https://") for line in lines.values() if "https://" in line}) == 1


def test_list_offers_what_fetch_can_do(run: Run) -> None:
    lines = {line.split()[0]: line for line in run("models", "list").splitlines()}
    for name, source in SOURCES.items():
        assert ("to fetch" in lines[name]) == bool(source.files)
    assert "to import" in lines["esm2-15b"]
    assert {PROFILES["esm2-3b"].dnabert, PROFILES["esm2-3b"].esm2} <= lines.keys()


# Archives


@pytest.fixture
def archive(run: Run, published: Path, tmp_path: Path) -> Path:
    run("models", "fetch", "virnucpro-500", "--from", published, "--no-golden")
    run("models", "bundle", "virnucpro-500", "--out", tmp_path / "good.tar")
    shutil.rmtree(tmp_path / "home/models")
    return tmp_path / "good.tar"


def rewritten(
    archive: Path, change: Callable[[tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes] | None]
) -> Path:
    """The archive with each member given to `change`."""
    out = archive.with_name("bad.tar")
    with tarfile.open(archive) as good, tarfile.open(out, "w") as bad:
        for member in good:
            stream = good.extractfile(member)
            made = change(member, stream.read() if stream else b"")
            if made is not None:
                made[0].size = len(made[1]) if made[0].isreg() else 0
                bad.addfile(made[0], io.BytesIO(made[1]))
    return out


def renamed(old: str, new: str):
    def change(member: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
        member.name = member.name.replace(old, new)
        return member, data.replace(old.encode(), new.encode()) if member.name == "bundle.json" else data

    return change


def linked(member: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    if member.name.endswith("config.json"):
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return member, data


def flipped(member: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    return member, data[:-1] + bytes([data[-1] ^ 1]) if member.name.endswith("safetensors") else data


def without_weights(member: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes] | None:
    return None if member.name.endswith("safetensors") else (member, data)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (renamed("virnucpro-500/model", "../../evil"), "is expected"),
        (renamed("virnucpro-500", "../evil"), "is not a model name"),
        (renamed("model.safetensors", "../evil"), "has a file that it must not have: ../evil"),
        (renamed("model.safetensors", "golden.json"), "has a file that it must not have: golden.json"),
        (lambda m, d: (m, b"[" * 200_000) if m.name == "bundle.json" else (m, d), "not an archive of"),
        (lambda m, d: (m, re.sub(rb'"bytes": \d+', b'"bytes": 1e400', d)), "not an archive of"),
        (lambda m, d: (m, re.sub(rb'"bytes": \d+', b'"bytes": 7.5', d)), "not an archive of"),
        (renamed("bundle.json", "other.json"), "not an archive of `virnucpro models bundle`"),
        (linked, "virnucpro-500/config.json is no regular file"),
        (flipped, "virnucpro-500/model.safetensors does not have the sha256 of the manifest"),
        (without_weights, "is expected"),
        (lambda m, d: (m, b"{}") if m.name == "bundle.json" else (m, d), "not an archive of"),
        (
            lambda m, d: (m, d.replace(b'"format": 1', b'"format": 9')),
            "its format is 9, this version reads 1",
        ),
    ],
)
def test_a_hostile_or_damaged_archive_leaves_nothing(
    run: Run, archive: Path, tmp_path: Path, change: Callable[..., object], line: str
) -> None:
    bad = rewritten(archive, change)
    before = sorted(p for p in tmp_path.rglob("*") if "home" not in p.parts)
    assert line in refused(run, "models", "unbundle", bad)
    assert not any((tmp_path / "home/models").glob("*/*"))
    assert sorted(p for p in tmp_path.rglob("*") if "home" not in p.parts) == before


def forged(archive: Path, changes: dict[str, bytes | None]) -> Path:
    """The archive with other files in its classifier (None: not in it), and their digests in its manifest."""
    with tarfile.open(archive) as good:
        files = {m.name: good.extractfile(m).read() for m in good}
    listed = json.loads(files.pop("bundle.json"))
    files = {name.partition("/")[2]: data for name, data in files.items()} | changes
    files = {name: data for name, data in files.items() if data is not None}
    listed["models"]["virnucpro-500"] = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
    }
    out = archive.with_name("forged.tar")
    with tarfile.open(out, "w") as bad:
        for name, data in [("bundle.json", json.dumps(listed).encode())] + [
            (f"virnucpro-500/{name}", data) for name, data in files.items()
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            bad.addfile(member, io.BytesIO(data))
    return out


@pytest.mark.parametrize(
    ("name", "is_in_manifest"),
    [
        *itertools.product(("golden.json", "evil.sh", "evaluation.sh", ".hidden.json"), (False, True)),
        ("tokenizer.json", False),  # a model may have one, if its manifest says so
    ],
)
def test_only_what_a_bundle_writes_comes_into_the_store(
    run: Run, archive: Path, tmp_path: Path, name: str, is_in_manifest: bool
) -> None:
    """A forged outcome of the self-check would make the doctor say that the model passed."""
    changes: dict[str, bytes | None] = {name: b"{}"}
    if is_in_manifest:
        folder = tmp_path / "made"
        with tarfile.open(archive) as good:
            good.extractall(folder, filter="data")
        folder /= "virnucpro-500"
        (folder / name).write_bytes(b"{}")
        facts = {k: v for k, v in read_manifest(folder).items() if k not in ("files", "seal", "format")}
        write_manifest(folder, [f for f in folder.iterdir() if f.name != "manifest.json"], facts)
        changes["manifest.json"] = (folder / "manifest.json").read_bytes()
    bad = forged(archive, changes)
    line = refused(run, "models", "unbundle", bad)
    assert f"the model virnucpro-500 has a file that it must not have: {name}; carry the archive" in line
    assert not any((tmp_path / "home/models").glob("*/*"))
    run("models", "unbundle", archive)
    there = sorted((tmp_path / "home/models/virnucpro-500").iterdir())
    assert f"must not have: {name}" in refused(run, "models", "unbundle", forged(archive, {name: b"{}"}))
    assert sorted((tmp_path / "home/models/virnucpro-500").iterdir()) == there


def test_a_manifest_that_breaks_a_reader_is_damaged(run: Run, archive: Path, tmp_path: Path) -> None:
    for text in (b"[" * 200_000, b'{"files": {"config.json": {"bytes": 1e400, "sha256": ""}}}'):
        bad = forged(archive, {"manifest.json": text})
        assert "damaged manifest.json" in refused(run, "models", "unbundle", bad)
    assert not any((tmp_path / "home/models").glob("*/*"))


def test_an_archive_within_the_model_that_it_replaces(run: Run, archive: Path, tmp_path: Path) -> None:
    run("models", "unbundle", archive)
    inside = tmp_path / "home/models/virnucpro-500/m.tar"
    shutil.copy(archive, inside)
    assert "m.tar in it is read by this command" in refused(run, "models", "unbundle", "--force", inside)
    line = refused(
        run, "models", "bundle", "virnucpro-500", "--out", inside.with_name("config.json"), "--force"
    )
    assert "which the program keeps for itself" in line


def test_other_archives_and_other_models(run: Run, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.tar").write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    (tmp_path / "text.tar").write_bytes(b"hello")
    for name in ("cut.tar", "text.tar"):
        assert f"{name}: " in refused(run, "models", "unbundle", tmp_path / name)
    assert not any((tmp_path / "home/models").glob("*/*"))
    run("models", "unbundle", archive)
    store = tmp_path / "home/models"
    shutil.rmtree(store / "virnucpro-500")
    stand_in.esm2(store / "virnucpro-500")
    line = refused(run, "models", "unbundle", archive)
    assert "the store has another model virnucpro-500; --force replaces it" in line
    run("models", "unbundle", "--force", archive)
    assert verify(store / "virnucpro-500")["kind"] == "classifier"
    with pytest.raises(UsageError, match="no model is named"):
        run("models", "bundle", "--out", tmp_path / "none.tar")
    assert "esm2-8m is not in the model store" in refused(
        run, "models", "bundle", "esm2-8m", "--out", tmp_path / "n.tar"
    )


def test_what_was_made_for_a_classifier_travels_with_it(
    run: Run, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("models", "fetch", "virnucpro-500", "--from", published, "--no-golden")
    folder = tmp_path / "home/models/virnucpro-500"
    known = load_classifier(folder).fingerprint
    curve = Curve(0, 0, (0.0, 1.0), (-2.0, 2.0))
    Calibration(known, 500, "platt", (curve,), {}).save(folder / "calibration-500.json")
    beside = ("MODEL_CARD.md", "evaluation.html", "evaluation.json", "evaluation.tsv")
    for name in beside:
        (folder / name).write_text(f"of {name}")
    (folder / "notes.txt").write_text("private")
    archive = tmp_path / "models.tar"
    run("models", "bundle", "virnucpro-500", "--out", archive)
    assert run("models", "unbundle", archive).endswith("virnucpro-500 (was there already)\n")

    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path / "other"))
    there = tmp_path / "other/models/virnucpro-500"
    run("models", "unbundle", archive)
    assert {name: (there / name).read_text() for name in beside} == {name: f"of {name}" for name in beside}
    assert not (there / "notes.txt").exists()
    found = find_calibration(there, known, 500)
    assert found is not None
    assert found.curves == (curve,)

    # The same model, but something beside it is missing, is another one, or is not in the archive.
    (there / "MODEL_CARD.md").unlink()
    (there / "calibration-300.json").write_text("mine")
    assert "(MODEL_CARD.md added)" in run("models", "unbundle", archive)
    (there / "calibration-500.json").write_text("mine")
    line = refused(run, "models", "unbundle", archive)
    assert "the model virnucpro-500 is the same, but not calibration-500.json; --force replaces that" in line
    assert (there / "calibration-500.json").read_text() == "mine"
    run("models", "unbundle", "--force", archive)
    assert find_calibration(there, known, 500) == found
    assert (there / "calibration-300.json").read_text() == "mine"

    bad = rewritten(archive, lambda m, d: (m, d.replace(b"of eval", b"xx eval")))
    shutil.rmtree(there)
    assert "evaluation.html does not have the sha256" in refused(run, "models", "unbundle", bad)
    assert not there.exists()


def test_progress_without_a_terminal_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([100.0, 105.0, 110.0, 120.0, 121.0])
    monkeypatch.setattr(transfer.time, "monotonic", lambda: next(clock))
    with transfer.shown_transfer() as on_bytes:
        for done in (0, 10**9, 2 * 10**9, 4 * 10**9, 5 * 10**9):
            on_bytes("a\nb.bin", done, 5 * 10**9)
    assert capsys.readouterr().err.splitlines() == [
        r"a\nb.bin: 2.0 GB of 5.0 GB, 200.0 MB/s, about 15 s left",
        r"a\nb.bin: 4.0 GB of 5.0 GB, 200.0 MB/s, about 5 s left",
        r"a\nb.bin: 5.0 GB of 5.0 GB, 238.1 MB/s",
    ]
