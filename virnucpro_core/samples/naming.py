"""Decide under which name files become a sample, so that samples and variants lie side by side.

    A/contigs.fasta               sample `contigs`
    B/contigs.fasta               sample `B_contigs`: the name is taken by other sequences
    A/contigs.fasta, chunks 300   sample `contigs-300`: a variant of `contigs`, whose chunks have 500 bases

A variant is a sample in every way: it has a folder and a partition key of its own. It shares the embeddings that its
settings do not change (`pipeline/adopt.py`). Nothing that was computed is deleted or replaced for another name or
other settings.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from virnucpro_core.errors import UsageError, VirnucproError
from virnucpro_core.files.digests import sha256_json
from virnucpro_core.files.disk import bytes_below, disk_errors, shown_bytes
from virnucpro_core.files.locks import locked
from virnucpro_core.samples import index
from virnucpro_core.samples.home import check_sample_folder
from virnucpro_core.samples.inputs import digest_inputs, look_at_inputs
from virnucpro_core.samples.occupancy import LOCKS
from virnucpro_core.samples.removal import no_stream_left_of, remove_sample
from virnucpro_core.samples.sample import (
    Sample,
    check_key,
    check_name,
    is_registered,
    is_same,
    open_sample,
    read_refusal,
    register_sample,
    registering,
    same_content,
    taken,
    write,
)
from virnucpro_core.samples.settings import OF_ENCODERS, SampleSettings, differing
from virnucpro_core.sequences.names import with_folder

_LONGEST = 64
# Variants of long names begin with this many letters of the sample's name.
_BEGINNING = 40
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Discarded:
    """What `--fresh` deletes: the sample with everything below its folder, in bytes.

    variants: those that are deleted with it, since they hold the sequences that the sample held.
    """

    sample: str
    bytes: int
    variants: tuple[str, ...] = ()

    @property
    def in_words(self) -> str:
        """Names and size for a person."""
        beside = (
            f" and its variants {', '.join(self.variants)}, of the same sequences," if self.variants else ""
        )
        return f"sample {self.sample!r}{beside} with all its work and results: {shown_bytes(self.bytes)}"


@dataclass(frozen=True, slots=True)
class Planned:
    """A sample as `enter` registers it. is_new: it has no work yet. discards: what `fresh` deletes first, or None."""

    sample: Sample
    is_new: bool
    discards: Discarded | None = None


def planned(
    home: Path,
    name: str,
    paths: Sequence[Path],
    settings: SampleSettings,
    *,
    chosen: bool = False,
    fresh: bool = False,
) -> Planned:
    """What `enter` would do with these arguments. Changes nothing. Raises what `enter` raises for files and names."""
    sample = Sample(check_key(name), home / "samples" / name, digest_inputs(paths), settings)
    plan = _planned(sample, chosen=chosen, fresh=fresh)
    if not fresh:
        check_name(plan.sample)
    return plan


def clashes(plans: Mapping[str, Planned], *, chosen: bool) -> dict[str, str]:
    """What is wrong with samples that one command cannot have beside another one, by the names that were asked for.

    Two would become the same sample, or one is a variant that `fresh` deletes for the new sequences of another one.
    Names that nobody has chosen are changed where they are taken, so only the same sequences are the same sample.
    """
    found, first = dict[str, str](), dict[str, tuple[str, Planned]]()
    for name, plan in plans.items():
        other, earlier = first.setdefault(plan.sample.name, (name, plan))
        if other != name and (chosen or is_same(earlier.sample, plan.sample)):
            found[name] = f"it would become sample {plan.sample.name!r}, and {other!r} becomes that as well"
    for name, plan in plans.items():
        for variant in plan.discards.variants if plan.discards else ():
            if variant in first and first[variant][0] != name:
                deleted = f"--fresh deletes sample {variant!r} for the new sequences of {name!r}"
                found.setdefault(first[variant][0], f"{deleted}, and this is that sample")
    return found


def enter(
    home: Path,
    name: str,
    paths: Sequence[Path],
    settings: SampleSettings,
    *,
    chosen: bool = False,
    fresh: bool = False,
    on_discard: Callable[[Discarded], None] = lambda _: None,
) -> Sample:
    """Register files that somebody asks for, under `name` or beside what has that name already.

    chosen: the user has chosen the name; it is then used or refused, never changed. fresh: delete the sample that has
    these files and settings first; `on_discard` is called with it once that is done. Raises what `sample.register`
    raises.
    """
    sample = Sample(check_key(name), home / "samples" / name, digest_inputs(paths), settings)
    with one_name_at_a_time(home):
        plan = _planned(sample, chosen=chosen, fresh=fresh)
        for variant in plan.discards.variants if plan.discards else ():
            remove_sample(home, variant)
        with no_stream_left_of(plan.sample) if fresh else nullcontext():
            registered = register_sample(plan.sample, fresh=fresh)
        if plan.discards is not None:
            on_discard(plan.discards)
        return registered


def enter_unread(
    home: Path, name: str, paths: Sequence[Path], settings: SampleSettings, *, replaces: bool = False
) -> Sample:
    """As `enter`, for a scan of the inbox, which does not read the files.

    The same files with other settings become a variant. replaces: the name stands for the same files before they
    changed. Raises NameTakenError if the name stands for other files, unless `replaces`.
    """
    sample = Sample(check_key(name), home / "samples" / name, look_at_inputs(paths), settings)
    with one_name_at_a_time(home, wait=False):
        placed = _replaced(sample) if replaces else place(sample, chosen=True)
        known = next((one for one in family(home, placed.base) if one.name == placed.name), None)
        if known is None or not is_same(known, placed) or known.settings == settings:
            return register_sample(placed, replaces=replaces)
        with registering(placed):
            busy = f"sample {known.name!r} cannot take other settings, a process works on it"
            return write(replace(known, settings=settings), known, busy, is_new=False)


def check_chosen(name: str) -> None:
    """Raises UsageError if a person must not choose this name for a sample."""
    check_key(name)
    if name.startswith("-"):
        what = f"{name!r} is not a sample name: it begins with '-', as options do"
        raise UsageError(what, remedy="give a name that begins with a letter or a digit")


def one_name_at_a_time(home: Path, *, wait: bool = True) -> AbstractContextManager[None]:
    """Lock on all names of the home folder: held while a name is chosen and registered, for a moment."""
    return locked(home / "names.lock", busy="another process registers a sample", wait=wait)


def place(sample: Sample, *, chosen: bool, fresh: bool = False) -> Sample:
    """The sample under the name that it must have: its own, one with the folder's name before it, or a variant's.

    The caller holds `one_name_at_a_time`.
    """
    if chosen:
        return _in_family(sample, fresh=fresh)
    for name in (_known_as(sample) or sample.name, *_joined(sample)):
        if _fits(named := _named(sample, name)):
            return _in_family(named, fresh=fresh)
    return _in_family(_with_digest(sample, sample.name, [f.sha256 for f in sample.inputs]), fresh=fresh)


def name_beside(home: Path, name: str, paths: Sequence[Path]) -> str:
    """The name for files that are not read: `name`, or one with the names of their folders if others have that.

    If others have all of these: `name`.
    """
    sample = Sample(check_key(name), home / "samples" / name, look_at_inputs(paths), SampleSettings())
    names = (name, *_joined(sample))
    return next((one for one in names if _fits(_named(sample, one))), name)


def family(home: Path, name: str) -> list[Sample]:
    """The sample of this name and its variants, as far as they exist and can be read. The sample comes first."""
    found = []
    for key in (name, *index.variants(home, name)):
        if not is_registered(home, key):
            continue
        try:
            one = open_sample(home, key)
        except VirnucproError as error:
            log.debug("%s", error)
            continue
        if name in (one.name, one.variant_of):
            found.append(one)
    return found


def variants_of(home: Path, name: str) -> list[str]:
    """The keys of the sample's variants, sorted."""
    return [one.name for one in family(home, check_key(name)) if one.variant_of == name]


