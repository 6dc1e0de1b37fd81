"""Read settings from a small TOML file: the inbox's, and the configuration file of the command line.

    # virnucpro.toml
    profile = "demo"
    chunk-size = 300
    classifier = "models/ours"      # relative to the folder of this file

A key is the name of a `predict` option without its dashes. What the file does not name, it does not decide.
"""

import difflib
import json
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from virnucpro_core.errors import InputError, UsageError, one_line, printable
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.samples.combined import check_exclusive
from virnucpro_core.samples.settings import PATHS, SampleSettings

NAME = "virnucpro.toml"
# A settings file has a few lines. Anything larger is another file under this name.
MOST_BYTES = 100_000


def read_settings_file(path: Path, also: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """The settings that the file names, as name -> checked value, with `_` in the names.

    also: more keys that the caller knows, as name -> type (such as `int`, or a `Literal` of words). Paths are absolute.
    Raises InputError, in one line that names the file and the key, for a file that is not TOML, an unknown key or a
    wrong value; StoreError if the file cannot be read.
    """
    hints = typing.get_type_hints(SampleSettings)
    known = {field.name: hints[field.name] for field in fields(SampleSettings)} | dict(also or {})
    found: dict[str, Any] = {}
    for written, value in _table(path).items():
        name = written.replace("-", "_")
        if isinstance(value, dict):
            what = f"[{printable(written)}] is a section, and this file has none"
            raise InputError(
                what, path=path, remedy="write the settings without it, such as chunk-size = 300"
            )
        if name not in known:
            raise InputError(
                f"unknown setting {printable(written)!r}", path=path, remedy=_nearest(name, known)
            )
        if name in found:
            raise InputError(f"the setting {_option(name)} is given twice", path=path, remedy="give it once")
        found[name] = _checked(path, name, value, known[name])
    try:
        for name in found.keys() & set(hints):
            SampleSettings(**{name: found[name]})
        check_exclusive(found, lambda name, value: f"{_option(name)} = {json.dumps(value)}")
    except UsageError as error:
        raise InputError(error.what, path=path, remedy=error.remedy) from None
    return found


def _table(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError("no such file", path=path, remedy="check the path")
    if not path.is_file():
        raise InputError("not a file", path=path, remedy="write the settings into a file of this name")
    with disk_errors(path):
        if path.stat().st_size > MOST_BYTES:
            raise InputError(
                "is too large for a file of settings", path=path, remedy="give a few lines of TOML"
            )
        text = path.read_bytes()
    try:
        return tomllib.loads(text.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        what = one_line("", f"is not TOML: {error}", "")
        raise InputError(
            what, path=path, remedy='write lines such as chunk-size = 300 or profile = "demo"'
        ) from None


def _checked(path: Path, name: str, value: Any, hint: Any) -> Any:
    kinds = typing.get_args(hint) if NoneType in typing.get_args(hint) else (hint,)
    for kind in kinds:
        if typing.get_origin(kind) is Literal and value in typing.get_args(kind) and isinstance(value, str):
            return value
        if kind is float and type(value) in (int, float):
            return float(value)
        if kind in (int, str, bool) and type(value) is kind:
            return _absolute(path, name, value) if name in PATHS else value
    example = f"{_option(name)} = {_example(kinds[0])}"
    raise InputError(f"{_option(name)} is {printable(repr(value))}", path=path, remedy=f"write {example}")


def _example(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(f'"{word}"' for word in typing.get_args(kind) if word)
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, '"text in quotes"')


def _absolute(path: Path, name: str, value: str) -> str:
    """A path that the file gives, relative to the file's folder. "" and the setting's own word stay as they are."""
    if value in ("", PATHS[name]):
        return value
    found = (path.parent / Path(value).expanduser()).resolve()
    if not found.exists():
        raise InputError(f"{_option(name)} names {printable(str(found))}, which does not exist", path=path)
    return str(found)


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"do you mean {_option(near[0])}?"
    return f"known settings: {', '.join(sorted(map(_option, known)))}"


def _option(name: str) -> str:
    return name.replace("_", "-")
