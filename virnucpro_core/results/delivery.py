"""Copy a sample's results into the folder that the user has named, and check before and after the work that it may.

`run.json` in the folder says which sample, with which settings, its results belong to. Other files in it are never
touched. A person may know the sample under another name than the home folder does: `pat1` where the sample is
`flat_pat1`, since another `pat1` was there before. The report and the files for MultiQC then have the name that the
person knows.
"""

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virnucpro_core.errors import UsageError, VirnucproError, printable
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.files.locks import locked
from virnucpro_core.files.publish import json_text, publish, publish_json, publish_together, sweep
from virnucpro_core.files.writable import check_writable
from virnucpro_core.results.batch import ACROSS, check_batch_out, check_none_lost
from virnucpro_core.results.folder import NAME, REPORT, RESULT_FILES, RUN
from virnucpro_core.results.multiqc import multiqc_texts
from virnucpro_core.results.report import renamed_report
from virnucpro_core.samples.home import check_outside
from virnucpro_core.samples.inputs import content_digest, digest_inputs
from virnucpro_core.samples.naming import is_named_from, planned
from virnucpro_core.samples.sample import Sample, open_sample
from virnucpro_core.samples.settings import OF_ENCODERS, SampleSettings, differing, settings_in_words

# Says which sample's results are being copied into the folder, as long as there is no `run.json`.
UNFINISHED = ".virnucpro-delivery.json"
# Locked while results are written into the folder, and deleted then.
LOCK = ".virnucpro-delivery.lock"
_NOT_OURS = "which VirNucPro did not write"
_BESIDE = "give another --out, or --force to write beside it"


