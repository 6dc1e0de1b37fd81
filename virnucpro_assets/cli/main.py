"""The command line: the arguments and help of each command. Other modules do the work.

Exit codes: 0 done; 2 wrong input or usage (one line on standard error); 3 failed, the same command resumes;
130 interrupted. torch and Dagster are imported only when a command needs them.
"""

import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click

from virnucpro_assets.cli.completion import completion
from virnucpro_assets.cli.config import config
from virnucpro_assets.cli.evaluate import calibrate, evaluate
from virnucpro_assets.cli.importing import import_features
from virnucpro_assets.cli.inbox import inbox
from virnucpro_assets.cli.models import doctor, metrics, models
from virnucpro_assets.cli.options import FORCE, PATH, PRECISIONS
from virnucpro_assets.cli.options import out as out_option
from virnucpro_assets.cli.places import add_places
from virnucpro_assets.cli.plan import plan
from virnucpro_assets.cli.predict import predict
from virnucpro_assets.cli.samples import priority, samples
from virnucpro_assets.cli.storage import storage
from virnucpro_assets.cli.summary import summary
from virnucpro_assets.cli.terminal import harden, lost_output
from virnucpro_assets.cli.train import train
from virnucpro_assets.cli.ui import ui
from virnucpro_assets.cli.verify import verify  # noqa: F401 - adds itself to `samples`
from virnucpro_assets.cli.words import counted
from virnucpro_assets.platform.startup import import_nothing_from_here, lasting_imports
from virnucpro_core.errors import DeviceLostError, VirnucproError, one_line
from virnucpro_core.interrupts import keep_interrupts

INTERRUPTED = 130
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


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


app.add_command(predict)
app.add_command(plan)
app.add_command(models)
app.add_command(train)
app.add_command(evaluate)
app.add_command(calibrate)
app.add_command(doctor)
app.add_command(ui)
app.add_command(samples)
app.add_command(inbox)
app.add_command(storage)
app.add_command(config)
app.add_command(completion)
app.add_command(priority)
app.add_command(metrics)
app.add_command(summary)
app.add_command(import_features)


@app.command()
@click.argument("kind", type=click.Choice(["esm2", "dnabert-s"]))
@click.argument("fasta", type=FILE)
@click.option("--weights", required=True, type=PATH, help="Folder with config.json and model.safetensors.")
@out_option("HDF5 file to write: `embeddings` (n, d) float32 and `ids` (n,).")
@FORCE
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, or one GPU such as cuda:1.")
@click.option(  # --dtype: the name in notebooks, as in `virnucpro_core.load_encoder`
    "--precision",
    "--dtype",
    "precision",
    default="float32",
    show_default=True,
    type=PRECISIONS,
    help="Precision of the encoder.",
)
@click.option(
    "--attention", default="", help="Attention kernel; `virnucpro doctor` lists them.  [default: by device]"
)
@click.option(
    "--token-budget",
    type=click.IntRange(1),
    help="Tokens in a batch.  [default: by device]",
)
def embed(kind: Any, fasta: Path, weights: Path, out: Path, *, force: bool, **options: Any) -> None:
    """Embed the sequences of a FASTA file.

    Use esm2 for proteins and dnabert-s for nucleotides.

    \b
    Example:
      virnucpro embed esm2 proteins.faa --weights esm2-folder --out e.h5
    """
    with lasting_imports():
        from virnucpro_assets.platform.resource import platform_from_environment
        from virnucpro_core.devices.cuda import usable_device
        from virnucpro_core.encoders.embed_fasta import embed_fasta
        from virnucpro_core.encoders.encoder import load_encoder
        from virnucpro_core.files.outputs import making_files
        from virnucpro_core.files.overwriting import keep_inputs

    keep_inputs([out], [fasta, weights])
    precision = options["precision"]
    with (
        making_files([out], force=force) as check,
        platform_from_environment().compute_on(options["device"]).held() as device,
    ):
        encoder = load_encoder(
            kind,
            weights,
            device=usable_device(device, precision),
            dtype=precision,
            attention=options["attention"],
        )
        written = embed_fasta(encoder, fasta, out, token_budget=options["token_budget"] or 0, check=check)
    if written.stops:
        click.echo(
            f"{counted(written.stops, 'protein')} with a stop (*) at the end: the stop was left out", err=True
        )
    click.echo(f"{counted(written.rows, 'embedding')} of {encoder.dim:,} columns in {out}")


