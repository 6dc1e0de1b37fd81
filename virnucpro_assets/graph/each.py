"""How a step goes through the samples of its run: one, or several that share a model load.

Every asset and check is written for one key, and comes here with it. In a run of one key Dagster records what the step
returns. In a run of several each key is recorded as soon as it is made, with its own metadata and data version; a
sample that fails is left out of the run's further steps, named with its reason in the run's log and in its tag
`virnucpro/failed`, and stops no other.

Why Dagster does not record the keys of such a run itself: it would record all of them with one data version, at the
end of the step, the failed ones too, and a check's result for no partition at all (1.13.27, tests/assets/graph/
test_each.py). The run's tag `dagster/defer_asset_events` leaves it to us.
"""

import contextlib
import json
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, TypeVar

import dagster as dg

from virnucpro_assets.graph.partitions import Context, keys_of, lane_of
from virnucpro_assets.graph.records import materialization, observe_shard, one_line_failures, tried_again
from virnucpro_assets.platform.instance import quick_event_log
from virnucpro_assets.platform.resource import Platform, kept_device
from virnucpro_assets.platform.tags import DEFERRED_TAG, DEVICE_TAG, FAILED_TAG, failed_in, sample_in
from virnucpro_core.devices.compute import Compute
from virnucpro_core.encoders.loaded import kept_encoders
from virnucpro_core.errors import DeviceLostError, StoreError, VirnucproError, one_line
from virnucpro_core.pipeline.audit import Finding
from virnucpro_core.pipeline.lane import Lane, OnShard

Made = TypeVar("Made")
Result = dg.MaterializeResult[Any]


def each(
    context: dg.AssetExecutionContext,
    make: Callable[[str], Result],
    *,
    device: bool = False,
    retried: bool = False,
) -> Iterator[dg.AssetMaterialization | Result]:
    """What an asset's body yields: `make(key)` for every key of the run.

    device: it computes on the GPU, which is held once for all keys. retried: a run of one key tries a step again that
    failed for want of memory, a disk or the like. Raises dg.Failure; in a run of several, where no key is left.
    """
    keys = keys_of(context)
    if len(keys) == 1:
        with tried_again(context) if retried else contextlib.nullcontext(), one_line_failures(context):
            made = make(keys[0])
        yield made
        return
    context.run.tags[DEFERRED_TAG] = "true"  # type: ignore[index] # before Dagster looks: at the end of the step
    with one_line_failures(context), _shared(context, device=device):
        for key, made in _good(context, keys, make):
            yield materialization(context, key, made)
        _require_one(context, keys)
    yield dg.MaterializeResult()


def each_checked(
    context: dg.AssetCheckExecutionContext,
    asset: str,
    look: Callable[[str], list[Finding]],
    *,
    device: bool = False,
) -> Iterator[dg.AssetCheckResult | dg.AssetCheckEvaluation | dg.Output[None]]:
    """What a check's body yields: what `look(key)` finds of every key of the run. `device` as in `each`."""
    keys = keys_of(context)
    if len(keys) == 1:
        with one_line_failures(context):
            findings = look(keys[0])
        nothing = "there is nothing of this partition to look at"
        asked = sorted(check.name for check in context.op_execution_context.selected_asset_check_keys)
        for f in findings or [Finding(name, passed=True, what=nothing, facts={}) for name in asked]:
            yield dg.AssetCheckResult(
                passed=f.passed, asset_key=asset, check_name=f.name, metadata=f.facts, description=f.what
            )
        return
    found: list[tuple[str, Finding]] = []

    def require(key: str) -> None:
        findings = look(key)
        found.extend((key, finding) for finding in findings)
        bad = [finding.name for finding in findings if not finding.passed]
        if bad:
            raise StoreError(f"check {', '.join(bad)} of {asset} failed", where=key)

    with one_line_failures(context), _shared(context, device=device):
        for _ in _good(context, keys, require):
            yield from (_evaluation(asset, key, finding) for key, finding in found)
            found.clear()
        yield from (
            _evaluation(asset, key, finding) for key, finding in found
        )  # of the last ones, if they failed
        _require_one(context, keys)
    for name in sorted(context.op_execution_context.selected_output_names):
        yield dg.Output(None, name)


