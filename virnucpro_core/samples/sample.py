"""The folder of one sample: its inputs, its settings and where each product lies.

Knows names and paths only; reads and writes nothing but `sample.json`, which is sealed by its own sha256.
"""

import contextlib
import json
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from virnucpro_core.errors import InputError, StoreError, UsageError, VirnucproError
from virnucpro_core.files.digests import sha256_json
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.files.locks import locked
from virnucpro_core.files.publish import publish_json
from virnucpro_core.samples import index
from virnucpro_core.samples.inputs import (
    InputFile,
    content_digest,
    digest_inputs,
    is_same_file,
    look_at_inputs,
    read_inputs,
)
from virnucpro_core.samples.occupancy import LOCKS, REGISTRATION, exclusive_lock
from virnucpro_core.samples.products import CHUNKS, is_current
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.sequences.chunks import Chunks

KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Format 2 has no times of the files; all its samples have their sha256.
_FORMAT, _FORMATS = 3, (2, 3)
SMALL_BYTES = 16_000_000
log = logging.getLogger(__name__)


class NameTakenError(UsageError):
    """The name stands for other sequences already."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A registered sample. `folder` holds every product; names below are the only place that spells them.

    earlier: `content` of files that these ones superseded and that products may still be of; "" for none.
    """

    name: str
    folder: Path
    inputs: tuple[InputFile, ...]
    settings: SampleSettings
    earlier: str = field(default="", compare=False)

    @property
    def home(self) -> Path:
        """VIRNUCPRO_HOME."""
        return self.folder.parents[1]

    @property
    def content(self) -> str:
        """sha256 over the inputs' digests: the same data under any path is the same content.

        "" while nobody has read the files as a whole: `content.with_content` does.
        """
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
    """Read the files' sha256 and write `sample.json`; one process at a time registers a name.

    Products that no longer fit new settings are noticed by their fingerprints. Raises NameTakenError if the name stands
    for other sequences and not `fresh`, StoreError naming the holder if a process works on what is to change.
    """
    sample = Sample(check_key(name), home / "samples" / name, digest_inputs(paths), settings)
    return _enter(home, sample, fresh=fresh)


def register_unread(
    home: Path, name: str, paths: Sequence[Path], settings: SampleSettings, *, replaces: bool = False
) -> Sample:
    """Write `sample.json` by the files' sizes and times: `content.with_content` reads them, in a run.

    A sample of the very same files is returned as it is. `replaces`: the name stands for these files before they
    changed; it is superseded. Raises what `register` raises.
    """
    sample = Sample(check_key(name), home / "samples" / name, look_at_inputs(paths), settings)
    return _enter(home, sample, replaces=replaces)


def registering(sample: Sample) -> contextlib.AbstractContextManager[None]:
    """Nobody else registers the name meanwhile. A look at the inbox, whose samples are unread, does not wait for it."""
    busy = f"another process registers sample {sample.name!r}"
    return locked(sample.folder / LOCKS / REGISTRATION, busy=busy, wait=sample.content != "")


def _enter(home: Path, sample: Sample, *, fresh: bool = False, replaces: bool = False) -> Sample:
    with registering(sample):
        if fresh:
            with disk_errors(sample.folder):
                discard(sample.folder)
        is_new = not is_registered(home, sample.name)
        known = None if is_new else _known(home, sample)
        busy = f"sample {sample.name!r} cannot take other settings, a process works on it"
        if known is not None and _is_same(known, sample):
            as_it_was = known == sample and all(map(is_same_file, known.inputs, sample.inputs))
            if not sample.content or (as_it_was and known.content):
                return known
            sample = replace(sample, earlier=known.earlier)
        elif known is not None:
            if not replaces:
                raise NameTakenError(
                    f"sample {sample.name!r} already stands for other sequences ({known.inputs[0].path.name})",
                    where=sample.folder,
                    remedy="give --sample OTHER_NAME, or --fresh to discard the old one",
                )
            sample = replace(sample, earlier=known.content or known.earlier)
            busy = f"sample {sample.name!r} cannot take the changed files, a process works on it"
        return write(sample, known, busy, is_new=is_new)


def write(sample: Sample, known: Sample | None, busy: str, *, is_new: bool) -> Sample:
    """Publish `sample.json`; the sample's name is locked. Whoever only adds sha256 disturbs no process at work."""
    outdated = sample.content != "" and sample.earlier not in ("", sample.content)
    changes = not is_new and (known != sample or outdated)
    with exclusive_lock(sample.folder, busy) if changes else contextlib.nullcontext():
        if outdated:
            _supersede(sample)
        if sample.content:
            sample = replace(sample, earlier="")
        else:  # whatever was refused was of files that these ones supersede
            sample.rejected.unlink(missing_ok=True)
        facts = {
            "format": _FORMAT,
            "name": sample.name,
            "inputs": [asdict(f) | {"path": str(f.path)} for f in sample.inputs],
            "settings": asdict(sample.settings),
            "earlier": sample.earlier,
        }
        publish_json(sample.folder / "sample.json", facts | {"seal": sha256_json(facts)})
    if sample.content:
        make_index(sample.home)
        index.note(sample.home, sample.content, sample.name)
    return sample


