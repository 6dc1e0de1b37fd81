"""Release products of a sample once its results are complete: delete their data, keep their digests.

The entry `00012.json` of a released shard becomes `00012.released`; a released column store has `store.released`.
Entries are renamed and the folder is synced before any data are deleted, so there is never an entry without its data.
If a release is interrupted, the products concerned count as released, not as damaged.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from virnucpro_core.engine import shards
from virnucpro_core.errors import StoreError, UsageError
from virnucpro_core.files import columns
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.files.publish import sync
from virnucpro_core.results.finished import read_results
from virnucpro_core.results.folder import RUN
from virnucpro_core.samples.occupancy import exclusive_lock
from virnucpro_core.samples.products import PRODUCTS
from virnucpro_core.samples.sample import Sample
from virnucpro_core.samples.settings import shown_settings

Keep = Literal["all", "scores", "results"]
# The products that a policy releases, in this order: virtual products before the data they show, embeddings before
# scores. Embeddings are nearly all of a sample's bytes; as long as the scores are kept, another cut-off needs no GPU.
RELEASES: dict[str, tuple[str, ...]] = {
    keep: tuple(
        name
        for first in (True, False)
        for name, product in reversed(PRODUCTS.items())
        if keep in product.released_by and ("scores" in product.released_by) == first
    )
    for keep in ("all", "scores", "results")
}


@dataclass(frozen=True, slots=True)
class Released:
    """What was released or would be: bytes and files of data by product."""

    bytes: dict[str, int]
    files: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.bytes.values())


def check_keep(keep: str) -> Keep:
    """Return `keep` if it is the name of a retention policy. Raises UsageError otherwise."""
    for known in ("all", "scores", "results"):
        if keep == known:
            return known  # type: ignore[return-value]
    raise UsageError(f"{keep!r} is not a retention policy", remedy=f"give one of {', '.join(RELEASES)}")


def releasable(sample: Sample, keep: Keep) -> Released:
    """What `release` would delete now. Reads only sizes and verifies nothing."""
    found = {product: list(_data(sample.product(product))) for product in RELEASES[keep]}
    return Released(
        {product: sum(f.stat().st_size for f in files) for product, files in found.items() if files},
        {product: len(files) for product, files in found.items() if files},
    )


def release(sample: Sample, keep: Keep) -> Released:
    """Release the products that `keep` does not keep. After an interruption, the same call continues.

    Raises StoreError, before anything is deleted, if a process works on the sample, or if its results are incomplete,
    do not match `run.json`, or were made from other sequences or settings than the sample has now.
    """
    with (
        disk_errors(sample.folder),
        exclusive_lock(sample.folder, f"sample {sample.name!r} was not cleaned: a process works on it"),
    ):
        require_results(sample)
        found = releasable(sample, keep)
        for product in RELEASES[keep]:
            _release(sample.product(product))
    return found


def require_results(sample: Sample) -> dict[str, Any]:
    """`run.json` of the sample's results. Raises StoreError if they do not verify or are not of the present sample."""
    facts = read_results(sample.results)
    if facts["digests"]["sample"] != sample.content or facts["settings"] != shown_settings(sample.settings):
        raise StoreError(
            "the results were made from other sequences or settings than the sample has now",
            where=sample.results,
            remedy="predict the sample again",
        )
    return facts


def is_cleaned(sample: Sample) -> bool:
    """Whether any product of the sample was released."""
    return any(was_released(sample, product) for product in RELEASES["results"])


def was_released(sample: Sample, product: str) -> bool:
    """Whether a part of the product was released and has not been made again."""
    folder = sample.product(product)
    if (folder / columns.RELEASED_HEADER).exists():
        return not (folder / columns.HEADER).exists()
    return any(not note.with_suffix(".json").exists() for note in folder.glob(f"*{shards.RELEASED_ENTRY}"))


def released_entries(sample: Sample, product: str, rank: int, world_size: int) -> dict[int, shards.Entry]:
    """Entries of a lane's shards by number, if all of them are released; {} if one was made again.

    Needs no frames, which may be released as well.
    """
    store = shards.ShardStore(sample.product(product), dataset="", identity={})
    own = {int(f.stem) for f in store.folder.glob("[0-9]*.*") if int(f.stem) % world_size == rank}
    found = {k: entry for k in sorted(own) if (entry := store.released(k)) is not None}
    return found if len(found) == len(own) else {}


def is_due(sample: Sample, keep: Keep, days: float) -> bool:
    """Whether the results are at least `days` old and there are products that `keep` does not keep.

    Entries without data count too: a backup may have left the data out.
    """
    run = sample.results / RUN
    if not run.exists() or time.time() - run.stat().st_mtime < days * 86_400:
        return False
    folders = [sample.product(product) for product in RELEASES[keep]]
    return any(next(found(folder), None) is not None for folder in folders for found in (_entries, _data))


def _release(folder: Path) -> None:
    for entry in list(_entries(folder)):
        entry.replace(entry.with_suffix(shards.RELEASED_ENTRY))
    data = list(_data(folder))
    if data:
        sync(folder)
    for file in data:
        file.unlink()
    if data:
        sync(folder)


def _entries(folder: Path) -> Iterator[Path]:
    return (file for pattern in ("[0-9]*.json", columns.HEADER) for file in folder.glob(pattern))


def _data(folder: Path) -> Iterator[Path]:
    return (file for pattern in ("*.h5", "*.bin") for file in folder.glob(pattern))