def on_shard(context: dg.AssetExecutionContext, key: str) -> OnShard:
    """Records a finished shard while the step runs; in a run of several samples, which are small, nothing."""
    return (lambda _: None) if is_shared(context) else (lambda entry: observe_shard(context, key, entry))


def compute_of(context: Context, platform: Platform, lane: Lane) -> Compute:
    """How the lane computes in this run: where several keys share a device, on that of the run's rank."""
    compute, keys = platform.compute(lane), keys_of(context)
    if len(keys) == 1:
        return compute
    rank = int(context.run.tags.get(DEVICE_TAG) or lane_of(keys[0])[1])
    # A small sample has a shard or two: a loader process for each would overlap nothing.
    return replace(compute, rank=rank, loader=replace(compute.loader, workers=0))


def is_shared(context: Context) -> bool:
    """Whether the run is one of several keys."""
    return len(keys_of(context)) > 1


def _good(context: Context, keys: list[str], make: Callable[[str], Made]) -> Iterator[tuple[str, Made]]:
    """(key, what was made) of the samples that have not failed in this run, now or in an earlier step.

    While one is recorded, which takes Dagster up to a second, the next one is made by a thread.
    """
    failed = _failed(context)
    for key, made in _ahead(make, [key for key in keys if sample_in(key) not in failed]):
        name = sample_in(key)
        if name in failed:
            continue
        try:
            result = made.result()
        except (DeviceLostError, dg.DagsterError, RuntimeError):
            raise  # not the sample's fault; torch tells of a broken device by a RuntimeError
        except VirnucproError as error:
            failed[name] = str(error)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a sample, it stops no other
            context.log.error("%s", traceback.format_exc())
            failed[name] = one_line(key, f"{type(error).__name__}: {error}", "")
        else:
            yield key, result
            continue
        context.log.error("%s failed, the run goes on without it: %s", name, failed[name])
        context.instance.add_run_tags(context.run.run_id, {FAILED_TAG: json.dumps(failed)})


def _ahead(make: Callable[[str], Made], keys: list[str]) -> Iterator[tuple[str, Future[Made]]]:
    """(key, what `make` makes of it), in order; one is made while the one before is used."""
    with ThreadPoolExecutor(1) as thread:
        following = [(key, thread.submit(make, key)) for key in keys[:1]]
        for next_key in [*keys[1:], None]:
            key, made = following.pop()
            wait([made])
            if next_key is not None:
                following.append((next_key, thread.submit(make, next_key)))
            yield key, made


def _failed(context: Context) -> dict[str, str]:
    """Sample -> why it failed in this run. In the run's tags, for a step may have a process of its own."""
    run = context.instance.get_run_by_id(context.run.run_id)
    return failed_in(run.tags) if run is not None else {}


def _require_one(context: Context, keys: list[str]) -> None:
    failed = _failed(context)
    if all(sample_in(key) in failed for key in keys):
        raise StoreError(f"every sample of the run failed; {next(iter(failed.values()))}")


@contextlib.contextmanager
def _shared(context: Context, *, device: bool) -> Iterator[None]:
    """What the keys of a step share: the device, what is loaded on it, and the files of the event log."""
    with contextlib.ExitStack() as shared:
        shared.enter_context(quick_event_log(context.instance, context.run.run_id))
        if device:
            shared.enter_context(kept_device())
            shared.enter_context(kept_encoders())
        yield


def _evaluation(asset: str, key: str, finding: Finding) -> dg.AssetCheckEvaluation:
    """What Dagster records of a finding. Not blocking here: that would stop the run for the other samples."""
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(asset),
        check_name=finding.name,
        passed=finding.passed,
        metadata=finding.facts,
        description=finding.what,
        partition=key,
        blocking=False,
    )
