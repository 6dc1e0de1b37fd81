"""Starts programs without the right of root to read and write everything, so that permissions can be tested as root."""

import os
from collections.abc import Sequence

_DROPPED = "-dac_override,-dac_read_search"


def without_rights(command: Sequence[str]) -> list[str]:
    """The command for a user whom permissions stop: as it is for all but root. `setpriv` is part of util-linux."""
    if os.geteuid() != 0:
        return list(command)
    return ["setpriv", "--inh-caps", _DROPPED, "--bounding-set", _DROPPED, *command]
