"""The assets `inbox`, `chunks` and `translations`: from sequence files to frames, one partition per sample."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from virnucpro_assets.graph.conditions import BEGIN, FOLLOW
from virnucpro_assets.graph.each import each
from virnucpro_assets.graph.engines import HOST_STEP, LOST_WORKER
from virnucpro_assets.graph.partitions import SAMPLES, TOGETHER, sample_of
from virnucpro_assets.graph.records import arrived
from virnucpro_assets.platform.environment import usable_cores
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.platform.tags import DRIVER_TAG
from virnucpro_core.pipeline.steps import chunk_sample, translate_sample
from virnucpro_core.samples.content import twins_of
from virnucpro_core.samples.products import CHUNKS, PRODUCTS, TRANSLATIONS
from virnucpro_core.samples.sample import Sample, open_sample

OWNERS = ["team:virnucpro"]

inbox = dg.AssetSpec(
    "inbox",
    description="The sequence files of a sample, unchanged. The sensor `inbox` reports them.",
    group_name="sequences",
    kinds={"fasta", "fastq"},
    owners=OWNERS,
    partitions_def=SAMPLES,
)


@dg.asset(
    deps=[inbox],
    partitions_def=SAMPLES,
    backfill_policy=TOGETHER,
    group_name="sequences",
    kinds={"python", "numpy"},
    owners=OWNERS,
    code_version=PRODUCTS[CHUNKS].version,
    op_tags=HOST_STEP,
    retry_policy=LOST_WORKER,
    automation_condition=BEGIN,
    description="Every record of the sample, cut into chunks of at most chunk_size bases, like the published tool.",
    metadata={
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn("record_id", "string", description="first word of the header"),
                dg.TableColumn("sequence", "bytes", description="letters as in the file, with U read as T"),
                dg.TableColumn("chunk_offset", "int64", description="first chunk of each record"),
                dg.TableColumn("reason", "string", description="why the record is not scored, or empty"),
            ]
        )
    },
)
def chunks(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[Any]:
    driven = DRIVER_TAG in context.run.tags
    for event in each(context, lambda key: _chunk(platform.sample(sample_of(key)))):
        yield event
        if driven and isinstance(event, dg.AssetMaterialization):
            # Report the files only now. Earlier, this event would make the automation start the sample by itself.
            yield arrived(platform.sample(str(event.partition)))


def _chunk(sample: Sample) -> dg.MaterializeResult[Any]:
    made = chunk_sample(sample)
    known = open_sample(sample.home, sample.name)
    metadata: dict[str, Any] = {
        "dagster/row_count": made.n_chunks,
        "records": made.n_records,
        "bases": int(made.lengths.sum()),
        "records_set_aside": int((made.reasons.lengths > 0).sum()),
        "uracils_read_as_thymines": int(made.attrs["uracils"]),
        "chunk_size": made.chunk_size,
        "sha256": known.content,
        "path": dg.MetadataValue.path(sample.chunks),
    }
    if twins := twins_of(known):
        metadata["same_bytes_as"] = dg.MetadataValue.json(twins)
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(made.digest))


@dg.asset(
    deps=[chunks],
    partitions_def=SAMPLES,
    backfill_policy=TOGETHER,
    group_name="sequences",
    kinds={"python", "numpy"},
    owners=OWNERS,
    code_version=PRODUCTS[TRANSLATIONS].version,
    op_tags=HOST_STEP,
    retry_policy=LOST_WORKER,
    automation_condition=FOLLOW,
    description="The reading frames of every chunk, of six, that contain no stop. Identical frames are stored once.",
    metadata={
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn("frame_chunk", "int64", description="chunk of the frame"),
                dg.TableColumn("frame_code", "uint8", description="F1, F2, F3, R1, R2, R3 as 0 to 5"),
                dg.TableColumn(
                    "frame_unique", "int64", description="the unique frame that is embedded for it"
                ),
                dg.TableColumn("nucleotides", "bytes", description="its nucleotides, per unique frame"),
                dg.TableColumn("proteins", "bytes", description="its protein, per unique frame"),
            ]
        )
    },
)
def translations(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[Any]:
    yield from each(context, lambda key: _translate(platform.sample(sample_of(key))))


def _translate(sample: Sample) -> dg.MaterializeResult[Any]:
    made = translate_sample(sample, cores=usable_cores())
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": made.n_frames,
            "unique_frames": made.n_unique,
            **({"open_frames": made.n_open} if made.min_open else {}),
            "shards": made.n_shards(sample.settings.shard_rows),
            "residues": int(made.protein_lengths.sum()),
            "path": dg.MetadataValue.path(sample.translations),
        },
        data_version=dg.DataVersion(made.digest),
    )
