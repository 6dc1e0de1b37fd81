"""JSON that somebody else may have written: whatever is wrong with it is a ValueError."""

import json
import math
from typing import Any


def parse_json(text: bytes | str) -> Any:
    """The value of a JSON text. Raises ValueError for all that is none, too deep, or a number that is not finite."""
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def whole_number(value: Any) -> int:
    """The value if it is a whole number from 0. Raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{str(value)[:40]!r} is no whole number")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a finite number")
    return value
