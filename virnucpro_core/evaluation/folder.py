"""The folder of an evaluation: the names of its files, and when files that are there may be replaced."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from virnucpro_core.errors import UsageError
from virnucpro_core.evaluation.evaluation import JSON, PAGE, TABLE
from virnucpro_core.files.writable import check_writable
from virnucpro_core.results.folder import RUN
from virnucpro_core.samples.inputs import content_digest, digest_inputs

PIECES = "pieces.fa"
PREDICTIONS = "predictions"
_REMEDY = "give another --out, or --force to replace it"


def check_folder(out: Path, sample: str, *, force: bool) -> None:
    """Raises UsageError if the evaluation of `sample` cannot be written to `out`, or must not without `force`.

    It may replace an earlier evaluation of the same sample, and nothing else.
    """
    check_writable(out)
    for name in (JSON, TABLE, PAGE, PIECES):
        if (out / name).is_dir():
            raise UsageError("is a folder", where=out / name, remedy="give another --out")
    if force:
        return
    if not os.path.lexists(out / JSON):
        for name in (TABLE, PAGE):
            if os.path.lexists(out / name):
                raise UsageError(f"holds {name}, which is not of this evaluation", where=out, remedy=_REMEDY)
        return
    owner = ""
    with suppress(OSError, ValueError, KeyError, TypeError):
        owner = json.loads((out / JSON).read_bytes())["run"]["sample"]
    if owner != sample:
        raise UsageError(f"holds the evaluation of {owner or 'something else'!r}", where=out, remedy=_REMEDY)


def check_pieces(out: Path, new: Path) -> None:
    """Raises UsageError if `pieces.fa` in `out` has neither the bytes of `new` nor those of an earlier evaluation."""
    there = out / PIECES
    if not os.path.lexists(there):
        return
    if there.is_file():
        digest = content_digest(digest_inputs([there]))
        if digest in (content_digest(digest_inputs([new])), *_earlier(out)):
            return
    raise UsageError(f"holds {PIECES}, which is not of this evaluation", where=out, remedy=_REMEDY)


def _earlier(out: Path) -> Sequence[str]:
    """`Sample.content` of the pieces that were evaluated, or predicted, in this folder."""
    found = []
    with suppress(OSError, ValueError, KeyError, TypeError):
        found.append(str(json.loads((out / JSON).read_bytes())["run"]["digests"]["sample"]))
    with suppress(OSError, ValueError, KeyError, TypeError):
        found.append(str(json.loads((out / PREDICTIONS / RUN).read_bytes())["digests"]["sample"]))
    return found
