"""What is known of one environment variable: a row of the table in `environment`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable.

    setting: the name of the platform's setting; "" if the variable is not passed on to steps on other machines.
    meaning, default: the text of its row in docs/operations.md. read: returns the setting's value, from the environment
    or the default; raises UsageError.
    """

    name: str
    setting: str
    meaning: str
    default: str
    read: Callable[[], Any]
