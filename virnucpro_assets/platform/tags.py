"""The run tags that the queue, the automation and the graph read and write."""

import json
from collections.abc import Iterable, Mapping, Sequence

# What drives the run: the name of a `virnucpro predict` process, or "inbox group" (see presence.py).
DRIVER_TAG = "virnucpro/driver"
DRIVER = "predict-"  # the prefix of the names of `virnucpro predict` processes
# Every run of this project has the first tag, and the second if its home is known. Others may share the instance.
OWN_TAG = "virnucpro/run"
HOME_TAG = "virnucpro/home"
OWN_TAGS = {OWN_TAG: OWN_TAG}
# The exact partition keys of a run of several samples, as JSON (see graph/each.py).
KEYS_TAG = "virnucpro/keys"
# Samples that failed in a run of several samples, as JSON: name -> error message.
FAILED_TAG = "virnucpro/failed"
# The rank whose device computes the lanes of the run. The queue starts one run per rank at a time.
DEVICE_TAG = "virnucpro/gpu_rank"
MAX_RETRIES_TAG = "dagster/max_retries"
RANK_TAG = "dagster/partition/gpu_rank"
PRIORITY_TAG = "dagster/priority"
LAYER_TAG = "virnucpro/layer"
RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
# With this tag Dagster does not record materializations itself; the code must do it.
DEFERRED_TAG = "dagster/defer_asset_events"
# A tag of a materialization: the version of its data.
DATA_VERSION_TAG = "dagster/data_version"
# The tags that hold a run's sample: the first for lanes; the second for whole samples (lanes have `RANK|SAMPLE` there).
SAMPLE_TAGS = ("dagster/partition/sample", "dagster/partition")


def driver_tags(driver: str) -> dict[str, str]:
    """Tags of a run whose driver also starts the next runs. The automation starts nothing after such a run."""
    return {DRIVER_TAG: driver}


def keys_tags(keys: Sequence[str], order: Sequence[str]) -> dict[str, str]:
    """Tags of a run of several partitions. order: all samples, in the order in which they were added to Dagster.

    Dagster describes the partitions of a run by one range; with two dimensions, by the product of two ranges. The tags
    hold the smallest range that includes all keys, and also the keys themselves.
    """
    place = {name: number for number, name in enumerate(order)}
    samples = sorted({sample_in(key) for key in keys}, key=place.__getitem__)
    ranks = sorted({int(key.partition("|")[0]) for key in keys if "|" in key})
    ends = [(samples[0], ranks[:1]), (samples[-1], ranks[-1:])]
    bounds = ["|".join([*map(str, rank), sample]) for sample, rank in ends]
    return dict(zip(RANGE_TAGS, bounds, strict=True)) | {KEYS_TAG: json.dumps([str(key) for key in keys])}


def keys_between(tags: Mapping[str, str], order: Sequence[str]) -> list[str]:
    """The keys of the range in a run's tags; none if there is no range, or if an end of it does not exist."""
    if any(tag not in tags for tag in RANGE_TAGS):
        return []
    (low, bar, first), (high, _, last) = (tags[tag].rpartition("|") for tag in RANGE_TAGS)
    if first not in order or last not in order:
        return []
    samples = order[order.index(first) : order.index(last) + 1]
    ranks = range(int(low), int(high) + 1) if bar else ()
    return [f"{rank}|{name}" for rank in ranks for name in samples] if bar else list(samples)


def keys_in(tags: Mapping[str, str]) -> list[str]:
    """The partition keys that a run's tags list; none if the tags hold only a single key or a range."""
    return [str(key) for key in json.loads(tags.get(KEYS_TAG, "[]"))]


def samples_in(tags: Mapping[str, str]) -> list[str]:
    """The samples of a run, without repeats. Empty if the tags hold only a range."""
    named: Iterable[str] = keys_in(tags) or [tags[tag] for tag in SAMPLE_TAGS if tag in tags][:1]
    return list(dict.fromkeys(sample_in(key) for key in named))


def failed_in(tags: Mapping[str, str]) -> dict[str, str]:
    """Sample -> why it failed, for the samples that failed in a run of several."""
    return {str(name): str(line) for name, line in json.loads(tags.get(FAILED_TAG, "{}")).items()}


def sample_in(key: str) -> str:
    """The sample of a partition key: `sample` or `RANK|sample`."""
    return key.rpartition("|")[2]
