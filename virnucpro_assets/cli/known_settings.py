"""All settings as one table: what a setting is called as an option, in the configuration file and as a variable.

Made from the variables (`platform/environment.py`) and the options of `predict`. Nothing is listed here. `virnucpro
config` and the table in docs/operations.md show it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import click

from virnucpro_assets.cli.places import PLACES
from virnucpro_assets.cli.predict import predict
from virnucpro_assets.platform.environment import VARIABLES
from virnucpro_assets.platform.variable import Variable

_HELP = re.compile(r"(?P<meaning>.*?)(?:\s*\[default: (?P<default>.*)\])?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Known:
    """One setting. options: of `predict`, such as `--chunk-size`; () for none. default, meaning: in words."""

    variable: Variable
    options: tuple[str, ...]
    default: str
    meaning: str


def known_settings() -> Iterator[Known]:
    """Every setting, in the order of the variables."""
    options = {param.name: param for param in predict.params if isinstance(param, click.Option)}
    for variable in VARIABLES:
        # `preset` has no option of its name: --conservative and --relaxed are its values.
        own = [options[name] for name in (variable.setting, *get_args(variable.kind)) if name in options]
        names = tuple(option.opts[0] for option in own) or PLACES.get(variable.name, ())
        default, meaning = variable.default, variable.meaning
        if variable.of_samples:
            texts = [found for option in own if (found := _HELP.fullmatch(option.help or ""))]
            default = next((text["default"] for text in texts if text["default"]), "none")
            words = [f"`{option.name}`: " if len(own) > 1 else "" for option in own]
            meaning = " ".join(word + text["meaning"] for word, text in zip(words, texts, strict=True))
        yield Known(variable, names, default, meaning)


def table() -> str:
    """The settings as a table in Markdown."""
    lines = ["| option | key | variable | default | meaning |", "|---|---|---|---|---|"]
    for one in known_settings():
        names = ", ".join(f"`{name}`" for name in one.options)
        key = f"`{one.variable.key}`" if one.variable.key else ""
        lines.append(f"| {names} | {key} | `{one.variable.name}` | {one.default} | {one.meaning} |")
    return "\n".join(lines) + "\n"
