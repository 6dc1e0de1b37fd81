"""The options of `virnucpro predict`, topic by topic. A new option goes into its topic here.

An option that is a setting of the sample has the name of a field of `SampleSettings` and no default here: if it is not
given, the environment or the configuration file decides (`virnucpro config`). `predict.py` passes all of them on by
that name. The help ends with `[default: ...]`; it is also the setting's text in docs/operations.md (`make settings`).
"""

import click

from virnucpro_assets.cli.labelled import FRAMES, calibration_path
from virnucpro_assets.cli.options import PATH, PRECISIONS, SAID, option, out, topic

INPUT = topic(
    "Input",
    option(
        "--sheet",
        type=PATH,
        help="Sample sheet instead of FILES: CSV with the columns sample, fastq_1, fastq_2, fasta or bam, and any "
        "setting, such as chunk_size. A setting in a row is before the same option here.",
    ),
    option(
        "--interleaved/--no-interleaved",
        default=None,
        help="In each FASTQ file mate 1 and mate 2 follow each other. A read without its mate is refused.  "
        "[default: no]",
    ),
    option(
        "--unmapped-only/--no-unmapped-only",
        default=None,
        help="Of BAM and CRAM take only the reads that are not aligned, such as those left over by a host.  "
        "[default: no]",
    ),
    option(
        "--min-length",
        type=click.IntRange(0),
        help="Do not call records with fewer bases; contigs.tsv says so.  [default: 0]",
    ),
    option(
        "--duplicates",
        type=click.Choice(["refuse", "rename"]),
        help="What to do if two records have the same id. `rename` makes id_2, id_3, ...  [default: refuse]",
    ),
)

NAMES = topic(
    "Samples",
    option("--sample", help="Make one sample of this name from all FILES."),
    option(
        "--fresh/--resume",
        default=False,
        help="Delete the work of an earlier run and start again, or resume it.  [default: resume]",
    ),
)

MODELS = (
    *topic(
        "Models",
        option(
            "--chunk-size",
            type=int,
            help="Bases in a chunk. The published classifiers are for 300 and 500.  [default: 500]",
        ),
        option("--profile", help="Encoders and classifier. `demo` needs no GPU.  [default: esm2-3b]"),
        option(
            "--classifier",
            type=click.Path(exists=True, file_okay=False, resolve_path=True),
            help="Folder of another classifier, such as one made by `virnucpro train`.  "
            "[default: the profile's]",
        ),
        option(
            "--overlong",
            type=click.Choice(["truncate", "isolate"]),
            help="Proteins above 1,024 residues: use the first 1,024, as published, or all (isolate).  "
            "[default: truncate]",
        ),
    ),
    *FRAMES,
)

CALLS = topic(
    "Calls",
    option(
        "--pairs",
        type=click.Choice(["any", "both"]),
        help="A pair of reads counts as virus if any of its mates is called virus, or only if both are.  "
        "[default: any]",
    ),
    option("--cutoff", type=float, help="A record with at least this score is called virus.  [default: 0.5]"),
    option("--region-min-length", type=int, help="Bases that a viral region must have.  [default: 0]"),
    option(
        "--region-min-support",
        type=int,
        help="Chunks called virus that a viral region must have.  [default: 1]",
    ),
    option(
        "--conservative",
        is_flag=True,
        help="Call virus what has an expected false discovery rate of at most 5 %. Needs a calibration.",
    ),
    option("--relaxed", is_flag=True, help="The same with at most 20 %. Needs a calibration."),
    option(
        "--prior",
        type=float,
        help="Share of virus among the records, for probabilities.  [default: estimated from the scores]",
    ),
    option(
        "--calibration",
        metavar="FILE|none",
        callback=lambda _context, _option, value: calibration_path(value),
        help="File made by `virnucpro calibrate`, or `none`.  [default: the one beside the classifier]",
    ),
)

COMPUTING = topic(
    "Computing",
    option(
        "--gpus", type=click.IntRange(1), help="Number of lanes, one per GPU.  [default: every visible GPU]"
    ),
    option("--device", type=click.Choice(["cuda", "cpu"]), help="Where to compute.  [default: by profile]"),
    option(
        "--precision",
        type=PRECISIONS,
        help="Precision of the encoders.  [default: float16 on GPUs, float32 on the CPU]",
    ),
    option("--shard-rows", type=int, help="Unique frames in a shard, at most 10,000.  [default: 10000]"),
)

OUTPUT = topic(
    "Output",
    out("Folder for the results. With a folder, a sheet or several samples, each sample gets a subfolder."),
    option(
        "--force",
        is_flag=True,
        help="Write to --out although other files or other results are in it, and replace what is in the way.",
    ),
    option("--check", is_flag=True, help="Check everything, say what would be done, and compute nothing."),
    *SAID,
)

PREDICT = (INPUT, NAMES, MODELS, CALLS, COMPUTING, OUTPUT)
