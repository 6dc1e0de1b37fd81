"""The unpickler that builds nothing: every opcode that makes, fills or hashes an object, and bombs of each kind."""

import argparse
import io
import pickle
import struct
import time
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from tests.core.models.test_checkpoints import archive, short
from virnucpro_core.errors import WeightsError
from virnucpro_core.models.checkpoints import read_checkpoint
from virnucpro_core.models.inert_pickle import External, Global, Unbuilt, _Inert, read_pickle

REPLACED = {
    "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", "BYTEARRAY8", "SETITEM", "SETITEMS", "DICT", "ADDITEMS", "FROZENSET",
}  # fmt: skip
# They call a method of the unpickler that is replaced.
BY_METHOD = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4"}
# They move, copy or group what is there, or read a number or a text.
HARMLESS = {
    "MARK", "STOP", "POP", "POP_MARK", "DUP", "PROTO", "FRAME", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT",
    "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST",
    "APPEND", "APPENDS", "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "NEXT_BUFFER",
    "READONLY_BUFFER",
}  # fmt: skip


def test_no_opcode_of_this_python_is_unknown_here() -> None:
    names = {getattr(pickle, name)[0]: name for name in REPLACED | BY_METHOD | HARMLESS}
    assert set(pickle._Unpickler.dispatch) == set(names)
    changed = {code for code, load in _Inert.dispatch.items() if load is not pickle._Unpickler.dispatch[code]}
    assert {names[code] for code in changed} == REPLACED


def test_objects_become_records_of_what_they_would_have_been_built_from() -> None:
    value = argparse.Namespace(a=1, b=OrderedDict(x=2))
    for protocol in range(6):
        found = read_pickle(pickle.dumps(value, protocol))
        assert isinstance(found, Unbuilt)
        state = found.state
        assert state["a"] == 1
        assert state["b"].source == Global("collections", "OrderedDict")
        inner = state["b"].entries or dict(
            state["b"].arguments[0]
        )  # protocols 0 and 1 give its items as an argument
        assert inner == {"x": 2}


def test_what_is_put_into_a_record_stays_beside_it() -> None:
    record = read_pickle(
        b"cx\ny\n)R" + b"(K\x01K\x02eK\x03a" + short(b"k") + b"K\x04s(K\x05K\x06u(K\x07\x90."
    )
    assert (record.items, record.entries) == ([1, 2, 3, 7], {"k": 4, 5: 6})
    chained = read_pickle(b"cx\ny\n)R)R.")  # a record that would have been called
    assert chained.source.source == Global("x", "y")


@pytest.mark.parametrize("data", [b"P12\n.", b"K\x0cQ."])
def test_parts_outside_the_pickle_are_named_not_fetched(data: bytes) -> None:
    found = read_pickle(data)
    assert isinstance(found, External)
    assert str(found.identity) == "12"


NESTED = b")" + b"2\x86" * 200  # a tuple of two tuples of two tuples ...: 2**200 of them to hash
HUGE = struct.pack("<Q", 1 << 50)
BOMBS = {
    "key of SETITEM": b"}" + NESTED + b"K\x01s.",
    "key of SETITEMS": b"}(" + NESTED + b"K\x01u.",
    "key of DICT": b"(" + NESTED + b"K\x01d.",
    "key of a record": b"ccollections\nOrderedDict\n)R" + NESTED + b"K\x01s.",
    "in a set": b"\x8f(" + NESTED + b"\x90.",
    "in a frozenset": b"(" + NESTED + b"\x91.",
    "frozensets of frozensets": b"((K\x01\x91\x91.",
    "bytearray": b"\x96" + HUGE + b".",
    "bytes": b"\x8e" + HUGE + b".",
    "text": b"\x8d" + HUGE + b".",
    "frame": b"\x95" + HUGE + b".",
    "integer": b"\x8b" + struct.pack("<i", (1 << 31) - 1) + b".",
    "decimal": b"I" + b"9" * 1_000_000 + b"\n.",
    "no object": b"0" * 1_000_000,
    "no mark": b"K\x01t.",
    "lost memo": b"r\xff\xff\xff\xff.",
    "marks": b"(" * 1_000_000,
    "no end": b"}" * 1_000_000,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_ends_in_one_clear_error_at_once(kind: str) -> None:
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(WeightsError, match=r"^damaged pickle \(.{1,140}\)$"):
            read_pickle(BOMBS[kind])
        assert tracemalloc.get_traced_memory()[1] < 400_000_000
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 30


def test_a_place_in_the_memo_costs_nothing() -> None:
    assert read_pickle(b"K\x01r\xff\xff\xff\xff.") == 1


def test_parameters_in_parameters_end(tmp_path: Path) -> None:
    """However deep: the tensor in the middle is not one, so it is refused, and no limit of the interpreter is met."""
    depth = 100_000
    data = b"ctorch._utils\n_rebuild_parameter\nq\x000" + b"h\x00" * depth + b"N" + b"\x85R" * depth
    path = archive(tmp_path / "x.pt", b"}" + short(b"w") + data + b"s.")
    with pytest.raises(WeightsError, match="no state dict in it"):
        read_checkpoint(path)


@pytest.mark.parametrize("opcode", [b"K\x01a", b"(K\x01e", b"(K\x01\x90", b"K\x00K\x01s", b"}b"])
def test_nothing_is_done_to_a_tensor_while_the_pickle_is_read(opcode: bytes, tmp_path: Path) -> None:
    """A tensor's own methods (add, __setitem__, __setstate__) would compute, write or make room as the file asks."""
    stream = io.BytesIO()
    torch.save({"w": torch.ones(3)}, stream)
    path = tmp_path / "x.pt"
    path.write_bytes(stream.getvalue())
    assert read_checkpoint(path)[1]["w"].tolist() == [1, 1, 1]
    storage = b"(" + short(b"storage") + b"ctorch\nFloatStorage\n" + short(b"0") + short(b"cpu") + b"K\x03tQ"
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00(K\x03t(K\x01t\x89}tR"
    ones = struct.pack("<3f", 1, 1, 1)
    hostile = archive(path, b"\x80\x02}" + short(b"w") + view + opcode + b"s.", {"data/0": ones})
    assert read_checkpoint(hostile)[1]["w"].tolist() == [1, 1, 1]
