"""Copy a sample's results into the folder that the user has named, and check beforehand that this is allowed.

`run.json` in the folder says which sample its results belong to. Other files in the folder are never touched.
"""

import errno
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from virnucpro_core.errors import StoreError, UsageError, printable
from virnucpro_core.files.publish import publish, publish_json, sweep, temporary_folder
from virnucpro_core.results.folder import RESULT_FILES, RUN
from virnucpro_core.samples.inputs import content_digest, digest_inputs
from virnucpro_core.samples.naming import is_named_from
from virnucpro_core.sequences.names import looks_like_sequence_file

# Says which sample's results are being copied into the folder, as long as there is no `run.json`.
# Errors of a disk or a process that another try need not meet.
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EINTR, errno.ESTALE)
UNFINISHED = ".virnucpro-delivery.json"


def check_out(
    out: Path,
    sample: str,
    inputs: Sequence[Path],
    *,
    home: Path,
    force: bool = False,
    fresh: bool = False,
) -> None:
    """Raises UsageError if the results of `sample` cannot, or must not, be copied into `out`.

    They may replace only earlier results of the same sample or of a variant of it, which the home folder keeps; with
    `fresh` those of other sequences under the same name too. A folder with other sequence files is refused: results
    among them would be taken for input later. `force` allows all of it.
    """
    check_writable(out)
    taken = [name for name in RESULT_FILES if (out / name).exists()]
    if force:
        return
    owner = _owner(out)
    foreign = sorted(
        f.name for f in out.glob("*") if f.name not in RESULT_FILES and looks_like_sequence_file(f)
    )
    if foreign and owner is None:
        what = f"holds sequence files that are not results ({printable(foreign[0])}, {len(foreign)} in all)"
        raise UsageError(what, where=out, remedy="give another --out, or --force to write beside them")
    if not taken:
        return
    same = owner is not None and is_named_from(home, owner[0], sample)
    if owner and same and (fresh or owner[1] == content_digest(digest_inputs(inputs))):
        return
    if owner is None:
        what = f"holds a {taken[0]} that is not a result of this sample"
    elif same:
        what = f"holds the results of other sequences under the name {sample!r}"
    else:
        what = f"holds the results of sample {owner[0]!r}"
    raise UsageError(what, where=out, remedy="give another --out, or --force to replace them")


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


def deliver(results: Path, out: Path) -> None:
    """Copy a sample's results folder to `out`, each file atomically, `run.json` last. Needs little memory.

    Raises StoreError for disk errors. If it was interrupted, the same call completes it.
    """
    facts = json.loads((results / RUN).read_bytes())
    publish_json(out / UNFINISHED, {"sample": facts["sample"], "content": facts["digests"]["sample"]})
    sweep(out)
    for name in (RUN, *RESULT_FILES):  # files of earlier results that these ones do not have, such as reads
        if name == RUN or not (results / name).exists():
            (out / name).unlink(missing_ok=True)
    for file in sorted(results.iterdir(), key=lambda f: f.name == RUN):
        if file.is_file() and not file.name.startswith("."):
            with publish(out / file.name) as temporary:
                shutil.copyfile(file, temporary)
    (out / UNFINISHED).unlink()


def _owner(out: Path) -> tuple[str, str] | None:
    """Name and content of the sample whose results are in `out`; None if no file says so."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        facts = json.loads((out / RUN).read_bytes())
        return str(facts["sample"]), str(facts["digests"]["sample"])
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        facts = json.loads((out / UNFINISHED).read_bytes())
        return str(facts["sample"]), str(facts["content"])
    return None
