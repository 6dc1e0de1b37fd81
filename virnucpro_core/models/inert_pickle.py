"""Pickles read as data: a small machine that builds containers and records and never imports or calls.

Knows the pickle opcodes (protocols 0 to 5, parsed by the standard library's `pickletools`). A name that a
pickle would import becomes a `Global`, an object that it would build becomes a `Record` of what it would have
been built from. Knows nothing of torch: what the few harmless names mean is the caller's, through `rebuild`.
"""

import pickletools
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
class Record:
    """An object that would have been built: `source(*arguments)`, then `state` and `items` put into it."""

    source: Any
    arguments: Any = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)


Rebuild = Callable[[Global, tuple[Any, ...]], Any]
Persistent = Callable[[Any], Any]

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}
_VALUES = frozenset(
    """INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE
    BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8""".split()  # noqa: SIM905
)
_MARK = object()


def read_pickle(data: bytes, *, rebuild: Rebuild, persistent: Persistent) -> Any:
    """The object that `data` describes, as dicts, lists, tuples, numbers, strings, `Global` and `Record`.

    `rebuild(global, arguments)` stands in for every call of a name (return a `Record` for what is not known);
    `persistent(id)` for external parts. Raises WeightsError for bytes that are no pickle.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # an escape that no string literal has
            return _Machine(rebuild, persistent).run(data)
    except WeightsError:
        raise
    except (
        DeprecationWarning,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise WeightsError(f"damaged pickle ({type(error).__name__}: {str(error)[:80]})") from error


class _Machine:
    """One run over the opcodes; each `do_` method is the inert meaning of one opcode or family."""

    def __init__(self, rebuild: Rebuild, persistent: Persistent) -> None:
        self.rebuild, self.persistent = rebuild, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _EMPTY:
                self.stack.append(_EMPTY[name]())
            elif name in _VALUES:
                self.stack.append(argument)
            elif name not in ("PROTO", "FRAME"):
                action = getattr(self, f"do_{name.lower()}", None)
                if action is None:
                    raise WeightsError(f"the pickle uses the opcode {name}, which no checkpoint needs")
                action(argument)
        raise ValueError("no end")

    def to_mark(self) -> list[Any]:
        """Pop everything above the last mark, and the mark."""
        place = max(i for i, value in enumerate(self.stack) if value is _MARK)
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def call(self, source: Any, arguments: Any) -> None:
        if isinstance(source, Global) and isinstance(arguments, tuple):
            self.stack.append(self.rebuild(source, arguments))
        else:
            self.stack.append(Record(source, arguments))

    # Marks, memo and plain stack moves.
    def do_mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def do_pop(self, _: Any) -> None:
        self.stack.pop()

    def do_pop_mark(self, _: Any) -> None:
        self.to_mark()

    def do_dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def do_put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    do_binput = do_long_binput = do_put

    def do_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_get(self, place: int) -> None:
        self.stack.append(self.memo[place])

    do_binget = do_long_binget = do_get

    # Containers.
    def do_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.to_mark()))

    def do_tuple1(self, _: Any) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def do_tuple2(self, _: Any) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def do_tuple3(self, _: Any) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def do_list(self, _: Any) -> None:
        self.stack.append(self.to_mark())

    def do_dict(self, _: Any) -> None:
        self.stack.append(_dict(self.to_mark()))

    def do_frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(map(_key, self.to_mark())))

    def do_append(self, _: Any) -> None:
        self.put_in([self.stack.pop()])

    def do_appends(self, _: Any) -> None:
        self.put_in(self.to_mark())

    do_additems = do_appends

    def do_setitem(self, _: Any) -> None:
        self.stack[-2:] = [_MARK, *self.stack[-2:]]
        self.do_setitems(None)

    def do_setitems(self, _: Any) -> None:
        pairs = _dict(self.to_mark())
        target = self.stack[-1]
        if isinstance(target, Record):
            target.items.extend(pairs.items())
        elif isinstance(target, dict):
            target.update(pairs)
        else:
            raise TypeError(f"keys put into {type(target).__name__}")

    def put_in(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Record):
            target.items.extend(values)
        elif isinstance(target, set):
            target.update(map(_key, values))
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise TypeError(f"items put into {type(target).__name__}")

    # Names and objects: nothing is looked up, nothing is called.
    def do_global(self, text: str) -> None:
        module, name = text.split(" ", 1)
        self.stack.append(Global(module, name))

    def do_stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(Global(str(module), str(name)))

    def do_ext1(self, code: int) -> None:
        self.stack.append(Global("copyreg", f"extension {code}"))

    do_ext2 = do_ext4 = do_ext1

    def do_reduce(self, _: Any) -> None:
        arguments, source = self.stack.pop(), self.stack.pop()
        self.call(source, arguments)

    def do_newobj(self, _: Any) -> None:
        arguments, source = self.stack.pop(), self.stack.pop()
        self.stack.append(Record(source, arguments))

    def do_newobj_ex(self, _: Any) -> None:
        keywords, arguments, source = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append(Record(source, (arguments, keywords)))

    def do_inst(self, text: str) -> None:
        module, name = text.split(" ", 1)
        self.stack.append(Record(Global(module, name), tuple(self.to_mark())))

    def do_obj(self, _: Any) -> None:
        source, *arguments = self.to_mark()
        self.stack.append(Record(source, tuple(arguments)))

    def do_build(self, _: Any) -> None:
        """State of a record is kept; that of a plain container (an OrderedDict's `_metadata`) is dropped."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Record):
            target.state = state

    def do_persid(self, text: str) -> None:
        self.stack.append(self.persistent(text))

    def do_binpersid(self, _: Any) -> None:
        self.stack.append(self.persistent(self.stack.pop()))


def _dict(values: list[Any]) -> dict[Any, Any]:
    return {_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}


def _key(value: Any) -> Any:
    """Plain keys only: hashing a tuple of tuples of tuples can take for ever."""
    if not isinstance(value, str | bytes | int | float | Global | Record | None):
        raise TypeError(f"a key of type {type(value).__name__}")
    return value
