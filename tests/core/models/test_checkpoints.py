"""Checkpoint files as data: what torch.save writes comes back, and nothing in a hostile file runs."""

import argparse
import contextlib
import copyreg
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import ROOT
from tests.support.feature_files import flip_a_byte
from virnucpro_core.errors import WeightsError
from virnucpro_core.models.checkpoints import attributes, read_checkpoint
from virnucpro_core.models.inert_pickle import Global, read_pickle


def archive(path: Path, data: bytes, entries: dict[str, bytes] | None = None) -> Path:
    """A torch-like zip around a hand-made pickle."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        file.writestr("archive/data.pkl", data)
        for name, content in (entries or {}).items():
            file.writestr(f"archive/{name}", content)
    return path


def saved_module() -> bytes:
    stream = io.BytesIO()
    torch.save(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)), stream)
    return stream.getvalue()


GOOD_ARCHIVE = saved_module()


# What torch.save writes


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool]
)
def test_state_dict_comes_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    base = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    state = {"whole": base, "turned": base.T, "part": base[2:5, 1:], "scalar": base[0, 0], "none": base[:0]}
    state["tied"] = state["whole"]
    torch.save(state, tmp_path / "x.pt")
    _, found = read_checkpoint(tmp_path / "x.pt")
    assert list(found) == list(state)
    for name, value in state.items():
        assert found[name].dtype == dtype
        assert torch.equal(found[name], value)


def test_nested_model_with_settings(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    settings_ = argparse.Namespace(encoder_layers=4, encoder_embed_dim=64)
    torch.save({"cfg": {"model": settings_}, "model": model.state_dict()}, tmp_path / "x.pt")
    structure, found = read_checkpoint(tmp_path / "x.pt")
    assert attributes(structure["cfg"]["model"]) == {"encoder_layers": 4, "encoder_embed_dim": 64}
    assert torch.equal(found["weight"], model.weight)


def test_whole_module_gives_its_state_dict_in_order(tmp_path: Path) -> None:
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.BatchNorm1d(4))
    module = torch.nn.Sequential(OrderedDict(a=block, b=torch.nn.ReLU(), c=torch.nn.Linear(4, 2)))
    torch.save(module, tmp_path / "x.pth")
    _, found = read_checkpoint(tmp_path / "x.pth")
    expected = module.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_tensors_outlive_and_do_not_change_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(1000)}, path)
    before = path.read_bytes()
    _, found = read_checkpoint(path)
    path.unlink()
    found["a"].add_(1)
    assert found["a"].sum() == 2000
    path.write_bytes(before)
    assert read_checkpoint(path)[1]["a"].sum() == 1000


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.tuples(inner, inner, inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(plain, st.integers(3, 5))
def test_plain_data_reads_as_pickle_reads_it(value: object, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol=protocol)) == value


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutilated_pickles_end_in_one_kind_of_error(data: st.DataObject) -> None:
    good = pickle.dumps({"a": [1, (2, 3)], "b": OrderedDict(x=1.5)}, protocol=data.draw(st.integers(0, 5)))
    place = data.draw(st.integers(0, len(good) - 1))
    bad = good[:place] + data.draw(st.binary(max_size=3)) + good[place + 1 :]
    with contextlib.suppress(WeightsError):
        read_pickle(bad)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_mutilated_archives_end_in_one_kind_of_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    good, path = GOOD_ARCHIVE, tmp_path_factory.getbasetemp() / "mutilated.pt"
    place, cut = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 40))
    path.write_bytes(good[:place] + data.draw(st.binary(max_size=4)) + good[place + cut :])
    with contextlib.suppress(WeightsError):
        for tensor_ in read_checkpoint(path)[1].values():
            tensor_.sum()


# Hostile files


class Shell:
    """What an attacker pickles: unpickling it would create the file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


def command(witness: Path) -> bytes:
    return f"touch {witness}".encode()


