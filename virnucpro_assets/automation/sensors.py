"""Sensors: `inbox` registers new samples, `follow` starts their next steps, `dead_runs` marks runs that have died."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from virnucpro_assets.automation.groups import backlog, group_request, groups
from virnucpro_assets.graph.partitions import SAMPLES
from virnucpro_assets.graph.records import arrived
from virnucpro_assets.platform.environment import IN_PROCESS, SLURM
from virnucpro_assets.platform.presence import mark_dead_runs
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.platform.tags import OWN_TAGS
from virnucpro_core.errors import VirnucproError, printable
from virnucpro_core.results.folder import RUN
from virnucpro_core.samples.inbox import Look, News, look, was_begun
from virnucpro_core.samples.inbox_state import clock, shown
from virnucpro_core.samples.sample import Sample
from virnucpro_core.samples.settings import SampleSettings, shown_settings

WORDS = {
    "registered": "registered",
    "taken": "taken",
    "refused": "refused, left in the inbox",
    "unreadable": "cannot be read now, will be tried again",
    "failing": "cannot be registered now, will be tried again",
}

follow = dg.AutomationConditionSensorDefinition(
    "follow",
    target=dg.AssetSelection.all(),
    minimum_interval_seconds=1,
    emit_backfills=False,
    run_tags=OWN_TAGS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Materializes each asset of a sample when the assets before it exist and have passed their checks.",
)


@dg.sensor(
    name="inbox",
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Registers complete files in $VIRNUCPRO_HOME/inbox as samples. Moves all other files aside.",
    job_name="sequences",
)
def inbox_sensor(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    """Scan the inbox and report what changed.

    The state of the inbox is kept in the home folder. The cursor holds the number of the last reported scan.
    """
    cursor = context.cursor or ""
    heard = int(cursor) if cursor.isdecimal() else None
    found = look(
        platform.folder,
        _settings_of(platform),
        now=clock(),
        stable_seconds=platform.inbox_stable_seconds,
        heard=heard,
    )
    events: list[dg.AssetMaterialization | dg.AssetObservation] = [
        _observation(context, news) for news in found.news
    ]
    samples = _unreported(context, platform, found)
    names = [sample.name for sample in samples]
    together = groups(samples, backlog(context.instance, platform.gpus)) if samples else []
    grouped = {name for _, share in together for name in share}
    events += [arrived(sample) for sample in samples if sample.name not in grouped]
    known = context.instance.get_dynamic_partitions(str(SAMPLES.name))
    order = [*known, *(name for name in names if name not in known)]
    requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    if names:
        requests.append(SAMPLES.build_add_request(names))
    if gone := [name for name in found.removed if name in known and name not in names]:
        requests.append(SAMPLES.build_delete_request(gone))
    return dg.SensorResult(
        skip_reason=None if events or together else _idle(found),
        cursor=str(found.number if found.registered else heard or 0),
        dynamic_partitions_requests=requests,
        asset_events=events,
        run_requests=[group_request("sequences", share, rank, order) for rank, share in together],
    )


def _settings_of(platform: Platform) -> Callable[[Mapping[str, Any]], SampleSettings]:
    """Makes the settings of a sample. Raises UsageError, WeightsError or DeviceError if they cannot be computed."""
    checked: set[SampleSettings] = set()

    def settings_of(given: Mapping[str, Any]) -> SampleSettings:
        settings = platform.sample_settings(**given)
        if settings not in checked:
            if platform.executor == IN_PROCESS:  # on a cluster, this machine says nothing about the others
                platform.check_device(settings)
            platform.profile_of(settings)
            checked.add(settings)
        return settings

    return settings_of


def _observation(context: dg.SensorEvaluationContext, news: News) -> dg.AssetObservation:
    """An observation of the asset `inbox`: what happened to some files. Makes file names safe to print."""
    files = [shown(name) for name in news.entries]
    what = "set aside" if news.moved_to else WORDS[news.kind]
    context.log.warning("%s %s: %s", what, ", ".join(files), news.said)
    metadata: dict[str, dg.MetadataValue] = {"files": dg.MetadataValue.json(files)}
    if news.moved_to:
        metadata["moved_to"] = dg.MetadataValue.path(printable(str(news.moved_to)))
    if news.sample:
        metadata["sample"] = dg.MetadataValue.text(news.sample)
    return dg.AssetObservation(
        "inbox", partition=news.sample or None, description=f"{what}: {news.said}", metadata=metadata
    )


def _unreported(context: dg.SensorEvaluationContext, platform: Platform, found: Look) -> list[Sample]:
    """Registered samples that Dagster may not know: they have no partition, or no run has used their files or settings.

    Dagster stores the cursor after a tick's reports. If a tick is killed in between, the next one reports again.
    """
    if not found.registered:
        return []
    known = set(context.instance.get_dynamic_partitions(str(SAMPLES.name)))
    samples = []
    for name in found.registered:
        try:
            sample = platform.sample(name)
        except VirnucproError as error:  # removed or damaged; the other samples go on
            context.log.warning("%s", error)
            continue
        if name not in known or not was_begun(sample) or _has_earlier_results(sample):
            samples.append(sample)
    return samples


def _has_earlier_results(sample: Sample) -> bool:
    """Whether the results were made with another cut-off, say, than the sample has now."""
    run = sample.results / RUN
    return run.exists() and json.loads(run.read_bytes())["settings"] != shown_settings(sample.settings)


def _idle(found: Look) -> str:
    """One line that says why this tick starts nothing."""
    parts = [f"files still arriving: {found.arriving}"] if found.arriving else []
    if found.problems:
        first = found.problems[0]
        parts.append(f"files with problems: {len(found.problems)}, such as {shown(first.name)}: {first.said}")
    return "; ".join(parts) or "nothing new"


@dg.sensor(
    name="dead_runs",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Marks a run as failed if its process has died, so that it does not block the queue.",
)
def dead_runs(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
    # With Slurm the steps are jobs, and the process of the run is on this machine.
    if platform.executor not in (IN_PROCESS, SLURM):
        return dg.SkipReason("on a cluster, the run launcher watches the runs")
    return dg.SkipReason(f"dead runs found: {len(mark_dead_runs(context.instance, platform.folder))}")
