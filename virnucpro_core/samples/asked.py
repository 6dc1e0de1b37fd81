"""Which command asks for a sample now: written while it runs, so that the results can say how they were made."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from virnucpro_core.files.publish import publish_json
from virnucpro_core.samples.sample import Sample

ASKED = "asked.json"


@contextlib.contextmanager
def asking(samples: Sequence[Sample], command: str) -> Iterator[None]:
    """Inside the block, `made_by` of these samples names this command line."""
    facts = {"command": command, "since": time.time()}
    for sample in samples:
        publish_json(sample.folder / ASKED, facts)
    try:
        yield
    finally:
        for sample in samples:
            (sample.folder / ASKED).unlink(missing_ok=True)


def made_by(sample: Sample) -> dict[str, Any]:
    """When and where results are made now: date (UTC), host; the command, and seconds since it began.

    Command and seconds are "" and None if no command asks for the sample, such as for runs of the web UI.
    """
    facts: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        facts = json.loads((sample.folder / ASKED).read_bytes())
    since = facts.get("since")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "command": str(facts.get("command", "")),
        "seconds": None if since is None else round(time.time() - float(since), 1),
    }
