"""Runs an asset or check for each partition key of a run: for one sample, or for several that share a model load.

Assets and checks are functions of one key; `each` and `each_checked` call them. In a run of one key, Dagster records
what the step returns. In a run of several keys, each key is recorded as soon as it is made, with its own metadata and
data version. If a sample fails there, the run goes on without it. The run's log and its tag `virnucpro/failed` name the
sample and the error.

Dagster cannot record the keys of such a run well: it would give all of them one data version, at the end of the step
and also to failed ones, and it would record check results without a partition (1.13.27,
tests/assets/graph/test_each.py). The run's tag `dagster/defer_asset_events` stops Dagster from doing so.
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
    """Yield what an asset's body has to yield: `make(key)` for every key of the run.

    device: `make` computes on the GPU; the step holds it once for all keys. retried: in a run of one key, a step that
    failed for a passing reason, such as memory or disk, is tried again. Raises dg.Failure if the key, or every key of a
    run of several, failed.
    """
    keys = keys_of(context)
    if len(keys) == 1:
        with tried_again(context) if retried else contextlib.nullcontext(), one_line_failures(context):
            made = make(keys[0])
        yield made
        return
    context.run.tags[DEFERRED_TAG] = "true"  # type: ignore[index] # Dagster reads this tag at the end of the step
    with one_line_failures(context), _shared(context, device=device):
        for key, made in _good(context, keys, make):
            yield materialization(context, key, made)
        _require_one(context, keys)
    yield dg.MaterializeResult()


def each_checked(
    context: dg.AssetCheckExecutionContext,
    asset: str,
    verify: Callable[[str], list[Finding]],
    *,
    device: bool = False,
) -> Iterator[dg.AssetCheckResult | dg.AssetCheckEvaluation | dg.Output[None]]:
    """Yield what a check's body has to yield: the findings of `verify(key)` for every key of the run.

    device: as in `each`.
    """
    keys = keys_of(context)
    if len(keys) == 1:
        with one_line_failures(context):
            findings = verify(keys[0])
        nothing = "this partition has nothing to verify"
        asked = sorted(check.name for check in context.op_execution_context.selected_asset_check_keys)
        for f in findings or [Finding(name, passed=True, what=nothing, facts={}) for name in asked]:
            yield dg.AssetCheckResult(
                passed=f.passed, asset_key=asset, check_name=f.name, metadata=f.facts, description=f.what
            )
        return
    found: list[tuple[str, Finding]] = []

    def require(key: str) -> None:
        findings = verify(key)
        found.extend((key, finding) for finding in findings)
        bad = [finding.name for finding in findings if not finding.passed]
        if bad:
            raise StoreError(f"check {', '.join(bad)} of {asset} failed", where=key)

    with one_line_failures(context), _shared(context, device=device):
        for _ in _good(context, keys, require):
            yield from (_evaluation(asset, key, finding) for key, finding in found)
            found.clear()
        # What is left are findings of the last keys, if these failed.
        yield from (_evaluation(asset, key, finding) for key, finding in found)
        _require_one(context, keys)
    for name in sorted(context.op_execution_context.selected_output_names):
        yield dg.Output(None, name)


def on_shard(context: dg.AssetExecutionContext, key: str) -> OnShard:
    """A function that records each finished shard while the step runs. In a run of several samples it does nothing."""
    return (lambda _: None) if is_shared(context) else (lambda entry: observe_shard(context, key, entry))


def compute_of(context: Context, platform: Platform, lane: Lane) -> Compute:
    """How the lane computes in this run. If several keys share the run, all compute on the device of the run's rank."""
    compute, keys = platform.compute(lane), keys_of(context)
    if len(keys) == 1:
        return compute
    return shared_compute(compute, int(context.run.tags.get(DEVICE_TAG) or lane_of(keys[0])[1]))


def shared_compute(compute: Compute, rank: int) -> Compute:
    """How small samples compute together, on the device of this rank.

    A small sample has one or two shards: loader processes would save no time.
    """
    return replace(compute, rank=rank, loader=replace(compute.loader, workers=0))


def is_shared(context: Context) -> bool:
    """Whether the run has several keys."""
    return len(keys_of(context)) > 1


def _good(context: Context, keys: list[str], make: Callable[[str], Made]) -> Iterator[tuple[str, Made]]:
    """Yield (key, result) for the samples that have not failed in this run, now or in an earlier step.

    A thread makes the next result while Dagster records the current one, which can take up to a second.
    """
    failed = _failed(context)
    for key, made in _ahead(make, [key for key in keys if sample_in(key) not in failed]):
        name = sample_in(key)
        if name in failed:
            continue
        try:
            result = made.result()
        except (DeviceLostError, dg.DagsterError, RuntimeError):
            raise  # not the sample's fault; torch reports a broken device as a RuntimeError
        except VirnucproError as error:
            failed[name] = str(error)
        except Exception as error:  # noqa: BLE001 - one bad sample must not stop the others
            context.log.error("%s", traceback.format_exc())
            failed[name] = one_line(key, f"{type(error).__name__}: {error}", "")
        else:
            yield key, result
            continue
        context.log.error("%s failed, the run goes on without it: %s", name, failed[name])
        context.instance.add_run_tags(context.run.run_id, {FAILED_TAG: json.dumps(failed)})


def _ahead(make: Callable[[str], Made], keys: list[str]) -> Iterator[tuple[str, Future[Made]]]:
    """Yield (key, future of `make(key)`) in order. The next one is made while the caller uses the current one."""
    with ThreadPoolExecutor(1) as thread:
        following = [(key, thread.submit(make, key)) for key in keys[:1]]
        for next_key in [*keys[1:], None]:
            key, made = following.pop()
            wait([made])
            if next_key is not None:
                following.append((next_key, thread.submit(make, next_key)))
            yield key, made


def _failed(context: Context) -> dict[str, str]:
    """Sample -> why it failed in this run. Kept in the run's tags, because each step may be a separate process."""
    run = context.instance.get_run_by_id(context.run.run_id)
    return failed_in(run.tags) if run is not None else {}


def _require_one(context: Context, keys: list[str]) -> None:
    failed = _failed(context)
    if all(sample_in(key) in failed for key in keys):
        raise StoreError(f"every sample of the run failed; {next(iter(failed.values()))}")


@contextlib.contextmanager
def _shared(context: Context, *, device: bool) -> Iterator[None]:
    """Hold what the keys of a step share: the device, the loaded models and the open files of the event log."""
    with contextlib.ExitStack() as shared:
        shared.enter_context(quick_event_log(context.instance))
        if device:
            shared.enter_context(kept_device())
            shared.enter_context(kept_encoders())
        yield


def _evaluation(asset: str, key: str, finding: Finding) -> dg.AssetCheckEvaluation:
    """A finding as Dagster records it. It is not blocking here: that would stop the run for the other samples."""
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(asset),
        check_name=finding.name,
        passed=finding.passed,
        metadata=finding.facts,
        description=finding.what,
        partition=key,
        blocking=False,
    )
