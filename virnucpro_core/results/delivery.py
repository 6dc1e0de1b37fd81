"""Copy a sample's results into the folder that the user has named, and check beforehand that this is allowed.

`run.json` in the folder says which sample, with which settings, its results belong to. Other files in it are never
touched.
"""

import errno
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virnucpro_core.errors import StoreError, UsageError, VirnucproError, printable
from virnucpro_core.files.publish import publish, publish_json, publish_together, sweep, temporary_folder
from virnucpro_core.results.batch import ACROSS, check_batch_out
from virnucpro_core.results.folder import RESULT_FILES, RUN
from virnucpro_core.samples.inputs import content_digest, digest_inputs
from virnucpro_core.samples.naming import is_named_from, planned
from virnucpro_core.samples.sample import open_sample
from virnucpro_core.samples.settings import OF_ENCODERS, SampleSettings, differing, settings_in_words

# Says which sample's results are being copied into the folder, as long as there is no `run.json`.
UNFINISHED = ".virnucpro-delivery.json"
# Errors of a disk or a process that another try need not meet.
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EINTR, errno.ESTALE)
_NOT_OURS = "which VirNucPro did not write"
_BESIDE = "give another --out, or --force to write beside it"


def check_out(
    out: Path,
    sample: str,
    inputs: Sequence[Path],
    *,
    home: Path,
    settings: SampleSettings | None = None,
    force: bool = False,
    fresh: bool = False,
) -> None:
    """Raises UsageError if the results of `sample` cannot, or must not, be copied into `out`.

    They may replace earlier results of the same sample, and nothing else; with `fresh` those of other sequences under
    the same name too. settings: those of the sample, so that results of another variant are not replaced; None if they
    need not be compared. A folder without such results must be empty, but for hidden files. `force` allows all of it.
    """
    check_writable(out)
    if force:
        return
    owner = _owner(out)
    if owner is None:
        _check_empty(out)
        return
    remedy = "give another --out, or --force to replace them"
    if not is_named_from(home, owner.sample, sample):
        what = f"holds the results of sample {owner.sample!r}, this is sample {sample!r}"
        raise UsageError(what, where=out, remedy=remedy)
    if owner.content != content_digest(digest_inputs(inputs)):
        if not fresh:
            what = f"holds the results of other sequences under the name {sample!r}"
            raise UsageError(what, where=out, remedy=remedy)
    elif settings is not None and _is_variant(owner, settings, home):
        name = planned(home, sample, inputs, settings).sample.name
        now = (
            f"{name!r} ({settings_in_words(settings)})"
            if name != owner.sample
            else settings_in_words(settings)
        )
        what = f"holds the results of {owner.in_words}, and these will be {now}"
        raise UsageError(what, where=out, remedy=remedy)


def check_shared_out(out: Path, samples: Collection[str], *, force: bool = False) -> None:
    """Raises UsageError if the subfolders of several samples, and the pages across them, must not be written in `out`.

    It may hold earlier results of several samples, also of others than these, and hidden files. `check_out` looks into
    the subfolders of these samples. `force` allows all.
    """
    check_pages_out(out, force=force)
    if force:
        return
    ours = {*samples, *ACROSS}
    for entry in sorted(out.glob("*")):
        if not (entry.name in ours or _is_hidden(entry) or _is_of_samples(entry)):
            raise UsageError(f"holds {_named(entry)}, {_NOT_OURS}", where=out, remedy=_BESIDE)


def check_pages_out(out: Path, *, force: bool = False) -> None:
    """Raises UsageError if the pages across samples must not be written in `out`.

    They replace earlier ones, but not a sample's own results, nor what others wrote, unless `force`.
    """
    if not force and (owner := _owner(out)) is not None:
        what = f"holds the results of sample {owner.sample!r}, and several samples need a folder of their own"
        raise UsageError(what, where=out, remedy="give another --out")
    check_batch_out(out, force=force)


def _check_empty(out: Path) -> None:
    """Raises UsageError if a folder without a sample's results holds anything but hidden files."""
    there = sorted(entry for entry in out.glob("*") if not _is_hidden(entry))
    if not there:
        return
    if any(_owner(entry) is not None for entry in there):
        what = "holds the results of several samples"
        raise UsageError(what, where=out, remedy="give another --out, such as a new folder in it")
    taken = [entry for entry in there if entry.name in RESULT_FILES]
    more = f" and {len(there) - 1:,} more" if len(there) > 1 else ""
    if taken:
        what, remedy = "which is not a result of this sample", "give another --out, or --force to replace it"
    else:
        what, remedy = _NOT_OURS, _BESIDE
    raise UsageError(f"holds {_named((taken or there)[0])}{more}, {what}", where=out, remedy=remedy)


