"""The place in the queue that a person asked for; it changes nothing that is computed."""

import json

from virnucpro_core.errors import StoreError
from virnucpro_core.files.publish import publish_json
from virnucpro_core.samples.sample import Sample


def read_priority(sample: Sample) -> int | None:
    """The place in the queue that was asked for the sample; None where nobody asked. Raises StoreError if damaged."""
    file = sample.folder / "priority.json"
    try:
        return int(json.loads(file.read_bytes())["priority"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"damaged ({error})", where=file, remedy="give it again with `virnucpro priority`"
        ) from error


def write_priority(sample: Sample, priority: int) -> None:
    """Remember the sample's place in the queue; it changes nothing that is computed."""
    publish_json(sample.folder / "priority.json", {"priority": priority})