def is_named_from(home: Path, key: str, name: str) -> bool:
    """Whether a file of this name may have become the sample `key`: by its name, as a variant, or with its folder."""
    base = key
    with suppress(VirnucproError):
        base = open_sample(home, key).base
    return base == name or base.endswith(f"_{name}") or name.endswith(f"_{base}")


def variant_name(sample: Sample, other: SampleSettings) -> str:
    """The name of the sample's variant with these settings, such as `NAME-300-demo`: what differs, in short words."""
    words = [_word(name, getattr(other, name)) for name in differing(sample.settings, other)]
    label = re.sub(r"[^A-Za-z0-9_-]", "_", "-".join(words))
    if len(label) >= _LONGEST - _BEGINNING:
        label = sha256_json(words)[:8]
    return f"{sample.name[: _LONGEST - 1 - len(label)]}-{label}"


def _planned(sample: Sample, *, chosen: bool, fresh: bool) -> Planned:
    placed = place(sample, chosen=chosen, fresh=fresh)
    check_sample_folder(placed.folder)
    is_new = all(entry.name == LOCKS for entry in placed.folder.glob("*"))
    others = [] if not fresh or placed.variant_of else _of_other_sequences(placed)
    for other in others:
        check_sample_folder(other.folder)
    if not fresh or (is_new and not others):
        return Planned(placed, is_new)
    with disk_errors(placed.folder):
        size = sum(bytes_below(one.folder) for one in others)
        size += 0 if is_new else bytes_below(placed.folder)
        return Planned(placed, is_new, Discarded(placed.name, size, tuple(one.name for one in others)))


