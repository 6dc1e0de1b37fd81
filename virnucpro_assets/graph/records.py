"""Turns results into Dagster metadata (numbers, tables, a plot) and errors into step failures of one line."""

import base64
import contextlib
import io
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg

from virnucpro_assets.platform.tags import DATA_VERSION_TAG
from virnucpro_core.engine.shards import Entry
from virnucpro_core.engine.telemetry import LaneSummary, read_lines
from virnucpro_core.errors import DeviceLostError, VirnucproError, printable, shown_name
from virnucpro_core.interrupts import interruptible, raise_pending_interrupt
from virnucpro_core.pipeline.lane import Lane, LaneResult
from virnucpro_core.samples.sample import Sample
from virnucpro_core.samples.settings import settings_in_words

TABLE_ROWS = 200
# After a lost device, the run's process cannot use a device any more. The daemon must start the run in a new process.
RETRY_RUN = {"dagster/retry_on_asset_or_op_failure": "true"}
RETRIES, RETRY_SECONDS = 2, 5.0
EXIT_CODE = "exit_code"
WORLD_SIZE = "world_size"
SHARD_SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn("shard", "int", description="number of the shard"),
        dg.TableColumn("rows", "int", description="unique frames in it"),
        dg.TableColumn("sha256", "string", description="of the HDF5 file"),
        dg.TableColumn("by", "string", description="rank and device that computed it"),
    ]
)


@contextlib.contextmanager
def one_line_failures(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext | dg.OpExecutionContext,
) -> Iterator[None]:
    """Turn a VirnucproError into a step failure with its one line. Steps that refused their input are not retried.

    After a lost device, the daemon retries the run in a new process and on another device. A terminated run ends here
    even if other code has swallowed the interrupt or turned it into an error. With a retry policy, Dagster would turn
    the interrupt into a retry, because a worker that is moved is interrupted too; not so if a user ends the run.
    """
    try:
        with interruptible():
            yield
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError) as interrupt:
        if _is_retried(context) and _is_terminated(context):
            raise dg.Failure(
                "interrupted: the run was terminated",
                metadata={EXIT_CODE: VirnucproError.exit_code},
                allow_retries=False,
            ) from interrupt
        raise
    except VirnucproError as error:
        if isinstance(error, DeviceLostError):
            context.instance.add_run_tags(context.run.run_id, RETRY_RUN)
        raise dg.Failure(
            description=str(error),
            metadata={"where": error.where, EXIT_CODE: error.exit_code},
            allow_retries=error.exit_code == VirnucproError.exit_code,
        ) from error


def _is_retried(context: Any) -> bool:
    return context.op_execution_context.op_def.retry_policy is not None


def _is_terminated(context: Any) -> bool:
    """Whether a user has ended the run: Dagster records that before it interrupts anything."""
    run = context.instance.get_run_by_id(context.run.run_id)
    return run is not None and run.status in (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)


@contextlib.contextmanager
def tried_again(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Retry a step that fails for a passing reason (memory, disk): after RETRY_SECONDS, then after twice that time.

    Dagster's own retry policy is not used, because it would also restart a run that a user terminates.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, dg.DagsterError) or (isinstance(error, dg.Failure) and not error.allow_retries):
            raise
        wait = RETRY_SECONDS * 2**context.retry_number
        raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=wait) from error


def arrived(sample: Sample) -> dg.AssetMaterialization:
    """A materialization of the asset `inbox` that shows the sample's files."""
    metadata: dict[str, Any] = {
        "files": dg.MetadataValue.json([shown_name(f.path) for f in sample.inputs]),
        "bytes": sum(f.bytes for f in sample.inputs),
        "settings": printable(settings_in_words(sample.settings)),
    }
    if sample.variant_of:
        metadata["variant_of"] = sample.variant_of
    if sample.content:  # not known before a run has read the files; `chunks` shows it then
        metadata["sha256"] = sample.content
    return dg.AssetMaterialization("inbox", partition=sample.name, metadata=metadata)


def observe_shard(context: dg.AssetExecutionContext, key: str, entry: Entry) -> None:
    """Record a finished shard as an event of its partition while the step runs. Raises if the run was terminated."""
    context.log_event(
        dg.AssetObservation(
            asset_key=context.asset_key,
            partition=key,
            description=f"shard {entry.shard} is on disk",
            metadata={"shard": entry.shard, "rows": entry.rows, "sha256": entry.sha256},
        )
    )
    raise_pending_interrupt()


