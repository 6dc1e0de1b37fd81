"""Check before the work that a folder can be written."""

import errno
from pathlib import Path

from virnucpro_core.errors import StoreError, UsageError
from virnucpro_core.files.publish import temporary_folder

# Errors of a disk or a process that another try need not meet.
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EINTR, errno.ESTALE)


def check_writable(folder: Path, option: str = "--out") -> None:
    """Raises UsageError if a folder cannot be made or written. Checks by writing a temporary folder.

    option: what gives another folder. Raises StoreError if that may be otherwise in a moment: a full disk, too many
    open files.
    """
    place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not place.is_dir():
        raise UsageError("is not a folder", where=place, remedy=f"give another {option}")
    try:
        with temporary_folder(place):
            pass
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        if error.errno in _PASSING:
            raise StoreError(what, where=place, remedy="run the same command again when it can") from error
        remedy = f"give another {option}, or check its permissions"
        raise UsageError(what, where=place, remedy=remedy) from error
