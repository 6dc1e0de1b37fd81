"""Results in the folder that the user has named: whether they may be put there, and putting them there.

Knows the names of result files and whose they are by `run.json`. What else lies in the folder is left alone.
"""

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from virnucpro_core.errors import UsageError
from virnucpro_core.files.publish import publish, publish_json, sweep, temporary_folder
from virnucpro_core.results.folder import RESULT_FILES, RUN
from virnucpro_core.samples.inputs import content_digest, digest_inputs

# Says whose results are being put into the folder, until `run.json` does.
UNFINISHED = ".virnucpro-delivery.json"


def check_out(
    out: Path, sample: str, inputs: Sequence[Path], *, force: bool = False, fresh: bool = False
) -> None:
    """Raises UsageError where the results of `sample` cannot, or must not, be put into `out`.

    They must not replace files that are not this sample's results: of the same name and the same inputs, or with
    `fresh` of the same name. `force` replaces whatever has their names.
    """
    check_writable(out)
    taken = [name for name in RESULT_FILES if (out / name).exists()]
    if force or not taken:
        return
    owner = _owner(out)
    same = owner is not None and owner[0] == sample
    if same and (fresh or owner == (sample, content_digest(digest_inputs(inputs)))):
        return
    if owner is None:
        what = f"holds a {taken[0]} that is no result of this sample"
    elif same:
        what = f"holds the results of other sequences under the name {sample!r}"
    else:
        what = f"holds the results of sample {owner[0]!r}"
    raise UsageError(what, where=out, remedy="give another --out, or --force to replace them")


def check_replaceable(out: Path, *, force: bool = False) -> None:
    """Raises UsageError where a new folder cannot, or without `force` must not, take the place of `out`."""
    check_writable(out)
    if not force and out.is_dir() and any(out.iterdir()):
        raise UsageError(
            "is there already, and would be replaced as a whole",
            where=out,
            remedy="give another --out, or --force to replace it",
        )


def check_writable(out: Path) -> None:
    """Raises UsageError where a folder `out` cannot be made or written, found out by trying."""
    place = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not place.is_dir():
        raise UsageError("is no folder", where=place, remedy="give another --out")
    try:
        with temporary_folder(place):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror or error}",
            where=place,
            remedy="give another --out, or check its rights",
        ) from error


def deliver(results: Path, out: Path) -> None:
    """Copy a sample's results folder to `out`, each file whole, `run.json` last. Memory does not grow with them.

    Raises StoreError where the disk refuses. Stopped anywhere, the same call again ends it.
    """
    facts = json.loads((results / RUN).read_bytes())
    publish_json(out / UNFINISHED, {"sample": facts["sample"], "content": facts["digests"]["sample"]})
    sweep(out)
    with suppress(FileNotFoundError):
        (out / RUN).unlink()
    for file in sorted(results.iterdir(), key=lambda f: f.name == RUN):
        if file.is_file() and not file.name.startswith("."):
            with publish(out / file.name) as temporary:
                shutil.copyfile(file, temporary)
    (out / UNFINISHED).unlink()


def _owner(out: Path) -> tuple[str, str] | None:
    """Name and content of the sample whose results these are; None where nothing says so."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        facts = json.loads((out / RUN).read_bytes())
        return str(facts["sample"]), str(facts["digests"]["sample"])
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        facts = json.loads((out / UNFINISHED).read_bytes())
        return str(facts["sample"]), str(facts["content"])
    return None