class OutTakenError(UsageError):
    """The folder for the results holds those of another sample."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The sample whose results are in a folder: its name, `Sample.content`, and settings; None if nothing says them."""

    sample: str
    content: str
    settings: SampleSettings | None = None

    @property
    def in_words(self) -> str:
        """`sample 'a' (500 demo float32)`."""
        return f"sample {self.sample!r}" + (f" ({settings_in_words(self.settings)})" if self.settings else "")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the results of one sample go, and what may be replaced there.

    name: under which a person knows the sample; "" for the sample's own name. shared: the folder `out` lies in --out,
    beside those of other samples. earlier: whose results were in `out` when that was checked. force: replace all.
    """

    out: Path
    name: str = ""
    shared: bool = False
    earlier: Owner | None = None
    force: bool = False


def check_out(
    out: Path,
    sample: str,
    inputs: Sequence[Path],
    *,
    home: Path,
    settings: SampleSettings | None = None,
    force: bool = False,
    fresh: bool = False,
) -> Owner | None:
    """Raises UsageError if the results of `sample` cannot, or must not, be copied into `out`.

    Returns whose results are there and will be replaced; None if there are none.


    They may replace earlier results of the same sample, and nothing else; with `fresh` those of other sequences under
    the same name too. settings: those of the sample, so that results of another variant are not replaced; None if they
    need not be compared. A folder without such results must be empty, but for hidden files. `force` allows all of it,
    but not the home's own folders.
    """
    check_outside(out, home)
    check_writable(out)
    owner = _owner(out)
    if force:
        return owner
    if owner is None:
        _check_empty(out)
        return None
    remedy = "give another --out, or --force to replace them"
    if not is_named_from(home, owner.sample, sample):
        what = f"holds the results of sample {owner.sample!r}, this is sample {sample!r}"
        raise OutTakenError(what, where=out, remedy=remedy)
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
    return owner


def check_shared_out(out: Path, samples: Collection[str], *, force: bool = False) -> None:
    """Raises UsageError if the subfolders of several samples, and the pages across them, must not be written in `out`.

    It may hold earlier results of several samples, also of others than these, and hidden files. `check_out` looks into
    the subfolders of these samples. `force` allows all.
    """
    check_pages_of_folder(out, samples, force=force)
    if force:
        return
    ours = {*samples, *ACROSS}
    for entry in sorted(out.glob("*")):
        if not (entry.name in ours or _is_hidden(entry) or _is_of_samples(entry)):
            raise UsageError(f"holds {_named(entry)}, {_NOT_OURS}", where=out, remedy=_BESIDE)


def check_pages_out(out: Path, samples: Collection[str], *, force: bool = False) -> None:
    """Raises UsageError if the pages across these samples of a home must not be written in `out`.

    They replace earlier ones of the same samples or of some of them, but not pages that show others, nor a sample's own
    results, nor what others wrote, unless `force`.
    """
    if not force:
        _check_no_owner(out)
    check_batch_out(out, force=force)
    check_none_lost(out, samples, page=True, force=force)


def check_pages_of_folder(out: Path, samples: Collection[str], *, force: bool = False) -> None:
    """As `check_pages_out`, for pages that show all subfolders of `out` with results, and these samples."""
    if not force:
        _check_no_owner(out, "give another --out, or --force to delete those results")
    check_batch_out(out, force=force)
    owners = [(file.parent.name, _owner(file.parent)) for file in out.glob(f"*/{RUN}")]
    shown = {name for folder, owner in owners for name in (folder, owner.sample if owner else folder)}
    check_none_lost(out, {*samples, *shown}, page=False, force=force)


def _check_empty(out: Path, *, allowed: bool = False) -> None:
    """Raises UsageError if a folder without a sample's results holds anything but hidden files.

    allowed: it may hold files and folders that the results do not replace.
    """
    there = sorted(entry for entry in out.glob("*") if not _is_hidden(entry))
    if not there:
        return
    if any(_owner(entry) is not None for entry in there):
        what = "holds the results of several samples"
        raise UsageError(what, where=out, remedy="give another --out, such as a new folder in it")
    taken = [entry for entry in there if entry.name in RESULT_FILES]
    if allowed and not taken:
        return
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


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """Keep other commands from writing results into this folder during the block. Waits for one that does.

    The file that is locked does not stay behind. Raises StoreError for disk errors.
    """
    file = out / LOCK
    with locked(file, busy=f"another command writes into {out}", wait=True):
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def delivered_files(out: Path) -> list[Path]:
    """All files that `deliver` may replace or delete in `out`."""
    return [out / name for name in dict.fromkeys((RUN, UNFINISHED, *RESULT_FILES))]


def discard_own(out: Path) -> list[Path]:
    """Delete the results of one sample that lie in `out` itself, where samples get subfolders now. Returns what went.

    Pages across samples stay.
    """
    if _owner(out) is None:
        return []
    found = [file for file in delivered_files(out) if file.is_file() and file.name not in ACROSS]
    for file in found:  # run.json, which says whose they are, goes last
        if file.name != RUN:
            file.unlink()
    (out / RUN).unlink(missing_ok=True)
    return found


def deliver_to(target: Target, sample: Sample) -> None:
    """Copy the sample's results to its folder, unless another command has written there since that was checked.

    Raises UsageError then; StoreError for disk errors.
    """
    with ExitStack() as held:
        if target.shared:
            held.enter_context(only_writer(target.out.parent))
            if not target.force:
                _check_no_owner(target.out.parent)
        held.enter_context(only_writer(target.out))
        if not target.force:
            _check_again(target, sample)
        deliver(sample.results, target.out, target.name)


def _check_again(target: Target, sample: Sample) -> None:
    """Raises UsageError if what is in the folder now must not be replaced, and was not there before the work."""
    owner = _owner(target.out)
    if owner is None:
        _check_empty(target.out, allowed=True)
        return
    is_own = (owner.sample, owner.content) == (sample.name, sample.content)
    if owner == target.earlier or (is_own and not _is_variant(owner, sample.settings, sample.home)):
        return
    raise OutTakenError(
        f"holds the results of {owner.in_words} by now: another command has written them during this one",
        where=target.out,
        remedy=f"give another --out, or --force to replace them; the results of sample {sample.name!r} are complete in "
        "the home folder",
    )


def _check_no_owner(out: Path, remedy: str = "give another --out") -> None:
    """Raises UsageError if the folder for a subfolder of each sample holds the results of one sample itself."""
    if (owner := _owner(out)) is not None:
        what = (
            f"holds the results of sample {owner.sample!r} itself; pages across samples need another folder"
        )
        raise UsageError(what, where=out, remedy=remedy)


def deliver(results: Path, out: Path, name: str = "") -> None:
    """Copy a sample's results folder to `out`, each file atomically, `run.json` last. Needs little memory.

    name: under which a person knows the sample; "" for the sample's own. Raises UsageError if `out` is the results
    folder itself, StoreError for disk errors. If it was interrupted, the same call completes it.
    """
    if out.exists() and out.samefile(results):
        raise UsageError(
            "is where the home folder keeps these results", where=out, remedy="give another --out"
        )
    facts = json.loads((results / RUN).read_bytes())
    about = {"sample": facts["sample"], "content": facts["digests"]["sample"], "settings": facts["settings"]}
    publish_json(out / UNFINISHED, about)
    sweep(out)
    for file in (RUN, *RESULT_FILES):  # files of earlier results that these ones do not have, such as reads
        if file == RUN or not (results / file).exists():
            (out / file).unlink(missing_ok=True)
    own = _own_texts(results, facts, name)
    files = [f.name for f in results.iterdir() if f.is_file() and not _is_hidden(f) and f.name != RUN]
    with publish_together(out, sorted(files)) as copies:
        for file, copy in copies.items():
            _copy(results / file, copy, out / file, own.get(file))
    with publish(out / RUN) as copy:
        _copy(results / RUN, copy, out / RUN, own.get(RUN))
    (out / UNFINISHED).unlink()


def _copy(source: Path, copy: Path, final: Path, text: str | None) -> None:
    """Fill the temporary file `copy` of `final` with the text, or with what is in `source`."""
    with disk_errors(final):
        if text is None:
            shutil.copyfile(source, copy)
        else:
            copy.write_text(text, encoding="utf-8")


def _own_texts(results: Path, facts: Mapping[str, Any], name: str) -> dict[str, str]:
    """Text of the files that have the name under which a person knows the sample; {} if that is the sample's own."""
    if name in ("", facts["sample"]):
        return {}
    texts = {
        file: text for file, text in multiqc_texts({name: facts["counts"]}).items() if file in facts["files"]
    }
    if REPORT in facts["files"]:
        page = (results / REPORT).read_text("utf-8")
        texts[REPORT] = renamed_report(page, facts["sample"], name)
    changed = {
        file: {"bytes": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()}
        for file, text in texts.items()
    }
    run = dict(facts) | {NAME: name, "files": facts["files"] | changed}
    return texts | {RUN: json_text(run)}


def _owner(out: Path) -> Owner | None:
    """The sample whose results are in `out`; None if no file says so."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        facts = json.loads((out / RUN).read_bytes())
        return Owner(str(facts["sample"]), str(facts["digests"]["sample"]), _settings(facts))
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        facts = json.loads((out / UNFINISHED).read_bytes())
        return Owner(str(facts["sample"]), str(facts["content"]), _settings(facts))
    return None


def _settings(facts: Mapping[str, Any]) -> SampleSettings | None:
    """The settings in a `run.json`; None if another version wrote them."""
    with suppress(KeyError, TypeError, UsageError):
        return SampleSettings(**facts["settings"])
    return None


def _is_variant(owner: Owner, settings: SampleSettings, home: Path) -> bool:
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