@app.group()
def export() -> None:
    """Write data of a sample in the published tool's formats.

    \b
    Example:
      virnucpro export translations sampleA --out frames
    """


@export.command("translations")
@click.argument("sample")
@out_option("Folder for the three files.")
@FORCE
def export_translations(sample: str, out: Path, *, force: bool) -> None:
    """Write the chunks and frames of a sample.

    The files are the same, byte for byte, as those of the published tool. The frames are those without a stop.

    \b
    Example:
      virnucpro export translations sampleA --out frames
    """
    from virnucpro_assets.platform.environment import home_folder
    from virnucpro_core.files.outputs import making_files
    from virnucpro_core.files.overwriting import keep_inputs
    from virnucpro_core.pipeline.steps import chunk_sample, translate_sample
    from virnucpro_core.samples.sample import open_sample
    from virnucpro_core.sequences.export import export_translations as write
    from virnucpro_core.sequences.export import exported_files

    known = open_sample(home_folder(), sample)
    files = exported_files(out, sample, known.settings.chunk_size)
    keep_inputs(files, [file.path for file in known.inputs])
    with making_files(files, force=force) as check:
        chunks = chunk_sample(known)
        for path in write(chunks, translate_sample(known), out, sample, check=check):
            click.echo(path)


@app.command()
@click.argument("predictions", type=FILE)
@out_option("Table to write: one row per chunk.")
@FORCE
def consensus(predictions: Path, out: Path, *, force: bool) -> None:
    """Compute the call of each chunk from a predictions table.

    PREDICTIONS is a prediction_results.txt of this program or of the published tool.

    \b
    Example:
      virnucpro consensus prediction_results.txt --out chunks.tsv
    """
    from virnucpro_core.files.outputs import making_files
    from virnucpro_core.files.overwriting import keep_inputs
    from virnucpro_core.results.chunk_calls import consensus_from_predictions

    keep_inputs([out], [predictions])
    with making_files([out], force=force) as check:
        chunks = consensus_from_predictions(predictions, out, check=check)
    click.echo(f"{counted(chunks, 'chunk')} in {out}")


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
    except click.exceptions.NoArgsIsHelpError as error:  # bare `virnucpro`: its help
        sys.stderr.write(f"{error.ctx.get_help()}\n" if error.ctx is not None else "")
        code = 2
    except click.UsageError as error:
        code = _fail(error, one_line("", _message(error), _remedy(error)), 2)
    except click.ClickException as error:
        code = _fail(error, one_line("", error.format_message(), ""), error.exit_code)
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
        if not any(word.startswith(("--out", "-o")) for word in sys.argv):
            code = code or VirnucproError.exit_code
    sys.exit(code or 0)


def _message(error: click.UsageError) -> str:
    """The message of the error in one line: click writes the choices of a missing argument one below the other."""
    return error.format_message().rstrip(".").replace(",\n\t", ", ").replace("\n\t", " ")


def _remedy(error: click.UsageError) -> str:
    """What to do about a wrong option. The name of a file that begins with - looks like one."""
    name = error.ctx.command_path if error.ctx is not None else "virnucpro"
    files = [word for word in sys.argv[1:] if word.startswith("-") and Path(word).exists()]
    if isinstance(error, click.NoSuchOption) and files:
        return f"if the file is meant, give ./{files[0]}"
    return f"see `{name} --help`"


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
