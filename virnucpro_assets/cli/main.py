"""The command line: the arguments and help of each command. Other modules do the work.

Exit codes: 0 done; 2 wrong input or usage (one line on standard error); 3 failed, the same command resumes;
130 interrupted. torch and Dagster are imported only when a command needs them.
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from virnucpro_assets.cli.importing import import_features
from virnucpro_assets.cli.models import doctor, metrics, models, train, ui
from virnucpro_assets.cli.places import add_places
from virnucpro_assets.cli.samples import priority, samples
from virnucpro_assets.cli.storage import storage
from virnucpro_assets.cli.terminal import harden, lost_output
from virnucpro_assets.cli.verify import verify  # noqa: F401 - adds itself to `samples`
from virnucpro_assets.cli.words import counted
from virnucpro_assets.platform.startup import import_nothing_from_here, lasting_imports
from virnucpro_core.errors import DeviceLostError, VirnucproError, one_line
from virnucpro_core.interrupts import keep_interrupts

INTERRUPTED = 130
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
PATH = click.Path(path_type=Path)
PRECISIONS = click.Choice(["float32", "float16", "fp8"])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="virnucpro")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks of errors.")
def app() -> None:
    """Find the viral sequences among reads and contigs.

    \b
    Examples:
      virnucpro predict reads.fa --profile demo --out results
      virnucpro samples
      virnucpro ui
    """


app.add_command(models)
app.add_command(train)
app.add_command(doctor)
app.add_command(ui)
app.add_command(samples)
app.add_command(storage)
app.add_command(priority)
app.add_command(metrics)
app.add_command(import_features)


@app.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=PATH, help="Folder for the results. Several samples get a subfolder each."
)
@click.option(
    "--chunk-size",
    default=500,
    show_default=True,
    help="Bases in a chunk. The published classifiers are for 300 and 500.",
)
@click.option(
    "--profile", default="esm2-3b", show_default=True, help="Encoders and classifier. `demo` needs no GPU."
)
@click.option("--sample", default="", help="Make one sample of this name from all FILES.")
@click.option(
    "--gpus",
    default=0,
    type=click.IntRange(0),
    help="Number of lanes, one per GPU.  [default: every visible GPU]",
)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="Where to compute.  [default: by profile]")
@click.option(
    "--precision",
    type=PRECISIONS,
    help="Precision of the encoders.  [default: float16 on GPUs, float32 on the CPU]",
)
@click.option(
    "--classifier",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="Folder of another classifier, such as one made by `virnucpro train`.",
)
@click.option(
    "--cutoff", default=0.5, show_default=True, help="A record with at least this score is called virus."
)
@click.option(
    "--duplicates",
    default="refuse",
    show_default=True,
    type=click.Choice(["refuse", "rename"]),
    help="What to do if two records have the same id. `rename` makes id_2, id_3, ...",
)
@click.option(
    "--overlong",
    default="truncate",
    show_default=True,
    type=click.Choice(["truncate", "isolate"]),
    help="Proteins above 1,024 residues: use the first 1,024, as published, or all (isolate).",
)
@click.option(
    "--shard-rows", default=10_000, show_default=True, help="Unique frames in a shard, at most 10,000."
)
@click.option(
    "--fresh/--resume",
    default=False,
    help="Delete the work of an earlier run and start again, or resume it.  [default: resume]",
)
@click.option("--force", is_flag=True, help="Replace files in --out that are not results of this sample.")
def predict(
    files: tuple[Path, ...], out: Path, sample: str, *, fresh: bool, force: bool, **options: Any
) -> None:
    """Call each record of FILES as virus or others.

    FILES are FASTA or FASTQ, plain or compressed, or folders of such files. Each file becomes a sample. Two FASTQ files
    named as mates (R1, R2) become one sample. Small samples share one load of the models. If a sample fails, the others
    go on. Run the same command again to resume. `virnucpro ui` shows the runs.

    \b
    Examples:
      virnucpro predict reads.fa --profile demo --out results
      virnucpro predict s_R1.fq.gz s_R2.fq.gz --chunk-size 300 --out results
    """
    with lasting_imports():
        from virnucpro_assets.cli.progress import show_predictions
        from virnucpro_assets.platform.resource import platform_from_environment
        from virnucpro_assets.running.predict import registered, several_failed
        from virnucpro_core.pipeline.imported import imported_features
        from virnucpro_core.results.delivery import check_out
        from virnucpro_core.samples.inputs import files_of
        from virnucpro_core.samples.sample import check_key
        from virnucpro_core.sequences.names import group_samples, in_order

    platform = platform_from_environment().asked(gpus=options.pop("gpus"), device=options.pop("device") or "")
    settings = platform.sample_settings(**options)
    paths = files_of(files)
    groups = [(check_key(sample), in_order(paths))] if sample else group_samples(paths)
    # Only for samples without imported features the encoders must be there.
    homes = [platform.folder / "samples" / name for name, _ in groups]
    for imported in {None if fresh else imported_features(home, settings) for home in homes}:
        platform.profile_of(settings, imported)
    folders = {name: out / name if len(groups) > 1 else out for name, _ in groups}

    def check(name: str, files: Sequence[Path]) -> None:
        check_out(folders[name], name, files, force=force, fresh=fresh)

    known, failures = registered(groups, platform.folder, settings, fresh=fresh, check=check)
    if known:
        failures |= show_predictions(known, platform, lambda one: folders[one.name])
    if len(groups) > 1 and failures:
        raise several_failed(failures, len(groups))
    for error in failures.values():
        raise error


@app.command()
@click.argument("kind", type=click.Choice(["esm2", "dnabert-s"]))
@click.argument("fasta", type=FILE)
@click.option("--weights", required=True, type=PATH, help="Folder with config.json and model.safetensors.")
@click.option(
    "--out", required=True, type=PATH, help="HDF5 file to write: `embeddings` (n, d) float32 and `ids` (n,)."
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, or one GPU such as cuda:1.")
@click.option("--dtype", default="float32", show_default=True, type=PRECISIONS, help="Precision.")
@click.option(
    "--attention", default="", help="Attention kernel; `virnucpro doctor` lists them.  [default: by device]"
)
@click.option(
    "--token-budget",
    type=click.IntRange(1),
    help="Tokens in a batch.  [default: by device]",
)
def embed(kind: Any, fasta: Path, weights: Path, out: Path, **options: Any) -> None:
    """Embed the sequences of a FASTA file.

    Use esm2 for proteins and dnabert-s for nucleotides.

    \b
    Example:
      virnucpro embed esm2 proteins.faa --weights esm2-folder --out e.h5
    """
    with lasting_imports():
        from virnucpro_assets.platform.resource import platform_from_environment
        from virnucpro_core.devices.compute import usable_device
        from virnucpro_core.encoders.embed_fasta import embed_fasta
        from virnucpro_core.encoders.encoder import load_encoder

    dtype = options["dtype"]
    with platform_from_environment().compute_on(options["device"]).held() as device:
        encoder = load_encoder(
            kind,
            weights,
            device=usable_device(device, dtype, option="--dtype"),
            dtype=dtype,
            attention=options["attention"],
        )
        written = embed_fasta(encoder, fasta, out, token_budget=options["token_budget"] or 0)
    if written.stops:
        click.echo(
            f"{counted(written.stops, 'protein')} with a stop (*) at the end: the stop was left out", err=True
        )
    click.echo(f"{counted(written.rows, 'embedding')} of {encoder.dim:,} columns in {out}")


@app.group()
def export() -> None:
    """Write data of a sample in the published tool's formats."""


