"""The folder of one sample: its inputs, its settings and where each product lies.

Knows names and paths only; reads and writes nothing but `sample.json`, which is sealed by its own sha256.
"""

import contextlib
import json
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from virnucpro_core.errors import StoreError, UsageError, VirnucproError
from virnucpro_core.files.digests import sha256_json
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.files.publish import publish_json
from virnucpro_core.samples import index
from virnucpro_core.samples.inputs import InputFile, content_digest, digest_inputs
from virnucpro_core.samples.occupancy import exclusive_lock
from virnucpro_core.sequences.chunks import Chunks

KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FORMAT = 2
SMALL_BYTES = 16_000_000
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """What the numbers of a sample depend on, beside its sequences.

    chunk_size: bases; shard_rows: unique frames a shard, at most 10,000; cutoff: of the record's score.
    """

    profile: str = "esm2-3b"
    chunk_size: int = 500
    classifier: str = ""
    duplicates: Literal["refuse", "rename"] = "refuse"
    overlong: Literal["truncate", "isolate"] = "truncate"
    precision: Literal["float32", "float16", "fp8"] = "float32"
    cutoff: float = 0.5
    shard_rows: int = 10_000

    def __post_init__(self) -> None:
        """Raises UsageError that names the setting and its range."""
        ranges = {
            "chunk_size": (6 <= self.chunk_size <= 1_000_000, "6 to 1,000,000 bases"),
            "cutoff": (0.0 <= self.cutoff <= 1.0, "0 to 1"),
            "shard_rows": (1 <= self.shard_rows <= 10_000, "1 to 10,000 rows"),
            "duplicates": (self.duplicates in ("refuse", "rename"), "refuse or rename"),
            "overlong": (self.overlong in ("truncate", "isolate"), "truncate or isolate"),
            "precision": (self.precision in ("float32", "float16", "fp8"), "float32, float16 or fp8"),
        }
        for name, (good, allowed) in ranges.items():
            if not good:
                raise UsageError(f"{name} is {getattr(self, name)!r}", remedy=f"give {allowed}")


@dataclass(frozen=True, slots=True)
class Sample:
    """A registered sample. `folder` holds every product; names below are the only place that spells them."""

    name: str
    folder: Path
    inputs: tuple[InputFile, ...]
    settings: SampleSettings

    @property
    def content(self) -> str:
        """sha256 over the inputs' digests: the same data under any path is the same content."""
        return content_digest(self.inputs)

    @property
    def bytes(self) -> int:
        """Of all inputs, as they are on disk."""
        return sum(f.bytes for f in self.inputs)

    @property
    def is_small(self) -> bool:
        """Whether it is computed in less time than a model loads, so that it better shares one with others."""
        return self.bytes <= SMALL_BYTES

    @property
    def chunks(self) -> Path:
        return self.folder / "chunks"

    @property
    def translations(self) -> Path:
        return self.folder / "translations"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def rejected(self) -> Path:
        """Written when the inputs were refused: the reason, so that nobody tries the same bytes again."""
        return self.folder / "rejected.json"

    def product(self, name: str) -> Path:
        """Folder of a sharded product: `dnabert_embeddings`, `esm_embeddings`, ..."""
        return self.folder / name

    def telemetry(self, product: str, rank: int) -> Path:
        return self.folder / "telemetry" / f"{product}-{rank}.jsonl"

    def claims(self, product: str) -> Path:
        """The file on which lanes claim the product's shards."""
        return self.folder / "locks" / f"{product}.claims"

    def lock(self, name: str) -> Path:
        return self.folder / "locks" / f"{name}.lock"


def check_key(name: str) -> str:
    """The sample's name, if it is fit for a partition key and a folder; else UsageError."""
    if not KEY.fullmatch(name):
        raise UsageError(
            f"{name[:80]!r} is not a sample name",
            remedy="use 1 to 64 letters, digits, '_' and '-' (--sample NAME)",
        )
    return name


def register(
    home: Path, name: str, paths: Sequence[Path], settings: SampleSettings, *, fresh: bool = False
) -> Sample:
    """Write `sample.json`; products that no longer fit new settings are noticed by their fingerprints.

    Raises UsageError if the name stands for other sequences already and `fresh` is false, StoreError naming the
    holder if there is something to change while a process works on the sample.
    """
    folder = home / "samples" / check_key(name)
    inputs = digest_inputs(paths)
    sample = Sample(name, folder, inputs, settings)
    with disk_errors(folder):
        if fresh and folder.exists():
            discard(folder)
        is_new = not (folder / "sample.json").exists()
    known = None if is_new else _known(home, sample)
    if known is not None:
        if known.content != sample.content:
            raise UsageError(
                f"sample {name!r} already stands for other sequences ({known.inputs[0].path.name})",
                where=folder,
                remedy="give --sample OTHER_NAME, or --fresh to discard the old one",
            )
        if known == sample:
            return known
    facts = {
        "format": _FORMAT,
        "name": name,
        "inputs": [asdict(f) | {"path": str(f.path)} for f in inputs],
        "settings": asdict(settings),
    }
    changing = exclusive_lock(folder, f"sample {name!r} cannot take other settings, a process works on it")
    with contextlib.nullcontext() if is_new else changing:
        publish_json(folder / "sample.json", facts | {"seal": sha256_json(facts)})
    _make_index(home)
    index.note(home, sample.content, name)
    return sample


