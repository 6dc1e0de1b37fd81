"""VirNucPro as a Dagster asset graph."""

import os
import sys


def _leave_working_folder_out() -> None:
    """`python -m virnucpro_assets...` puts the folder where the user stands before the standard library.

    Nothing is imported from there any more, unless this package itself was.
    """
    # While the module is looked for, `-m` stands in place of its name.
    if sys.argv[:1] != ["-m"] or sys.flags.safe_path or not sys.path:
        return
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - no import from there yet
    if os.path.isabs(sys.path[0]) and sys.path[0] != here:  # noqa: PTH117
        del sys.path[0]


_leave_working_folder_out()