@export.command("translations")
@click.argument("sample")
@click.option("--out", required=True, type=PATH, help="Folder for the three files.")
def export_translations(sample: str, out: Path) -> None:
    """Write the chunks and frames of a sample.

    The files are the same, byte for byte, as those of the published tool. The frames are those without a stop.

    \b
    Example:
      virnucpro export translations sampleA --out frames
    """
    from virnucpro_assets.platform.environment import home_folder
    from virnucpro_core.pipeline.steps import chunk_sample, translate_sample
    from virnucpro_core.samples.sample import open_sample
    from virnucpro_core.sequences.export import export_translations as write

    known = open_sample(home_folder(), sample)
    chunks = chunk_sample(known)
    for path in write(chunks, translate_sample(known), out, sample):
        click.echo(path)


@app.command()
@click.argument("predictions", type=FILE)
@click.option("--out", required=True, type=PATH, help="Table to write: one row per chunk.")
def consensus(predictions: Path, out: Path) -> None:
    """Compute the call of each chunk from a predictions table.

    PREDICTIONS is a prediction_results.txt of this program or of the published tool.

    \b
    Example:
      virnucpro consensus prediction_results.txt --out chunks.tsv
    """
    from virnucpro_core.results.chunk_calls import consensus_from_predictions

    click.echo(f"{counted(consensus_from_predictions(predictions, out), 'chunk')} in {out}")


add_places(app)


def main() -> NoReturn:
    """Entry point. Expected errors become one line and an exit code; --debug also shows the traceback."""
    harden()
    import_nothing_from_here()
    # If a script starts this in the background, SIGINT is ignored, and Dagster would then ignore SIGTERM too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    keep_interrupts()
    try:
        code = app(standalone_mode=False)
        _ignore_signals()
    except DeviceLostError as error:
        code = _fail(error, str(error), VirnucproError.exit_code)
    except VirnucproError as error:
        code = _fail(error, str(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort) as error:
        _ignore_signals()
        code = _fail(error, "interrupted; the same command resumes", INTERRUPTED)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    except OSError as error:
        what = error.strerror or str(error)
        code = _fail(
            error,
            one_line(str(error.filename or ""), what, "check the path, its permissions and the disk"),
            2,
        )
    _ignore_signals()
    if lost := lost_output():
        sys.stderr.write(f"virnucpro: standard output was not written completely: {lost}\n")
        # With --out the results are in files, and complete.
        if not any(word.startswith("--out") for word in sys.argv):
            code = code or VirnucproError.exit_code
    sys.exit(code or 0)


def _fail(error: BaseException, line: str, code: int) -> int:
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    sys.stderr.write(f"virnucpro: {line}\n")
    return code


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    """Ignore signals from now on: all is printed, and during Python's exit a signal would only show a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
