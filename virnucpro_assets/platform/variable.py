"""What is known of one environment variable, a row of the table in `environment`, and how its text is read."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable.

    setting: the setting's name; "" if the variable is only read where it is used. kind: the type of its value in the
    configuration file, None if the file cannot hold it. of_samples: it is a field of `SampleSettings`, and the option
    of `predict` says its meaning and default. meaning, default: the text of its row in docs/operations.md. read:
    returns the value that holds, from the environment, the configuration file or the default; raises UsageError.
    """

    name: str
    setting: str
    meaning: str
    default: str
    read: Callable[[], Any]
    kind: Any = None
    of_samples: bool = False

    @property
    def key(self) -> str:
        """Its name in the configuration file; "" if the file cannot hold it."""
        return self.setting.replace("_", "-") if self.kind is not None else ""


def choice(*known: str) -> Callable[[str], str]:
    """Read one of the known words; the first one is the default. Raises ValueError that says what to give."""

    def parse(text: str) -> str:
        if text and text not in known:
            raise ValueError(f"give one of {', '.join(filter(None, known))}")
        return text or known[0]

    return parse


def number(default: int, least: int = 0) -> Callable[[str], int]:
    """Read a whole number. Raises ValueError that says what to give."""

    def parse(text: str) -> int:
        try:
            value = int(text or default)
        except ValueError:
            value = least - 1
        if value < least:
            raise ValueError(f"give a whole number, {least} or more")
        return value

    return parse


def seconds_or_days(default: float) -> Callable[[str], float]:
    """Read a number, 0 or more. Raises ValueError that says what to give."""

    def parse(text: str) -> float:
        try:
            value = float(text or default)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise ValueError("give a number, 0 or more")
        return value

    return parse
