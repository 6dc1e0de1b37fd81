"""VirNucPro as a Dagster asset graph."""

import os
import sys


def _leave_working_folder_out() -> None:
    """Remove the current folder from the import path.

    `python -m virnucpro_assets...` puts it first, before the standard library. It stays only if this package
    itself was imported from there.
    """
    # Python sets argv[0] to `-m` while it searches for the module.
    if sys.argv[:1] != ["-m"] or sys.flags.safe_path or not sys.path:
        return
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - nothing is imported from there yet
    if os.path.isabs(sys.path[0]) and sys.path[0] != here:  # noqa: PTH117
        del sys.path[0]


_leave_working_folder_out()
