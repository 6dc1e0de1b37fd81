"""The sha256 of a result file, for comparing two predictions of one sample."""

import hashlib
import json
from pathlib import Path

from virnucpro_core.results.folder import MADE, RUN


def digest_of(file: Path) -> str:
    """Hex sha256 of the file; of `run.json` without its date, host and command."""
    data = file.read_bytes()
    if file.name == RUN:
        facts = json.loads(data)
        facts.pop(MADE, None)
        data = json.dumps(facts, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()
