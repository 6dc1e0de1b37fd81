"""The settings of a sample: everything its results depend on, apart from its sequences."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from virnucpro_core.errors import UsageError


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """Everything the results of a sample depend on, apart from its sequences.

    chunk_size: in bases. shard_rows: unique frames per shard, at most 10,000. cutoff: least score of a record that is
    called virus. calibration: file of a calibration, "" for the one beside the classifier, "none" for none. prior:
    the share of virus records, None to estimate it. preset: call by the expected false discovery rate instead of the
    cut-off.
    """

    profile: str = "esm2-3b"
    chunk_size: int = 500
    classifier: str = ""
    duplicates: Literal["refuse", "rename"] = "refuse"
    overlong: Literal["truncate", "isolate"] = "truncate"
    precision: Literal["float32", "float16", "fp8"] = "float32"
    cutoff: float = 0.5
    shard_rows: int = 10_000
    calibration: str = ""
    prior: float | None = None
    preset: Literal["", "conservative", "relaxed"] = ""

    def __post_init__(self) -> None:
        """Raises UsageError that names the setting and its range."""
        ranges = {
            "chunk_size": (6 <= self.chunk_size <= 1_000_000, "6 to 1,000,000 bases"),
            "cutoff": (0.0 <= self.cutoff <= 1.0, "0 to 1"),
            "shard_rows": (1 <= self.shard_rows <= 10_000, "1 to 10,000 rows"),
            "duplicates": (self.duplicates in ("refuse", "rename"), "refuse or rename"),
            "overlong": (self.overlong in ("truncate", "isolate"), "truncate or isolate"),
            "prior": (self.prior is None or 0.0 < self.prior < 1.0, "a share between 0 and 1, such as 0.1"),
            "preset": (self.preset in ("", "conservative", "relaxed"), "conservative or relaxed"),
            "precision": (self.precision in ("float32", "float16", "fp8"), "float32, float16 or fp8"),
        }
        for name, (good, allowed) in ranges.items():
            if not good:
                raise UsageError(f"{name} is {getattr(self, name)!r}", remedy=f"give {allowed}")


def shown_settings(settings: SampleSettings) -> dict[str, Any]:
    """The settings as they are written to `run.json`: without empty ones."""
    return {name: value for name, value in asdict(settings).items() if value not in ("", None)}
