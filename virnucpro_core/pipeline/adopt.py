"""Take over what another sample of the same bytes has computed already: a variant, or the same file under another name.

Everything that counts as equal by the product's identity is linked, not copied: the bytes exist once on the disk until
the last sample that has them is cleaned or removed. What cannot be linked is computed.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from virnucpro_core.engine.shards import ShardStore
from virnucpro_core.errors import StoreError, VirnucproError
from virnucpro_core.files.publish import publish_folder, publish_link
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.samples.sample import Sample, open_sample, same_content

log = logging.getLogger(__name__)


def adopt_store(sample: Sample, product: str, fits: Callable[[Path], bool]) -> bool:
    """Link the store `product` of another sample of the same bytes for which `fits(folder)` holds, if there is one."""
    for other in _others(sample):
        folder = other.product(product)
        try:
            if not fits(folder):
                continue
            with publish_folder(sample.product(product)) as temporary:
                for file in folder.iterdir():
                    publish_link(temporary / file.name, file)
        except (
            StoreError,
            OSError,
        ) as error:  # none there, cleaned just now, or no links on this file system
            log.debug("%s: %s", folder, error)
            continue
        return True
    return False


def adopt_shards(lane: Lane, product: str, shards: Sequence[int]) -> set[int]:
    """Link those of the shards that another sample of the same bytes has. Returns them; each was verified."""
    own = lane.store(product)
    found: set[int] = set()
    for other in _others(lane.sample):
        store = ShardStore(other.product(product), dataset=own.dataset, identity=own.identity)
        found |= {k for k in shards if k not in found and own.adopt(k, lane.ids(k), store)}
    return found


def _others(sample: Sample) -> Iterator[Sample]:
    for name in same_content(sample.home, sample.content):
        if name != sample.name:
            with suppress(VirnucproError):  # removed meanwhile
                yield open_sample(sample.home, name)