def discard(folder: Path) -> None:
    """Delete all of a sample's folder but its locks, held meanwhile. Raises StoreError if one is not free.

    `sample.json` goes first: what is left of a folder without it is no sample.
    """
    with exclusive_lock(folder, f"sample {folder.name!r} cannot be discarded, a process works on it"):
        (folder / "sample.json").unlink(missing_ok=True)
        for entry in folder.iterdir():
            if entry.is_dir() and entry.name != "locks":
                shutil.rmtree(entry)
            elif not entry.is_dir():
                entry.unlink()


def remove_sample(home: Path, name: str) -> None:
    """Delete the sample's folder, or what an earlier attempt left of it. Raises StoreError if it is worked on."""
    folder = home / "samples" / check_key(name)
    with disk_errors(folder):
        if folder.is_dir():
            discard(folder)
            # Whoever waits for a lock that is deleted notices it and asks for a new one.
            with exclusive_lock(folder, f"sample {name!r} cannot be removed, a process works on it"):
                shutil.rmtree(folder)


def _known(home: Path, sample: Sample) -> Sample | None:
    """The sample as it was registered; None where `sample.json` is damaged, but its chunks are of these inputs.

    Then it can be written anew without a doubt whose products lie there. Raises StoreError otherwise.
    """
    try:
        return open_sample(home, sample.name)
    except StoreError as error:
        with contextlib.suppress(StoreError):
            files = Chunks.open(sample.chunks).attrs["files"]
            if [f["sha256"] for f in files] == [f.sha256 for f in sample.inputs]:
                log.warning("%s: written anew, the sample's chunks are of the same input", error)
                return None
        raise


def open_sample(home: Path, name: str) -> Sample:
    """The sample as registered; UsageError if there is none, StoreError if `sample.json` is damaged."""
    folder = home / "samples" / check_key(name)
    file = folder / "sample.json"
    with disk_errors(file):
        text = file.read_bytes() if file.exists() else None
    if text is None:
        raise UsageError(
            f"sample {name!r} is not known",
            where=home,
            remedy="register it with `virnucpro predict FILE`, or drop its file into the inbox",
        )
    try:
        raw: dict[str, Any] = json.loads(text)
        if raw.pop("seal", "") != sha256_json(raw) or raw["format"] != _FORMAT:
            raise ValueError("it does not agree with its seal")
        inputs = tuple(InputFile(Path(f["path"]), int(f["bytes"]), str(f["sha256"])) for f in raw["inputs"])
        settings = replace(SampleSettings(), **raw["settings"])
        named = raw["name"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = (
            f"run `virnucpro predict FILE --sample {name}` with the same file; --fresh discards the sample"
        )
        raise StoreError(f"damaged ({error})", where=file, remedy=remedy) from error
    if named != name or not inputs:
        raise StoreError("damaged: it describes another sample", where=file, remedy="run with --fresh")
    return Sample(name, folder, inputs, settings)


def read_refusal(sample: Sample) -> str:
    """Why the sample's inputs were refused; "" if they were not."""
    try:
        return str(json.loads(sample.rejected.read_bytes())["reason"])
    except FileNotFoundError:
        return ""


def read_priority(sample: Sample) -> int | None:
    """The place in the queue that was asked for the sample; None where nobody asked. Raises StoreError if damaged."""
    file = sample.folder / "priority.json"
    try:
        return int(json.loads(file.read_bytes())["priority"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"damaged ({error})", where=file, remedy="give it again with `virnucpro priority`"
        ) from error


def write_priority(sample: Sample, priority: int) -> None:
    """Remember the sample's place in the queue; it changes nothing that is computed."""
    publish_json(sample.folder / "priority.json", {"priority": priority})


def same_content(home: Path, content: str) -> list[str]:
    """Names of the samples whose `Sample.content` this is, sorted; one that cannot be read is left out and said.

    Found by the index that `register` keeps, so that the cost does not grow with the number of samples.
    """
    _make_index(home)
    found = []
    for name in index.names(home, content):
        try:
            if open_sample(home, name).content == content:
                found.append(name)
        except VirnucproError as error:
            log.warning("%s", error)
    return found


def is_registered(home: Path, name: str) -> bool:
    """Whether the name stands for a sample, sound or damaged."""
    return (home / "samples" / check_key(name) / "sample.json").exists()


def _make_index(home: Path) -> None:
    """The index of all samples, where there is none."""
    if index.exists(home):
        return
    with index.publishing(home) as note:
        for name in list_samples(home):
            try:
                note(open_sample(home, name).content, name)
            except VirnucproError as error:
                log.warning("%s", error)


def list_samples(home: Path) -> list[str]:
    """Names of all registered samples, sorted."""
    return sorted(p.parent.name for p in (home / "samples").glob("*/sample.json"))