def _is_of_samples(entry: Path) -> bool:
    """Whether this entry of a folder may be the folder of one of several samples: it has results, or nothing."""
    if _owner(entry) is not None:
        return True
    with suppress(OSError):
        return entry.is_dir() and not any(entry.iterdir())
    return False


def check_replaceable(out: Path, *, force: bool = False) -> None:
    """Raises UsageError if a new folder cannot replace `out`, or must not because it has content and not `force`."""
    check_writable(out)
    if not force and out.is_dir() and any(out.iterdir()):
        raise UsageError(
            "already exists, and the whole folder would be replaced",
            where=out,
            remedy="give another --out, or --force to replace it",
        )


def check_new_files(files: Sequence[Path], *, force: bool = False) -> None:
    """Raises UsageError if one of the files cannot be written, or exists and not `force`."""
    for file in files:
        check_writable(file.parent)
        if file.is_dir():
            raise UsageError("is a folder", where=file, remedy="give the name of a file")
        if file.exists() and not force:
            raise UsageError(
                "already exists", where=file, remedy="give another --out, or --force to replace it"
            )


def check_writable(out: Path) -> None:
    """Raises UsageError if a folder `out` cannot be made or written. Checks by writing a temporary folder.

    Raises StoreError if that may be otherwise in a moment: a full disk, too many open files.
    """
    place = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not place.is_dir():
        raise UsageError("is not a folder", where=place, remedy="give another --out")
    try:
        with temporary_folder(place):
            pass
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        if error.errno in _PASSING:
            raise StoreError(what, where=place, remedy="run the same command again when it can") from error
        remedy = "give another --out, or check its permissions"
        raise UsageError(what, where=place, remedy=remedy) from error


def delivered_files(out: Path) -> list[Path]:
    """All files that `deliver` may replace or delete in `out`."""
    return [out / name for name in (RUN, UNFINISHED, *RESULT_FILES)]


def deliver(results: Path, out: Path) -> None:
    """Copy a sample's results folder to `out`, each file atomically, `run.json` last. Needs little memory.

    Raises StoreError for disk errors. If it was interrupted, the same call completes it.
    """
    facts = json.loads((results / RUN).read_bytes())
    about = {"sample": facts["sample"], "content": facts["digests"]["sample"], "settings": facts["settings"]}
    publish_json(out / UNFINISHED, about)
    sweep(out)
    for name in (RUN, *RESULT_FILES):  # files of earlier results that these ones do not have, such as reads
        if name == RUN or not (results / name).exists():
            (out / name).unlink(missing_ok=True)
    names = [f.name for f in results.iterdir() if f.is_file() and not _is_hidden(f) and f.name != RUN]
    with publish_together(out, sorted(names)) as files:
        for name, file in files.items():
            shutil.copyfile(results / name, file)
    with publish(out / RUN) as file:
        shutil.copyfile(results / RUN, file)
    (out / UNFINISHED).unlink()


@dataclass(frozen=True, slots=True)
class _Owner:
    """The sample whose results are in a folder: its name, `Sample.content`, and settings; None if nothing says them."""

    sample: str
    content: str
    settings: SampleSettings | None = None

    @property
    def in_words(self) -> str:
        """`sample 'a' (500 demo float32)`."""
        return f"sample {self.sample!r}" + (f" ({settings_in_words(self.settings)})" if self.settings else "")


def _owner(out: Path) -> _Owner | None:
    """The sample whose results are in `out`; None if no file says so."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        facts = json.loads((out / RUN).read_bytes())
        return _Owner(str(facts["sample"]), str(facts["digests"]["sample"]), _settings(facts))
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        facts = json.loads((out / UNFINISHED).read_bytes())
        return _Owner(str(facts["sample"]), str(facts["content"]), _settings(facts))
    return None


def _settings(facts: Mapping[str, Any]) -> SampleSettings | None:
    """The settings in a `run.json`; None if another version wrote them."""
    with suppress(KeyError, TypeError, UsageError):
        return SampleSettings(**facts["settings"])
    return None


def _is_variant(owner: _Owner, settings: SampleSettings, home: Path) -> bool:
    """Whether the results were computed with other settings. With imported embeddings, some do not matter."""
    if owner.settings is None:
        return False
    different = set(differing(owner.settings, settings))
    with suppress(VirnucproError):
        if open_sample(home, owner.sample).imported.exists():
            different -= {*OF_ENCODERS}
    return bool(different)


def _is_hidden(entry: Path) -> bool:
    return entry.name.startswith(".")


def _named(entry: Path) -> str:
    return f"{printable(entry.name)}{'/' if entry.is_dir() else ''}"
