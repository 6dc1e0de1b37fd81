"""Read pickles as data: containers and records are built, nothing is imported or called.

The standard library's unpickler in pure Python does the parsing; the opcodes that make objects are replaced:
- a name that the pickle would import becomes a `Global`,
- an object that it would build becomes an `Unbuilt`, with the arguments it would have been built from,
- a part stored outside the pickle becomes an `External`.
The caller decides what these mean; this module contains nothing about torch.

The faster unpickler in C is not used: it hung on randomly changed pickles. `_Unpickler` and its table of opcodes are
private to the standard library; the tests of this module run every replaced opcode.
"""

import io
import pickle
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from virnucpro_core.errors import WeightsError


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle would have imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Unbuilt:
    """An object that would have been built: `source(*arguments)`, and the state, items and entries added to it."""

    source: Any
    arguments: Any = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)

    def append(self, item: Any) -> None:
        self.items.append(item)

    add = append

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value


@dataclass(frozen=True, eq=False, slots=True)
class External:
    """A part that is stored outside the pickle, with its identity."""

    identity: Any


def read_pickle(data: bytes) -> Any:
    """The object that `data` describes: dicts, lists, tuples, sets, numbers, strings, and the three classes above.

    Raises WeightsError for bytes that are not a pickle.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # an invalid escape in a string
            return _Inert(io.BytesIO(data), encoding="latin1").load()
    except (
        pickle.UnpicklingError,
        AssertionError,
        AttributeError,
        DeprecationWarning,
        EOFError,
        LookupError,
        MemoryError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        raise WeightsError(f"damaged pickle ({type(error).__name__}: {str(error)[:80]})") from error


class _Inert(pickle._Unpickler):
    """An unpickler that never looks up a name and never calls an object of the pickle."""

    stack: list[Any]  # the values above the last mark
    append: Callable[[Any], None]
    read: Callable[[int], bytes]

    def find_class(self, module: str, name: str) -> Any:
        return Global(module, name)

    def persistent_load(self, identity: Any) -> Any:
        return External(identity)

    def get_extension(self, code: int) -> None:
        self.append(Global("copyreg", f"extension {code}"))

    def _instantiate(self, source: Any, arguments: list[Any]) -> None:
        self.append(Unbuilt(source, tuple(arguments)))

    def make(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = Unbuilt(self.stack[-1], arguments)

    def make_with_keywords(self) -> None:
        keywords, arguments = self.stack.pop(), self.stack.pop()
        self.stack[-1] = Unbuilt(self.stack[-1], (arguments, keywords))

    def set_state(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Unbuilt):
            self.stack[-1].state = state

    def byte_array(self) -> None:
        """Replaces the standard method, which allocates as many bytes as the pickle claims before it checks them."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))


def _with_plain_keys(load: Callable[[Any], None], keys: slice) -> Callable[[Any], None]:
    """The opcode `load`, after a check that the keys are plain: hashing deeply nested tuples can take for ever."""

    def checked(unpickler: _Inert) -> None:
        for key in unpickler.stack[keys]:
            if not isinstance(key, str | bytes | int | float | Global | Unbuilt | None):
                raise TypeError(f"a key of type {type(key).__name__}")
        load(unpickler)

    return checked


_STANDARD = pickle._Unpickler.dispatch
_KEYS = {
    pickle.SETITEM: slice(-2, -1),
    pickle.SETITEMS: slice(None, None, 2),
    pickle.DICT: slice(None, None, 2),
    pickle.ADDITEMS: slice(None),
    pickle.FROZENSET: slice(None),
}
_Inert.dispatch = (
    _STANDARD
    | {code[0]: _with_plain_keys(_STANDARD[code[0]], keys) for code, keys in _KEYS.items()}
    | {pickle.REDUCE[0]: _Inert.make, pickle.NEWOBJ[0]: _Inert.make}
    | {pickle.NEWOBJ_EX[0]: _Inert.make_with_keywords, pickle.BUILD[0]: _Inert.set_state}
    | {pickle.BYTEARRAY8[0]: _Inert.byte_array}
)
