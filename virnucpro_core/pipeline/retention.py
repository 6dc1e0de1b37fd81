"""What of a sample stays once its results are whole, and how the rest is let go.

A product is released: its data are deleted, its digests stay (`00012.released` where `00012.json` was, and
`store.released`). Entries are renamed and the folder synced before the first byte of data goes. So there is never
an entry without its data, and whatever stops a release, nothing that it took is believed damaged: it is released.
Knows files, names and what `run.json` says; knows no model and no policy's clock.
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
from virnucpro_core.results.folder import RUN, read_results
from virnucpro_core.samples.occupancy import exclusive_lock
from virnucpro_core.samples.products import PRODUCTS
from virnucpro_core.samples.sample import Sample
from virnucpro_core.samples.settings import shown_settings

Keep = Literal["all", "scores", "results"]
# What goes, in this order: what shows others' data before the data, and scores after embeddings. Those are nearly all
# of a sample's bytes; with the scores kept, another cut-off needs no GPU.
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
    """What went, or would go: bytes and files of data by product."""

    bytes: dict[str, int]
    files: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.bytes.values())


def check_keep(keep: str) -> Keep:
    """The policy's name. Raises UsageError."""
    for known in ("all", "scores", "results"):
        if keep == known:
            return known  # type: ignore[return-value]
    raise UsageError(f"{keep!r} is no retention policy", remedy=f"keep one of {', '.join(RELEASES)}")


def releasable(sample: Sample, keep: Keep) -> Released:
    """What `release` would delete now; looks at sizes, verifies nothing."""
    found = {product: list(_data(sample.product(product))) for product in RELEASES[keep]}
    return Released(
        {product: sum(f.stat().st_size for f in files) for product, files in found.items() if files},
        {product: len(files) for product, files in found.items() if files},
    )


def release(sample: Sample, keep: Keep) -> Released:
    """Let go of what `keep` does not keep. The same call again goes on wherever an earlier one was stopped.

    Raises StoreError, having deleted nothing, if a process works on the sample, or if its results are not complete,
    not what `run.json` says, or of other sequences or settings than the sample now has.
    """
    with (
        disk_errors(sample.folder),
        exclusive_lock(sample.folder, f"sample {sample.name!r} is not cleaned, a process works on it"),
    ):
        require_results(sample)
        found = releasable(sample, keep)
        for product in RELEASES[keep]:
            _release(sample.product(product))
    return found


def require_results(sample: Sample) -> dict[str, Any]:
    """`run.json` of results that verify and are of this sample as it is registered now; else StoreError."""
    facts = read_results(sample.results)
    if facts["digests"]["sample"] != sample.content or facts["settings"] != shown_settings(sample.settings):
        raise StoreError(
            "the results are of other sequences or settings than the sample has now",
            where=sample.results,
            remedy="predict the sample again",
        )
    return facts


def is_cleaned(sample: Sample) -> bool:
    """Whether anything of the sample was released."""
    return any(was_released(sample, product) for product in RELEASES["results"])


def was_released(sample: Sample, product: str) -> bool:
    """Whether some of the product was let go and not made again."""
    folder = sample.product(product)
    if (folder / columns.RELEASED_HEADER).exists():
        return not (folder / columns.HEADER).exists()
    return any(not note.with_suffix(".json").exists() for note in folder.glob(f"*{shards.RELEASED_ENTRY}"))


def released_entries(sample: Sample, product: str, rank: int, world_size: int) -> dict[int, shards.Entry]:
    """Entries of a lane's shards by number, if all of them were let go; {} where one was made again.

    Needs no frames: those may have been let go as well.
    """
    store = shards.ShardStore(sample.product(product), dataset="", identity={})
    own = {int(f.stem) for f in store.folder.glob("[0-9]*.*") if int(f.stem) % world_size == rank}
    found = {k: entry for k in sorted(own) if (entry := store.released(k)) is not None}
    return found if len(found) == len(own) else {}


def is_due(sample: Sample, keep: Keep, days: float) -> bool:
    """Whether the results are at least `days` old and there is something that `keep` does not keep.

    That may be entries alone, of data that a backup left out.
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