def short(text: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text


HOSTILE = {
    "GLOBAL": lambda c: b"cposix\nsystem\n(" + short(c) + b"tR.",
    "STACK_GLOBAL": lambda c: b"\x80\x04" + short(b"posix") + short(b"system") + b"\x93(" + short(c) + b"tR.",
    "INST": lambda c: b"(" + short(c) + b"iposix\nsystem\n.",
    "OBJ": lambda c: b"(cposix\nsystem\n" + short(c) + b"o.",
    "NEWOBJ": lambda c: b"\x80\x02csubprocess\nPopen\n(" + short(c) + b"t\x81.",
    "NEWOBJ_EX": lambda c: (
        b"\x80\x04csubprocess\nPopen\n((" + short(b"sh") + short(b"-c") + short(c) + b"ltt}\x92."
    ),
    "BUILD": lambda c: (
        b"cbuiltins\nexec\n)\x81}(" + short(b"__setstate__") + b"cposix\nsystem\nub" + short(c) + b"b."
    ),
    "BUILD on a container": lambda c: b"}cposix\nsystem\n" + short(c) + b"\x85Rb.",
    "REDUCE of a record": lambda c: (
        b"cbuiltins\ngetattr\ncposix\n__dict__\n" + short(b"system") + b"\x86R" + short(c) + b"\x85R."
    ),
    "append to a record": lambda c: b"cposix\nsystem\n)R" + short(c) + b"a.",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_opcodes_run_nothing(tmp_path: Path, kind: str) -> None:
    witness = tmp_path / "witness"
    path = archive(tmp_path / "x.pth", HOSTILE[kind](command(witness)))
    with pytest.raises(WeightsError, match=r"x\.pth: ") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not witness.exists()


def test_the_hostile_pickles_would_run_if_unpickled(tmp_path: Path) -> None:
    for kind in ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ"):
        witness = tmp_path / kind
        pickle.loads(HOSTILE[kind](command(witness)))
        assert witness.exists(), kind


def test_hostile_object_beside_good_tensors(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    torch.save({"model": {"w": torch.ones(2)}, "extra": Shell(witness)}, tmp_path / "x.pt")
    structure, found = read_checkpoint(tmp_path / "x.pt")
    assert structure["extra"].source == Global("posix", "system")
    assert list(found) == ["w"]
    assert not witness.exists()


def test_hostile_object_in_place_of_a_tensor(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    torch.save({"w": torch.ones(2), "v": Shell(witness)}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="no state dict in it"):
        read_checkpoint(tmp_path / "x.pt")
    module = torch.nn.Linear(2, 2)
    module._parameters["bias"] = Shell(witness)  # type: ignore[assignment]
    torch.save(module, tmp_path / "y.pt")
    with pytest.raises(WeightsError, match=r"'posix.system' is in it where the tensor 'bias' was expected"):
        read_checkpoint(tmp_path / "y.pt")
    assert not witness.exists()


@pytest.mark.parametrize("code", [b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"])
def test_registered_extensions_are_not_looked_up(tmp_path: Path, code: bytes) -> None:
    """A code registered and cached here: the standard unpickler would use it without asking find_class."""
    witness = tmp_path / "witness"
    copyreg.add_extension("posix", "system", 0xF0)
    try:
        assert pickle.loads(b"\x80\x02" + code + b".") is os.system
        found = read_pickle(b"\x80\x02" + code + short(command(witness)) + b"\x85R.")
    finally:
        copyreg.remove_extension("posix", "system", 0xF0)
    assert found.source == Global("copyreg", "extension 240")
    assert not witness.exists()


def test_endless_nesting_costs_nothing(tmp_path: Path) -> None:
    bomb = b"\x80\x02)" + b"2\x86" * 200
    with pytest.raises(WeightsError, match="a key of type tuple"):
        read_pickle(b"\x80\x02}" + bomb[2:] + b"K\x01s.")
    for data in (bomb + b".", bomb + b"Q.", bomb + b"K\x01\x85R."):
        with pytest.raises(WeightsError):
            read_checkpoint(archive(tmp_path / "x.pt", data))
    loop = b"\x80\x02}q\x00" + short(b"model") + b"h\x00s."
    with pytest.raises(WeightsError, match="no state dict"):
        read_checkpoint(archive(tmp_path / "x.pt", loop))


def test_modules_that_contain_themselves(tmp_path: Path) -> None:
    module = torch.nn.Linear(1, 1)
    module._modules["again"] = module
    torch.save(module, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="modules nested more than 32 deep"):
        read_checkpoint(tmp_path / "x.pt")
    for _ in range(25):
        module = torch.nn.Sequential(*[module] * 2) if "again" not in module._modules else torch.nn.Module()
    torch.save(module, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="more than 100,000 modules"):
        read_checkpoint(tmp_path / "x.pt")


def tensor(
    *, key: str = "0", elements: int = 8, offset: int = 0, sizes=(2, 4), strides=(4, 1), kind="FloatStorage"
):
    """The pickle of {'w': tensor} as torch writes it, with numbers of choice."""

    def number(n: int) -> bytes:
        return pickle.dumps(n, 2)[2:-1]

    def group(values) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + short(b"storage") + b"ctorch\n" + kind.encode() + b"\n" + short(key.encode())
    storage += short(b"cpu") + number(elements) + b"tQ"
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + group(sizes) + group(strides)
    return b"\x80\x02}" + short(b"w") + view + b"\x89}tRs."


FLOATS = {"data/0": np.arange(8, dtype=np.float32).tobytes()}


def test_the_hand_made_tensor_reads(tmp_path: Path) -> None:
    _, found = read_checkpoint(archive(tmp_path / "x.pt", tensor(offset=1, sizes=(2, 3)), FLOATS))
    assert found["w"].tolist() == [[1, 2, 3], [5, 6, 7]]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"elements": 9}, "claims 36 bytes, the archive holds 32"),
        ({"elements": 1 << 60}, "claims 4,611,686,018,427,387,904 bytes"),
        ({"elements": -1}, "is not in the archive"),
        ({"key": "7"}, "the storage '7' is not in the archive"),
        ({"key": "../data.pkl"}, "is not in the archive"),
        ({"kind": "QInt8Storage"}, "storage type 'torch.QInt8Storage', which is not supported"),
        ({"offset": 1}, r"shape \(2, 4\) at offset 1 leaves its storage of 8"),
        ({"offset": -1}, "impossible shape and strides"),
        ({"sizes": (1 << 40, 1 << 40)}, "overlap|leaves its storage"),
        ({"sizes": (1 << 40,), "strides": (0,)}, "strides .* overlap"),
        ({"sizes": (2, 4), "strides": (1, 1)}, "strides .* overlap"),
        ({"sizes": (2, 4), "strides": (4, -1)}, "impossible shape"),
        ({"sizes": (2, 4), "strides": (4,)}, "impossible shape"),
        ({"sizes": (2, 4), "strides": (1 << 61, 1)}, "leaves its storage"),
    ],
)
def test_tensors_that_claim_too_much(tmp_path: Path, numbers: dict, message: str) -> None:
    path = archive(tmp_path / "x.pt", tensor(**numbers), FLOATS)
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(path)


def test_archives_that_lie_about_sizes(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pt", tensor(), FLOATS)
    good = path.read_bytes()
    directory = good.rindex(b"PK\x01\x02")
    absurd = struct.pack("<II", 0xFFFFFF00, 0xFFFFFF00)
    path.write_bytes(good[: directory + 20] + absurd + good[directory + 28 :])
    with pytest.raises(
        WeightsError, match=r"entry 'archive/data/0' is compressed or reaches beyond the file"
    ):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\x00" * (80 << 20))
    with pytest.raises(WeightsError, match=r"entry 'archive/data.pkl' is compressed or reaches beyond"):
        read_checkpoint(path)
    archive(path, b"\x00" * (65 << 20))
    with pytest.raises(WeightsError, match="has 68,157,440 bytes, more than any checkpoint needs"):
        read_checkpoint(path)


def test_a_cut_file_is_called_damaged_and_not_older(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1000)}, tmp_path / "x.pt")
    data = (tmp_path / "x.pt").read_bytes()
    for size in (len(data) - 1, len(data) // 2, 4):
        (tmp_path / "x.pt").write_bytes(data[:size])
        with pytest.raises(
            WeightsError, match=r"x\.pt: damaged, or not complete: .*; copy or fetch the file"
        ):
            read_checkpoint(tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"x\.pt: is empty; copy or fetch the file again"):
        read_checkpoint(tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes(b"<html>please log in</html>")
    with pytest.raises(WeightsError, match=r"x\.pt: not a zip archive as torch\.save writes it") as caught:
        read_checkpoint(tmp_path / "x.pt")
    assert "torch.load" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_one_changed_bit_anywhere_is_found_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Law: a file with one changed bit is refused, or its tensors and its structure are those of the good file."""
    path = tmp_path_factory.mktemp("bit") / "x.pt"
    state = {"a": torch.arange(40.0), "b": torch.arange(5)}
    torch.save(state, path)
    damaged = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    with contextlib.suppress(WeightsError):
        found = read_checkpoint(path)[1]
        assert {name: value.tolist() for name, value in found.items()} == {
            name: value.tolist() for name, value in state.items()
        }


def test_a_changed_byte_of_a_tensor_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"w": torch.randn(300, 300), "b": torch.randn(300)}, path)
    name = flip_a_byte(path)
    with pytest.raises(
        WeightsError, match=rf"x\.pth: its entry '{name}' is damaged \(CRC-32 differs\); copy"
    ):
        read_checkpoint(path)


def test_a_file_without_checksums_is_refused(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(WeightsError, match=r"has no checksums of its entries; torch\.save it again, with"):
        read_checkpoint(tmp_path / "x.pt")


def test_legacy_files_are_refused_with_a_remedy(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(
        WeightsError, match=r"x.pt: not a zip archive.*, but an older file; .*weights_only=True"
    ):
        read_checkpoint(tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="no such file"):
        read_checkpoint(tmp_path / "none.pt")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("a.txt", "a")
    with pytest.raises(WeightsError, match=r"0 entries data\.pkl"):
        read_checkpoint(tmp_path / "x.zip")


def test_big_endian_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pt", tensor(), {**FLOATS, "byteorder": b"big"})
    with pytest.raises(WeightsError, match="big-endian"):
        read_checkpoint(path)


def test_reading_imports_nothing(tmp_path: Path) -> None:
    """In a fresh process, a name in the file that could be imported is not."""
    (tmp_path / "landmine.py").write_text("raise SystemExit(77)\n")
    path = archive(tmp_path / "x.pt", b"\x80\x02}" + short(b"a") + b"clandmine\nThing\n)Rs.")
    code = (
        "import pathlib, sys; sys.path.insert(0, str(pathlib.Path(sys.argv[1]).parent))\n"
        "from virnucpro_core.models.checkpoints import read_checkpoint\n"
        "try: read_checkpoint(pathlib.Path(sys.argv[1]))\n"
        "except Exception as e: print(type(e).__name__)\n"
        "print('landmine' in sys.modules)"
    )
    root = ROOT
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.split() == ["WeightsError", "False"]
