"""Tags of runs: what the queue, the automation and the graph go by."""

import json
from collections.abc import Iterable, Mapping, Sequence

# Whose run it is: the value names the `virnucpro predict` that started it, or the sensor (presence.py).
DRIVER_TAG = "virnucpro/driver"
DRIVER = "predict-"  # how the names of such commands begin
# Every run of this project has the first, and the second where its home is known: an instance may be shared.
OWN_TAG = "virnucpro/run"
HOME_TAG = "virnucpro/home"
OWN_TAGS = {OWN_TAG: OWN_TAG}
# The partition keys of a run of several samples, as JSON: exactly what was asked for (graph/each.py).
KEYS_TAG = "virnucpro/keys"
# Samples that failed in a run of several, as JSON: name -> the line that says why.
FAILED_TAG = "virnucpro/failed"
# The rank whose device computes a run's lanes: the queue starts one run a rank at a time.
DEVICE_TAG = "virnucpro/gpu_rank"
MAX_RETRIES_TAG = "dagster/max_retries"
RANK_TAG = "dagster/partition/gpu_rank"
PRIORITY_TAG = "dagster/priority"
LAYER_TAG = "virnucpro/layer"
RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
# With this tag Dagster leaves it to the code to record what was materialized.
DEFERRED_TAG = "dagster/defer_asset_events"
# Where a run's sample stands: of a lane, and of a run of the whole sample (a lane's has `RANK|SAMPLE` there).
SAMPLE_TAGS = ("dagster/partition/sample", "dagster/partition")


def driver_tags(driver: str) -> dict[str, str]:
    """Tags of a run whose driver sees to what follows: its news starts nothing in the automation."""
    return {DRIVER_TAG: driver}


def keys_tags(keys: Sequence[str], order: Sequence[str]) -> dict[str, str]:
    """Tags of a run of several partitions. `order`: all samples, in the order in which Dagster was told of them.

    Dagster knows the keys of a run as one range, over two dimensions as the product of two. The range is the smallest
    that holds them all; the keys themselves stand beside it.
    """
    place = {name: number for number, name in enumerate(order)}
    samples = sorted({sample_in(key) for key in keys}, key=place.__getitem__)
    ranks = sorted({int(key.partition("|")[0]) for key in keys if "|" in key})
    ends = [(samples[0], ranks[:1]), (samples[-1], ranks[-1:])]
    bounds = ["|".join([*map(str, rank), sample]) for sample, rank in ends]
    return dict(zip(RANGE_TAGS, bounds, strict=True)) | {KEYS_TAG: json.dumps([str(key) for key in keys])}


def keys_between(tags: Mapping[str, str], order: Sequence[str]) -> list[str]:
    """The keys of the range that a run's tags give; none where they give no range, or its ends are not there."""
    if any(tag not in tags for tag in RANGE_TAGS):
        return []
    (low, bar, first), (high, _, last) = (tags[tag].rpartition("|") for tag in RANGE_TAGS)
    if first not in order or last not in order:
        return []
    samples = order[order.index(first) : order.index(last) + 1]
    ranks = range(int(low), int(high) + 1) if bar else ()
    return [f"{rank}|{name}" for rank in ranks for name in samples] if bar else list(samples)


def keys_in(tags: Mapping[str, str]) -> list[str]:
    """The partition keys that a run's tags name one by one; none where they name a single one, or only a range."""
    return [str(key) for key in json.loads(tags.get(KEYS_TAG, "[]"))]


def samples_in(tags: Mapping[str, str]) -> list[str]:
    """The samples of a run, each once, where its tags name them one by one or it is a run of one."""
    named: Iterable[str] = keys_in(tags) or [tags[tag] for tag in SAMPLE_TAGS if tag in tags][:1]
    return list(dict.fromkeys(sample_in(key) for key in named))


def failed_in(tags: Mapping[str, str]) -> dict[str, str]:
    """Sample -> why it failed, of those that failed in a run of several."""
    return {str(name): str(line) for name, line in json.loads(tags.get(FAILED_TAG, "{}")).items()}


def sample_in(key: str) -> str:
    """The sample of a partition key: `sample` or `RANK|sample`."""
    return key.rpartition("|")[2]
