"""Reads a setting of a sample that is written as text: in a cell of a sample sheet, or in an environment variable."""

import os
import re
from pathlib import Path
from typing import Any, get_args

from virnucpro_core.errors import UsageError, printable
from virnucpro_core.samples.settings import FOLDERS, PATHS, SampleSettings

_KINDS = {bool: "yes or no", int: "a whole number", float: "a number"}
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def setting_from_text(name: str, text: str, folder: Path, called: str = "") -> Any:
    """The value of the setting `name`. A path is made absolute; a relative one is below `folder`.

    called: what the person who wrote it calls the setting, if that is not its name. Raises UsageError, which calls it
    so, for text that is not a value of this setting.
    """
    called = called or name
    if name in PATHS:
        return _path(name, text, folder, called)
    value = _value(name, text, called)
    try:
        SampleSettings(**{name: value})
    except UsageError as error:
        raise UsageError(error.what.replace(name, called, 1), remedy=error.remedy) from None
    return value


def no_path(text: str) -> str:
    """Why a text cannot be a path on this machine; "" if it can."""
    if "\0" in text:
        return "a path cannot hold the character NUL"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return f"{printable(text)} is an address, not a path; fetch the file first and give its path"
    return ""


def _value(name: str, text: str, called: str) -> Any:
    hint = SampleSettings.__dataclass_fields__[name].type
    kinds = {hint, *get_args(hint)}
    for kind, wanted in _KINDS.items():
        if kind in kinds:
            try:
                return _BOOLEANS[text.lower()] if kind is bool else kind(text)
            except (KeyError, ValueError):
                raise UsageError(f"{called} is {text!r}", remedy=f"give {wanted}") from None
    return text


def _path(name: str, text: str, folder: Path, called: str) -> str:
    if text == PATHS[name]:
        return text
    if what := no_path(text):
        raise UsageError(f"{called}: {what}")
    place = Path(os.path.realpath(folder / os.path.expanduser(text)))  # noqa: PTH111 - raises for no unknown user
    if not place.exists():
        raise UsageError(f"{called}: no such folder or file: {printable(str(place))}")
    if place.is_dir() != (name in FOLDERS):
        wanted = "a folder" if name in FOLDERS else "a file"
        raise UsageError(f"{called}: {printable(str(place))} is not {wanted}", remedy=f"give {wanted}")
    return str(place)