def _supersede(sample: Sample) -> None:
    """Delete what was made of the sample's earlier bytes; results move to `superseded/` in the home folder."""
    with disk_errors(sample.folder):
        if sample.results.exists():
            kept = sample.home / "superseded" / f"{sample.name}-{sample.earlier[:8]}"
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(kept, ignore_errors=True)
            sample.results.replace(kept)
            log.warning("%s: the results of its earlier files are kept in %s", sample.name, kept)
        _empty(sample.folder, keep=(LOCKS, "sample.json"))
    _let_twins_run(sample.home, sample.earlier)


def _is_same(known: Sample, sample: Sample) -> bool:
    """Whether both are of the same sequences: by their sha256, else by the files' sizes and times."""
    if known.content and sample.content:
        return known.content == sample.content
    same = len(known.inputs) == len(sample.inputs) and all(map(is_same_file, known.inputs, sample.inputs))
    if same or not sample.content:
        return same
    try:
        return content_digest(read_inputs(known.inputs)) == sample.content
    except InputError:  # gone or changed: nobody can tell any more
        return False


def _let_twins_run(home: Path, content: str) -> None:
    """Samples that were refused because the bytes were those of one that is not there any more."""
    for name in index.names(home, content) if content else ():
        with contextlib.suppress(VirnucproError):
            if not (twin := open_sample(home, name)).content:
                twin.rejected.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Delete all of a sample's folder but its locks, held meanwhile. Raises StoreError if one is not free.

    `sample.json` goes first: what is left of a folder without it is no sample.
    """
    home, content = folder.parents[1], ""
    with exclusive_lock(folder, f"sample {folder.name!r} cannot be discarded, a process works on it"):
        with contextlib.suppress(VirnucproError):
            content = open_sample(home, folder.name).content
        (folder / "sample.json").unlink(missing_ok=True)
        _empty(folder, keep=(LOCKS,))
    _let_twins_run(home, content)


def _empty(folder: Path, *, keep: Sequence[str]) -> None:
    for entry in folder.iterdir():
        if entry.name in keep:
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
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
        if raw.pop("seal", "") != sha256_json(raw):
            raise ValueError("it does not agree with its seal")
        if raw["format"] not in _FORMATS:
            raise ValueError(f"its format is {raw['format']!r}; this version reads {_FORMATS}")
        inputs = tuple(InputFile(**f | {"path": Path(f["path"])}) for f in raw["inputs"])
        settings = replace(SampleSettings(), **raw["settings"])
        named, earlier = raw["name"], str(raw.get("earlier", ""))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = (
            f"run `virnucpro predict FILE --sample {name}` with the same file; --fresh discards the sample"
        )
        raise StoreError(f"damaged ({error})", where=file, remedy=remedy) from error
    if named != name or not inputs:
        raise StoreError("damaged: it describes another sample", where=file, remedy="run with --fresh")
    return Sample(name, folder, inputs, settings, earlier)


def read_refusal(sample: Sample) -> str:
    """Why the sample's inputs were refused; "" if they were not."""
    try:
        return str(json.loads(sample.rejected.read_bytes())["reason"])
    except FileNotFoundError:
        return ""


def same_content(home: Path, content: str) -> list[str]:
    """Names of the samples whose `Sample.content` this is, sorted; one that cannot be read is left out and said.

    Found by the index that `register` keeps, so that the cost does not grow with the number of samples.
    """
    if not content:
        return []
    make_index(home)
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


def make_index(home: Path) -> None:
    """The index of all samples, where there is none."""
    if index.exists(home):
        return
    with index.publishing(home) as note:
        for name in list_samples(home):
            try:
                if content := open_sample(home, name).content:
                    note(content, name)
            except VirnucproError as error:
                log.warning("%s", error)


def list_samples(home: Path) -> list[str]:
    """Names of all registered samples, sorted."""
    return sorted(p.parent.name for p in (home / "samples").glob("*/sample.json"))


def made_from(chunks: Chunks, sample: Sample) -> bool:
    """Whether the chunks are of these inputs, cut as the settings say, by this version of the program."""
    settings = sample.settings
    return (
        is_current(chunks.attrs, CHUNKS)
        and chunks.attrs["chunk_size"] == settings.chunk_size
        and chunks.attrs["duplicates"] == settings.duplicates
        and [f["sha256"] for f in chunks.attrs["files"]] == [f.sha256 for f in sample.inputs]
    )
