"""Register, open and remove samples. A sample is one folder with its inputs, its settings and its products.

Of the files in the folder only `sample.json` is read and written here; its field `seal` is its own sha256.
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

from virnucpro_core.errors import InputError, StoreError, UsageError, VirnucproError, shown_name
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
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.sequences.chunks import Chunks

KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Format 2 stores no modification times; all its samples have a sha256.
_FORMAT, _FORMATS = 3, (2, 3)
REJECTED = "rejected.json"
IMPORTED = "imported.json"
SMALL_BYTES = 16_000_000
log = logging.getLogger(__name__)


class NameTakenError(UsageError):
    """The sample name is already in use for other sequences."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A registered sample. `folder` holds every product; the paths below it are defined only in this class.

    earlier: `content` of the earlier files that the present ones replaced, as long as products of them may exist; ""
    for none. variant_of: the sample of which this is a variant, the same sequences with other settings; "" for none.
    """

    name: str
    folder: Path
    inputs: tuple[InputFile, ...]
    settings: SampleSettings
    earlier: str = field(default="", compare=False)
    variant_of: str = field(default="", compare=False)

    @property
    def base(self) -> str:
        """The name that its files gave: its own name, or for a variant the name of the sample that it varies."""
        return self.variant_of or self.name

    @property
    def home(self) -> Path:
        """VIRNUCPRO_HOME."""
        return self.folder.parents[1]

    @property
    def content(self) -> str:
        """sha256 over the inputs' digests: the same data under any path has the same content.

        "" as long as the complete files have not been read; `content.with_content` reads them.
        """
        return content_digest(self.inputs)

    @property
    def bytes(self) -> int:
        """Total size of all inputs in bytes, as stored on disk (compressed or not)."""
        return sum(f.bytes for f in self.inputs)

    @property
    def is_small(self) -> bool:
        """Whether computing it takes less time than loading a model, so that it should share a loaded model."""
        return self.bytes <= SMALL_BYTES

    @property
    def chunks(self) -> Path:
        return self.folder / "chunks"

    @property
    def translations(self) -> Path:
        return self.folder / "translations"

    @property
    def imported(self) -> Path:
        """Record of imported embeddings; exists only if they were not computed here (pipeline/imported.py)."""
        return self.folder / IMPORTED

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def rejected(self) -> Path:
        """File with the reason why the inputs were refused. It stops schedules from trying the same bytes again."""
        return self.folder / REJECTED

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
    """Return the name if it can serve as a partition key and a folder name; raise UsageError otherwise."""
    if not KEY.fullmatch(name):
        raise UsageError(
            f"{name[:80]!r} is not a sample name",
            remedy="use 1 to 64 letters, digits, '_' and '-' (--sample NAME)",
        )
    return name


def register(
    home: Path, name: str, paths: Sequence[Path], settings: SampleSettings, *, fresh: bool = False
) -> Sample:
    """Compute the files' sha256 and write `sample.json`. Only one process at a time can register a name.

    Settings replace those that the name had; `naming.enter` keeps what was computed with others. Raises NameTakenError
    if the name is in use for other sequences, unless `fresh`; StoreError, naming the holder, if a process works on the
    sample and its files or settings would change.
    """
    sample = Sample(check_key(name), home / "samples" / name, digest_inputs(paths), settings)
    return register_sample(sample, fresh=fresh)


def register_unread(
    home: Path, name: str, paths: Sequence[Path], settings: SampleSettings, *, replaces: bool = False
) -> Sample:
    """Write `sample.json` with the files' sizes and times only. A run reads the files later (`content.with_content`).

    If the sample already has exactly these files, it is returned unchanged. `replaces`: the name was in use for the
    same files before they changed; they replace the earlier ones. Raises what `register` raises.
    """
    sample = Sample(check_key(name), home / "samples" / name, look_at_inputs(paths), settings)
    return register_sample(sample, replaces=replaces)


def registering(sample: Sample) -> contextlib.AbstractContextManager[None]:
    """Lock on the registration of the name. A scan of the inbox, whose samples have no sha256, does not wait for it."""
    busy = f"another process registers sample {sample.name!r}"
    return locked(sample.folder / LOCKS / REGISTRATION, busy=busy, wait=sample.content != "")


def register_sample(sample: Sample, *, fresh: bool = False, replaces: bool = False) -> Sample:
    """`register` a sample whose files have been read, or `register_unread` one whose files have not."""
    home = sample.home
    with registering(sample):
        if fresh:
            with disk_errors(sample.folder):
                discard(sample.folder)
        is_new = not is_registered(home, sample.name)
        known = None if is_new else _known(home, sample)
        busy = f"sample {sample.name!r} cannot take other settings, a process works on it"
        if known is not None and is_same(known, sample):
            as_it_was = known == sample and all(map(is_same_file, known.inputs, sample.inputs))
            if not sample.content or (as_it_was and known.content):
                return known
            sample = replace(sample, earlier=known.earlier, variant_of=known.variant_of)
        elif known is not None:
            if not replaces:
                raise taken(known)
            sample = replace(sample, earlier=known.content or known.earlier, variant_of=known.variant_of)
            busy = f"sample {sample.name!r} cannot take the changed files, a process works on it"
        return write(sample, known, busy, is_new=is_new)


def check_name(sample: Sample) -> None:
    """Raises NameTakenError if the sample's name stands for other sequences, StoreError if that sample is damaged."""
    if is_registered(sample.home, sample.name):
        known = _known(sample.home, sample)
        if known is not None and not is_same(known, sample):
            raise taken(known)


