"""Predicts which sequences are viral, on GPUs or a CPU. This package does not need Dagster.

The names below are the public API; docs/api.md shows an example of ten lines. Each name is imported when it is first
used, so `import virnucpro_core` imports neither torch nor pandas.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from virnucpro_core.api import (
        Calls,
        Chunk,
        Frame,
        RecordCall,
        call_records,
        cut,
        read_records,
        read_results,
        translate,
        write_results,
    )
    from virnucpro_core.encoders.encoder import Encoder, load_encoder
    from virnucpro_core.models.classifier import Classifier, load_classifier
    from virnucpro_core.models.profiles import find_models
    from virnucpro_core.sequences.fasta import Record


__version__ = "0.1.0"

__all__ = [
    "Calls",
    "Chunk",
    "Classifier",
    "Encoder",
    "Frame",
    "Record",
    "RecordCall",
    "__version__",
    "call_records",
    "cut",
    "find_models",
    "load_classifier",
    "load_encoder",
    "read_records",
    "read_results",
    "translate",
    "write_results",
]

_ELSEWHERE = {
    "Encoder": "virnucpro_core.encoders.encoder",
    "load_encoder": "virnucpro_core.encoders.encoder",
    "Classifier": "virnucpro_core.models.classifier",
    "load_classifier": "virnucpro_core.models.classifier",
    "find_models": "virnucpro_core.models.profiles",
    "Record": "virnucpro_core.sequences.fasta",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: Any = getattr(importlib.import_module(_ELSEWHERE.get(name, "virnucpro_core.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
