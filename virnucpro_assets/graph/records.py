"""From core's results to what the web UI shows: numbers it can plot, tables, one picture; and errors as failures."""

import base64
import contextlib
import io
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg

from virnucpro_core.engine.shards import Entry
from virnucpro_core.engine.telemetry import LaneSummary, read_lines
from virnucpro_core.errors import DeviceLostError, VirnucproError, printable
from virnucpro_core.interrupts import interruptible, raise_pending_interrupt
from virnucpro_core.pipeline.lane import Lane, LaneResult
from virnucpro_core.samples.sample import Sample

TABLE_ROWS = 200
# Steps run in the run's process, which has no use of a device any more: the daemon starts the run in a new one.
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
    """An error with place and remedy becomes a step failure that shows it; bad input is never retried.

    A lost device has the daemon try the run again, in a new process and on another device. A run that is terminated
    ends here, also where the interrupt was swallowed or became an error.
    """
    try:
        with interruptible():
            yield
    except VirnucproError as error:
        if isinstance(error, DeviceLostError):
            context.instance.add_run_tags(context.run.run_id, RETRY_RUN)
        raise dg.Failure(
            description=str(error),
            metadata={"where": error.where, EXIT_CODE: error.exit_code},
            allow_retries=error.exit_code == VirnucproError.exit_code,
        ) from error


@contextlib.contextmanager
def tried_again(context: dg.AssetExecutionContext) -> Iterator[None]:
    """A step that fails for want of memory, a disk or the like begins again after RETRY_SECONDS, then after twice that.

    Dagster's own retry policy would also begin again what somebody terminates.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, dg.DagsterError) or (isinstance(error, dg.Failure) and not error.allow_retries):
            raise
        wait = RETRY_SECONDS * 2**context.retry_number
        raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=wait) from error


def arrived(sample: Sample) -> dg.AssetMaterialization:
    """The sample's files, as the asset `inbox` shows them."""
    metadata: dict[str, Any] = {
        "files": dg.MetadataValue.json([printable(f.path.name) for f in sample.inputs]),
        "bytes": sum(f.bytes for f in sample.inputs),
    }
    if sample.content:  # else a run reads the files first, and `chunks` shows it
        metadata["sha256"] = sample.content
    return dg.AssetMaterialization("inbox", partition=sample.name, metadata=metadata)


def observe_shard(context: dg.AssetExecutionContext, key: str, entry: Entry) -> None:
    """Record a finished shard as an event of the asset's partition while the step still runs; stop here if asked to."""
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
    """What Dagster records when a run of its own makes the partition."""
    tags = {"dagster/code_version": str(context.assets_def.get_asset_spec().code_version)}
    if made.data_version is not None:
        tags |= {"dagster/data_version": made.data_version.value}
        tags |= {"dagster/data_version_is_user_provided": "true"}
    if isinstance(key, dg.MultiPartitionKey):
        tags |= {f"dagster/partition/{name}": value for name, value in key.keys_by_dimension.items()}
    return dg.AssetMaterialization(context.asset_key, metadata=made.metadata, partition=key, tags=tags)


def lane_materialization(
    lane: Lane, result: LaneResult, telemetry: Path | None = None
) -> dg.MaterializeResult[Any]:
    """A lane's checkpoint: the table of its shards as the data version, and its telemetry.

    Of a lane to which no shard falls, for a small sample has fewer of them than there are GPUs, just that is said.
    """
    metadata: dict[str, Any] = {
        "dagster/row_count": result.rows,
        "shards": len(result.entries),
        WORLD_SIZE: lane.world_size,
        "manifest": dg.MetadataValue.json({str(e.shard): e.sha256 for e in result.entries}),
    }
    if not result.entries:
        metadata["note"] = f"none of the sample's {lane.n_shards} shards falls to rank {lane.rank}"
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
    """Markdown with a PNG (data URI) of tokens/s and GPU utilisation over the run's time; None without a batch."""
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
    axes.set(xlabel="seconds since the lane began", ylabel="tokens/s", xlim=(0, end))
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
    """Every figure under its own name, so that the UI plots each over time."""
    known = {name: value for name, value in asdict(summary).items() if value is not None}
    for name in ("product", "shards", "shards_resumed"):
        del known[name]
    figures = {
        "tokens_per_second": summary.tokens_per_second,
        "sequences_per_second": summary.sequences_per_second,
        "device_utilisation": summary.device_utilisation,
    } | known
    return {name: round(v, 4) if isinstance(v, float) else v for name, v in figures.items()}