def taken(known: Sample) -> NameTakenError:
    """The error for a name that stands for other sequences."""
    return NameTakenError(
        f"sample {known.name!r} already stands for other sequences ({shown_name(known.inputs[0].path)})",
        where=known.folder,
        remedy="give --sample OTHER_NAME, or --fresh, which deletes the old one",
    )


def write(sample: Sample, known: Sample | None, busy: str, *, is_new: bool) -> Sample:
    """Publish `sample.json`. The caller holds `registering`.

    Adding only the sha256 needs no exclusive lock, because it does not disturb a process that works on the sample.
    """
    outdated = sample.content != "" and sample.earlier not in ("", sample.content)
    changes = not is_new and (known != sample or outdated)
    with exclusive_lock(sample.folder, busy) if changes else contextlib.nullcontext():
        if outdated:
            _supersede(sample)
        if sample.content:
            sample = replace(sample, earlier="")
        else:  # an earlier refusal was about files that the new ones replace
            sample.rejected.unlink(missing_ok=True)
        facts = {
            "format": _FORMAT,
            "name": sample.name,
            "inputs": [asdict(f) | {"path": str(f.path)} for f in sample.inputs],
            "settings": asdict(sample.settings),
            "earlier": sample.earlier,
        }
        if sample.variant_of:
            facts["variant_of"] = sample.variant_of
        publish_json(sample.folder / "sample.json", facts | {"seal": sha256_json(facts)})
    if known is not None and known.content != sample.content:
        index.forget(sample.home, known.content, sample.name)
    if sample.variant_of:
        index.note_variant(sample.home, sample.variant_of, sample.name)
    if sample.content:
        make_index(sample.home)
        index.note(sample.home, sample.content, sample.name)
    return sample


def _supersede(sample: Sample) -> None:
    """Delete the products of the sample's earlier files. Their results move to `superseded/` in the home folder."""
    with disk_errors(sample.folder):
        if sample.results.exists():
            kept = sample.home / "superseded" / f"{sample.name}-{sample.earlier[:8]}"
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(kept, ignore_errors=True)
            sample.results.replace(kept)
            log.warning("%s: the results of its earlier files are kept in %s", sample.name, kept)
        _empty(sample.folder, keep=(LOCKS, "sample.json"))


