"""VirNucPro as a Dagster asset graph."""

import os
import sys

# ruff: noqa: PTH100, PTH109, PTH117, PTH120, TID251 - nothing is imported yet, not even pathlib


def _leave_working_folder_out() -> None:
    """Remove the current folder from the import path, of this process and of its children.

    `python -m virnucpro_assets...` puts it first, before the standard library, and an empty or relative entry of
    PYTHONPATH brings it in as well. It stays only if this package itself was imported from there, or if PYTHONPATH
    names it by its absolute path.
    """
    here, current = os.path.dirname(os.path.dirname(os.path.abspath(__file__))), os.getcwd()
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.environ.get("PYTHONPATH") else []
    kept = [path for path in map(os.path.abspath, given) if path in (here, *given) or path != current]
    if kept != given:
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
        if current not in (here, *kept):
            sys.path[:] = [path for path in sys.path if path and os.path.abspath(path) != current]
    # Python sets argv[0] to `-m` while it searches for the module.
    if sys.argv[:1] != ["-m"] or sys.flags.safe_path or not sys.path:
        return
    if os.path.isabs(sys.path[0]) and sys.path[0] != here:
        del sys.path[0]


_leave_working_folder_out()