def materialization(
    context: dg.AssetExecutionContext, key: str, made: dg.MaterializeResult[Any]
) -> dg.AssetMaterialization:
    """The materialization that Dagster itself would record in a run of this partition alone."""
    tags = {"dagster/code_version": str(context.assets_def.get_asset_spec().code_version)}
    if made.data_version is not None:
        tags |= {DATA_VERSION_TAG: made.data_version.value}
        tags |= {"dagster/data_version_is_user_provided": "true"}
    if isinstance(key, dg.MultiPartitionKey):
        tags |= {f"dagster/partition/{name}": value for name, value in key.keys_by_dimension.items()}
    return dg.AssetMaterialization(context.asset_key, metadata=made.metadata, partition=key, tags=tags)


def lane_materialization(
    lane: Lane, result: LaneResult, telemetry: Path | None = None
) -> dg.MaterializeResult[Any]:
    """The result of a lane: its shards, its telemetry, and the digest of the table of shards as data version.

    A lane can be empty, because a small sample has fewer shards than there are GPUs. The result is then a short note.
    """
    metadata: dict[str, Any] = {
        "dagster/row_count": result.rows,
        "shards": len(result.entries),
        WORLD_SIZE: lane.world_size,
        "manifest": dg.MetadataValue.json({str(e.shard): e.sha256 for e in result.entries}),
    }
    if not result.entries:
        metadata["note"] = f"rank {lane.rank} has none of the sample's shards ({lane.n_shards} in total)"
        return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(result.digest))
    metadata["shards_resumed"] = result.resumed
    damaged = result.states.get("damaged", 0)
    if damaged:
        metadata["shards_damaged_and_redone"] = damaged
    if telemetry is not None and (picture := throughput_picture(telemetry)):
        metadata["throughput"] = dg.MetadataValue.md(picture)
    if result.summary is not None:
        metadata |= _telemetry(result.summary)
    metadata["shard_table"] = dg.MetadataValue.table(
        records=[
            dg.TableRecord(
                {
                    "shard": e.shard,
                    "rows": e.rows,
                    "sha256": e.sha256,
                    "by": f"rank {e.maker.get('rank', '-')}, {e.maker.get('device', '-')}",
                }
            )
            for e in result.entries[:TABLE_ROWS]
        ],
        schema=SHARD_SCHEMA,
    )
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(result.digest))


def throughput_picture(telemetry: Path) -> str | None:
    """Markdown with a PNG (data URI) that plots tokens/s and GPU utilisation over time; None if there was no batch."""
    batches = [line for line in read_lines(telemetry) if line["event"] == "batch"]
    if not batches:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    end = float(batches[-1]["t"])
    bins = max(1, min(60, len(batches)))
    edges = [end * i / bins for i in range(bins + 1)]
    totals = [0.0] * bins
    for line in batches:
        totals[min(bins - 1, int(float(line["t"]) / max(end, 1e-9) * bins))] += float(line["tokens"])
    width = max(end / bins, 1e-9)
    figure = Figure(figsize=(6, 2.2), layout="constrained")
    axes = figure.add_subplot()
    axes.stairs([t / width for t in totals], edges, fill=True, color="#2f6f8f")
    axes.set(xlabel="seconds since the lane started", ylabel="tokens/s", xlim=(0, end))
    axes.spines[["top", "right"]].set_visible(False)
    counted = [(float(line["t"]), line["gpu"]) for line in batches if line.get("gpu") is not None]
    if counted:
        percent = axes.twinx()
        percent.plot(*zip(*counted, strict=True), color="#c0562f", linewidth=1)
        percent.set(ylabel="GPU, %", ylim=(0, 105))
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return f"![throughput](data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()})"


def _telemetry(summary: LaneSummary) -> dict[str, Any]:
    """Each figure under its own name, so that the web UI can plot it over time."""
    known = {name: value for name, value in asdict(summary).items() if value is not None}
    for name in ("product", "shards", "shards_resumed"):
        del known[name]
    figures = {
        "tokens_per_second": summary.tokens_per_second,
        "sequences_per_second": summary.sequences_per_second,
        "device_utilisation": summary.device_utilisation,
    } | known
    return {name: round(v, 4) if isinstance(v, float) else v for name, v in figures.items()}