def is_same(known: Sample, sample: Sample) -> bool:
    """Whether both have the same sequences, by sha256 if both have one, else by the files' sizes and times."""
    if known.content and sample.content:
        return known.content == sample.content
    same = len(known.inputs) == len(sample.inputs) and all(map(is_same_file, known.inputs, sample.inputs))
    if same or not sample.content:
        return same
    try:
        return content_digest(read_inputs(known.inputs)) == sample.content
    except InputError:  # missing or changed: the bytes can no longer be compared
        return False


def discard(folder: Path) -> None:
    """Delete everything in a sample's folder but the locks, which are held meanwhile.

    `sample.json` is deleted first: a folder without it is not a sample. Its entries in the indexes go too. Raises
    StoreError if a lock is not free.
    """
    home, name = folder.parents[1], folder.name
    with exclusive_lock(folder, f"sample {name!r} cannot be discarded, a process works on it"):
        known = None
        with contextlib.suppress(VirnucproError):  # damaged, or deleted in part: the indexes are only hints
            known = open_sample(home, name)
        (folder / "sample.json").unlink(missing_ok=True)
        if known is not None:
            index.forget(home, known.content, name)
            index.forget_variant(home, known.variant_of, name)
        _empty(folder, keep=(LOCKS,))


def _empty(folder: Path, *, keep: Sequence[str]) -> None:
    for entry in folder.iterdir():
        if entry.name in keep:
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _known(home: Path, sample: Sample) -> Sample | None:
    """The sample as it was registered; None if `sample.json` is damaged but the chunks were made from these inputs.

    In the second case the products certainly belong to these inputs, so `sample.json` can be written again. Raises
    StoreError for any other damage.
    """
    try:
        return open_sample(home, sample.name)
    except StoreError as error:
        with contextlib.suppress(StoreError):
            files = Chunks.open(sample.chunks).attrs["files"]
            if [f["sha256"] for f in files] == [f.sha256 for f in sample.inputs]:
                log.warning("%s: written again, because the sample's chunks are of the same input", error)
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
            raise ValueError("its content does not match its seal")
        if type(raw["format"]) is int and raw["format"] > _FORMAT:
            raise StoreError(
                f"written by a newer version of this program (its format is {raw['format']}; this version reads "
                f"{_FORMATS})",
                where=file,
                remedy="install that version, or give --sample OTHER_NAME",
            )
        if raw["format"] not in _FORMATS:
            raise ValueError(f"its format is {raw['format']!r}; this version reads {_FORMATS}")
        inputs = tuple(InputFile(**f | {"path": Path(f["path"])}) for f in raw["inputs"])
        settings = replace(SampleSettings(), **raw["settings"])
        named, earlier, variant_of = raw["name"], str(raw.get("earlier", "")), str(raw.get("variant_of", ""))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = (
            f"run `virnucpro predict FILE --sample {name}` with the same file; --fresh discards the sample"
        )
        raise StoreError(f"damaged ({error})", where=file, remedy=remedy) from error
    if named != name or not inputs:
        raise StoreError("damaged: it describes another sample", where=file, remedy="run with --fresh")
    return Sample(name, folder, inputs, settings, earlier, variant_of)


def read_refusal(sample: Sample) -> str:
    """Why the sample's inputs were refused; "" if they were not."""
    try:
        return str(json.loads(sample.rejected.read_bytes())["reason"])
    except FileNotFoundError:
        return ""


def same_content(home: Path, content: str) -> list[str]:
    """Names of the samples with this `Sample.content`, sorted. Damaged samples are logged and left out.

    Uses the index that `register` maintains, so the cost does not grow with the number of samples. Names in it that are
    no sample any more mean nothing.
    """
    if not content or not (home / "samples").is_dir():
        return []
    make_index(home)
    found = []
    for name in index.names(home, content):
        if not is_registered(home, name):
            continue
        try:
            if open_sample(home, name).content == content:
                found.append(name)
        except VirnucproError as error:
            log.warning("%s", error)
    return found


def is_registered(home: Path, name: str) -> bool:
    """Whether there is a sample of this name, intact or damaged."""
    return (home / "samples" / check_key(name) / "sample.json").exists()


def make_index(home: Path) -> None:
    """Make the index of all samples if there is none."""
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
