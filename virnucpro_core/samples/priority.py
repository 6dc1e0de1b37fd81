"""A sample's priority in the queue, as set by the user. It does not change any result."""

import json

from virnucpro_core.errors import StoreError
from virnucpro_core.files.publish import publish_json
from virnucpro_core.samples.sample import Sample


def read_priority(sample: Sample) -> int | None:
    """The sample's priority, None if none was set. Raises StoreError if the file is damaged."""
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
    """Store the sample's priority in the queue. It does not change any result."""
    publish_json(sample.folder / "priority.json", {"priority": priority})