def _of_other_sequences(sample: Sample) -> list[Sample]:
    """The variants of the sample's name that hold other sequences: they would be variants of it by name only."""
    members = family(sample.home, sample.name)
    return [one for one in members if one.name != sample.name and not is_same(one, sample)]


def _in_family(sample: Sample, *, fresh: bool) -> Sample:
    """The sample itself, or the variant of it that has the same work in common. A new variant gets a free name.

    The sample and its variants hold the same sequences. Raises NameTakenError if the variants hold others than the new
    sample of their name, unless `fresh`: then they are deleted.
    """
    members = family(sample.home, sample.name)
    base = next((one for one in members if one.name == sample.name), None)
    if base is None and not is_registered(sample.home, sample.name) and not fresh:
        for one in _of_other_sequences(sample):
            raise taken(one)
    if base is not None and fresh and not is_same(base, sample):
        return sample
    for one in members:
        if is_same(one, sample) and _same_work(one, sample):
            return _named(sample, one.name, one.variant_of)
    if (
        base is None
        or not is_same(base, sample)
        or read_refusal(base)
        or not (base.content or sample.content)
    ):
        return sample  # a new name, or other sequences, or a sample for which nothing was computed
    name = variant_name(base, sample.settings)
    if _is_free(sample.home, name):
        return _named(sample, name, sample.name)
    return _with_digest(sample, name, [sample.name, [f.sha256 for f in sample.inputs]], sample.name)


def _same_work(one: Sample, sample: Sample) -> bool:
    """Whether both have the same work in common. With imported embeddings, precision does not matter."""
    differs = set(differing(one.settings, sample.settings))
    return not (differs - set(OF_ENCODERS) if one.imported.exists() else differs)


def _replaced(sample: Sample) -> Sample:
    """As `_in_family`, for files that have changed: they take the place of those with the same settings."""
    members = family(sample.home, sample.name)
    for one in members:
        if _same_work(one, sample):
            return _named(sample, one.name, one.variant_of)
    base = next((one for one in members if one.name == sample.name and one.content), None)
    return sample if base is None else _named(sample, variant_name(base, sample.settings), base.name)


def _known_as(sample: Sample) -> str:
    """The name under which exactly these files are a sample already, if it comes from the same file name; else ""."""
    files = {f.path for f in sample.inputs}
    for key in same_content(sample.home, sample.content):
        one = open_sample(sample.home, key)
        if {f.path for f in one.inputs} == files and is_named_from(sample.home, key, sample.name):
            return one.base
    return ""


def _joined(sample: Sample) -> Iterator[str]:
    """Names with the names of the folders above the first file before them: `B_contigs`, `run7_B_contigs`, ..."""
    name, file = sample.name, sample.inputs[0].path
    for level in range(len(file.parents)):
        longer = with_folder(name, file, level)
        if longer != name:
            yield longer
        name = longer


def _fits(sample: Sample) -> bool:
    """Whether the sample's name is free, or stands for its sequences or for earlier bytes of its files."""
    members = family(sample.home, sample.name)
    is_free = not members and _is_free(sample.home, sample.name)
    return is_free or any(is_same(one, sample) for one in members) or _must_keep(sample)


def _must_keep(sample: Sample) -> bool:
    """Whether the name stands for earlier bytes of the same files, or is damaged: the registration says so then."""
    files, known = {f.path for f in sample.inputs}, family(sample.home, sample.name)
    is_damaged = sample.name not in {one.name for one in known}
    return is_damaged or any(files & {f.path for f in one.inputs} for one in known)


def _is_free(home: Path, name: str) -> bool:
    return not is_registered(home, name)


def _named(sample: Sample, name: str, variant_of: str = "") -> Sample:
    return replace(sample, name=name, folder=sample.home / "samples" / name, variant_of=variant_of)


def _with_digest(sample: Sample, name: str, facts: list[object], variant_of: str = "") -> Sample:
    """The sample under a name that ends with a digest, for the rare case that all others are taken."""
    digest = sha256_json([facts, sha256_json(str(sample.settings))])[:8]
    return _named(sample, f"{name[: _LONGEST - 9]}-{digest}", variant_of)


def _word(name: str, value: object) -> str:
    if isinstance(value, bool):
        return f"{'' if value else 'no_'}{name}"
    if name == "shard_rows":
        return f"rows{value}"
    if name == "min_length":
        return f"from{value}"
    if name == "min_open":
        return f"aa{value}"
    if isinstance(value, str) and "/" in value:
        return Path(value).name
    return str(value) if value not in ("", None) else f"no_{name}"
