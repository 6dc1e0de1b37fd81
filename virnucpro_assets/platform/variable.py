"""What is known of one environment variable: a row of the table in `environment`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

# Settings that the configuration file may hold beside those of samples, with their types.
IN_FILE: dict[str, Any] = {
    "gpus": int,
    "device": Literal["cuda", "cpu"],
    "attention": str,
    "token_budget": int,
    "workers": int,
    "executor": Literal["in_process", "slurm", "ray", "kubernetes"],
    "leases": str,
    "inbox_stable_seconds": float,
    "keep": Literal["all", "scores", "results"],
    "keep_days": float,
    "time_zone": str,
    "url_prefix": str,
}


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
