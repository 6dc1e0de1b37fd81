"""The settings of a sample: everything its results depend on, apart from its sequences."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import PurePath
from typing import Any, Literal

from virnucpro_core.errors import UsageError
from virnucpro_core.sequences.record import ReadOptions

# Settings that are a path, and the word that such a setting may hold instead ("" for none).
PATHS: Mapping[str, str] = {"classifier": "", "calibration": "none"}
# Those of them that are folders. The others are files.
FOLDERS = ("classifier",)
# Settings that only the encoders use: they do not matter for a sample with imported embeddings.
OF_ENCODERS = ("precision", "overlong")
# Settings that only the last step uses, in seconds. All others make a variant of the sample, with work of its own.
OF_RESULTS = ("cutoff", "calibration", "prior", "preset", "pairs", "region_min_length", "region_min_support")


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """Everything the results of a sample depend on, apart from its sequences.

    chunk_size: in bases. shard_rows: unique frames per shard, at most 10,000. cutoff: least score of a record that is
    called virus. interleaved, unmapped_only, min_length (bases): as `ReadOptions` has them. pairs: whether a pair of
    reads counts as virus if any of its mates is called virus, or only if both are. calibration: file of a calibration,
    "" for the one beside the classifier, "none" for none. prior: the share of virus records, None to estimate it.
    preset: call by the expected false discovery rate instead of the cut-off. region_min_length: least bases of a viral
    region; region_min_support: its least number of chunks called virus. frames: "open" to score also the chunks without
    a stop-free frame, by stretches between stops of at least `min_open` amino acids (`sequences.translation`).
    """

    profile: str = "esm2-3b"
    chunk_size: int = 500
    classifier: str = ""
    duplicates: Literal["refuse", "rename"] = "refuse"
    overlong: Literal["truncate", "isolate"] = "truncate"
    precision: Literal["float32", "float16", "fp8"] = "float32"
    cutoff: float = 0.5
    shard_rows: int = 10_000
    interleaved: bool = False
    unmapped_only: bool = False
    min_length: int = 0
    pairs: Literal["any", "both"] = "any"
    region_min_length: int = 0
    region_min_support: int = 1
    calibration: str = ""
    prior: float | None = None
    preset: Literal["", "conservative", "relaxed"] = ""
    frames: Literal["full", "open"] = "full"
    min_open: int = 30

    def __post_init__(self) -> None:
        """Raises UsageError that names the setting and its range."""
        ranges = {
            "chunk_size": (6 <= self.chunk_size <= 1_000_000, "6 to 1,000,000 bases"),
            "cutoff": (0.0 <= self.cutoff <= 1.0, "0 to 1"),
            "shard_rows": (1 <= self.shard_rows <= 10_000, "1 to 10,000 rows"),
            "duplicates": (self.duplicates in ("refuse", "rename"), "refuse or rename"),
            "overlong": (self.overlong in ("truncate", "isolate"), "truncate or isolate"),
            "min_length": (self.min_length >= 0, "0 or more bases"),
            "region_min_length": (self.region_min_length >= 0, "0 bases or more"),
            "region_min_support": (self.region_min_support >= 0, "0 chunks or more"),
            "pairs": (self.pairs in ("any", "both"), "any or both"),
            "prior": (self.prior is None or 0.0 < self.prior < 1.0, "a share between 0 and 1, such as 0.1"),
            "preset": (self.preset in ("", "conservative", "relaxed"), "conservative or relaxed"),
            "frames": (self.frames in ("full", "open"), "full or open"),
            "min_open": (1 <= self.min_open <= 333_333, "1 to 333,333 amino acids"),
            "precision": (self.precision in ("float32", "float16", "fp8"), "float32, float16 or fp8"),
        }
        for name, (good, allowed) in ranges.items():
            if not good:
                raise UsageError(f"{name} is {getattr(self, name)!r}", remedy=f"give {allowed}")

    @property
    def reading(self) -> ReadOptions:
        """What is read of the files, and how."""
        return ReadOptions(self.interleaved, self.unmapped_only, self.min_length)

    @property
    def open_length(self) -> int:
        """Least amino acids of an open frame; 0 if chunks without a stop-free frame have no score."""
        return self.min_open if self.frames == "open" else 0


# Settings that are shown only where somebody has set them.
_QUIET = (
    "interleaved",
    "unmapped_only",
    "min_length",
    "pairs",
    "region_min_length",
    "region_min_support",
    "frames",
)


def shown_settings(settings: SampleSettings) -> dict[str, Any]:
    """The settings as they are written to `run.json`: without empty ones, and without those of `_QUIET` as they are."""
    default = SampleSettings()
    return {
        name: value
        for name, value in asdict(settings).items()
        if value not in ("", None)
        and not (name in _QUIET and value == getattr(default, name))
        and not (name == "min_open" and not settings.open_length)
    }


def settings_in_words(settings: SampleSettings) -> str:
    """One line such as `300 demo float32`: chunk size, profile, precision, and what else is not the default."""
    usual = SampleSettings()
    words = [str(settings.chunk_size), settings.profile, settings.precision]
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name == "min_open" and not settings.open_length:
            continue
        if field.name not in ("chunk_size", "profile", "precision") and value != getattr(usual, field.name):
            words.append(field.name if value is True else f"{field.name}={_short(field.name, value)}")
    return " ".join(words)


# What it means that such a setting is empty.
_EMPTY = {
    "classifier": "the profile's classifier",
    "calibration": "the classifier's calibration",
    "prior": "the prior is estimated",
    "preset": "no preset",
}


def setting_in_words(name: str, value: Any) -> str:
    """One setting for a person: `chunk size 300`, `interleaved`, `not interleaved`, `classifier models/ours`."""
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"not {words}"
    return _EMPTY[name] if value in ("", None) else f"{words} {_short(name, value)}"


def _short(name: str, value: Any) -> Any:
    """The end of a path: `classifier/calibration-300.json`. A whole path would not fit into a table."""
    return "/".join(PurePath(value).parts[-2:]) if name in PATHS else value


def differing(one: SampleSettings, other: SampleSettings, also: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of the settings, other than OF_RESULTS, whose values differ. The chunk size comes first.

    also: those of OF_RESULTS that are compared, too. `min_open` differs only if both have open frames, or if it is not
    the default beside frames that differ.
    """
    names = ["chunk_size", *(field.name for field in fields(one) if field.name != "chunk_size")]
    left_out = set(OF_RESULTS) - set(also)
    found = [n for n in names if n not in left_out and getattr(one, n) != getattr(other, n)]
    lengths = {one.open_length, other.open_length}
    if "min_open" in found and (len(lengths) == 1 or lengths == {0, SampleSettings().min_open}):
        found.remove("min_open")
    return tuple(found)
