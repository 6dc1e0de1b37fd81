"""`virnucpro predict`: checks what it is asked to do, says it in one line, and does it."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from virnucpro_assets.cli.options import GivenPath, TopicCommand, with_options
from virnucpro_assets.cli.predict_options import PREDICT
from virnucpro_assets.cli.said import Said
from virnucpro_assets.cli.summary import end_of_batch
from virnucpro_assets.platform.startup import lasting_imports
from virnucpro_core.errors import UsageError, VirnucproError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virnucpro_assets.running.request import Request
    from virnucpro_assets.running.workers import Crew


@click.command(cls=TopicCommand)
@click.argument("files", nargs=-1, type=GivenPath(path_type=Path, allow_dash=True, readable=False))
@with_options(*PREDICT)
def predict(
    files: tuple[Path, ...],
    out: Path,
    *,
    check: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Call each record of FILES as virus or others.

    FILES are FASTA, FASTQ, GenBank, BAM or CRAM, plain or compressed, or folders of such files, or - for standard
    input. Each file becomes a sample. FASTQ files of mates (R1, R2) and of lanes (L001, L002) become one sample. Small
    samples share one load of the models. If a sample fails, the others go on. Run the same command again to resume.
    `virnucpro ui` shows the runs.

    Everything that can be known is checked before the work begins. Progress is printed on standard error, the calls on
    standard output. If samples of a command have other settings than others, it says which, with --verbose for each.

    Settings that are not given here come from environment variables (VIRNUCPRO_CHUNK_SIZE=300 is --chunk-size 300),
    else from VIRNUCPRO_HOME/virnucpro.toml. `virnucpro config` shows them.

    \b
    Examples:
      virnucpro predict reads.fa --profile demo -o results
      virnucpro predict s_R1.fq.gz s_R2.fq.gz --chunk-size 300 -o results
      virnucpro predict reads.fa -o results --check
      virnucpro predict --sheet samples.csv -o results
      samtools fastq x.bam | virnucpro predict - --sample x -o results
    """
    said = Said(quiet=quiet, verbose=verbose, as_json=as_json)
    options["check"] = check
    with _no_stream_left(files), sheet_faults_told():
        if check:
            _check(_asked(files, out, options, said), fresh=options["fresh"], said=said)
            return
        from virnucpro_assets.running.workers import early_workers

        with early_workers(files, out, gpus=options["gpus"] or 0, device=options["device"] or "") as crew:
            _predict(_asked(files, out, options, said), out, said, crew, fresh=options["fresh"])


@contextmanager
def _no_stream_left(files: tuple[Path, ...]) -> Iterator[None]:
    """At the end of the block, delete what came through a pipe and belongs to no sample: refused, or only checked."""
    from virnucpro_assets.platform.environment import home_folder
    from virnucpro_core.samples.standard_input import is_stream

    try:
        yield
    finally:
        if any(map(is_stream, files)):
            from virnucpro_core.samples.removal import remove_unused_streams

            remove_unused_streams(home_folder())


@contextmanager
def sheet_faults_told() -> "Iterator[None]":
    """Print all faults of a sample sheet, before its error ends the command."""
    try:
        yield
    except UsageError as error:
        from virnucpro_core.samples.sheet_faults import SheetError

        faults = error.faults if isinstance(error, SheetError) else ()
        for fault in faults if len(faults) > 1 else ():  # a single one is in the error's own line
            sys.stderr.write(f"virnucpro: {error.where}, {printable(fault)}\n")
        raise


def _asked(files: tuple[Path, ...], out: Path, options: "Mapping[str, Any]", said: Said) -> "Request":
    """What is asked, after all checks; said in one line, with what a person should know."""
    with lasting_imports():
        from virnucpro_assets.cli.before import notes, plan_lines
        from virnucpro_assets.platform.resource import platform_from_environment
        from virnucpro_assets.running.request import checked

    request = checked(files, out, platform_from_environment(), options)
    for line in (*plan_lines(request, out, verbose=said.verbose), *notes(request)):
        said.note(line)
    return request


def _check(request: "Request", *, fresh: bool, said: Said) -> None:
    """Say what the samples would be called. Changes nothing."""
    from virnucpro_assets.cli.before import planned_lines
    from virnucpro_assets.running.registration import planned_samples

    plans, failures = planned_samples(request, fresh=fresh)
    for line in planned_lines(request, plans, as_json=said.as_json):
        click.echo(line) if said.as_json else said.note(line)
    _show_failed(request, failures, {}, said)
    _raise(request, failures)


def _predict(request: "Request", out: Path, said: Said, crew: "Crew", *, fresh: bool) -> None:
    """Register and predict the samples. Raises the error of the only sample, or one for all that failed."""
    with lasting_imports():
        from virnucpro_assets.cli.progress import show_predictions
        from virnucpro_assets.running.registration import registered
        from virnucpro_core.samples.asked import asking

    known, failures = registered(request, fresh=fresh, note=said.note)
    if known:
        targets = {known[one.name].name: request.target(one) for one in request.wanted if one.name in known}
        samples = list(known.values())
        with asking(samples, shlex.join(["virnucpro", *sys.argv[1:]])):
            failed = show_predictions(samples, request.platform, lambda one: targets[one.name], said, crew)
        failures |= {targets[name].name: error for name, error in failed.items()}
    _show_failed(request, failures, {name: one.name for name, one in known.items()}, said)
    if request.batch:
        total = len(request.wanted) + len(request.failures)
        for line in end_of_batch(request.platform.folder, out, total, failures, force=request.force):
            said.note(line)
    _raise(request, failures)


def _show_failed(
    request: "Request", failures: "Mapping[str, VirnucproError]", samples: "Mapping[str, str]", said: Said
) -> None:
    """Print a JSON object for each sample that failed, if that is asked for.

    failures and samples (the names in the home folder): by the names in the request.
    """
    if not said.as_json:
        return
    from virnucpro_assets.cli.calls_table import print_failure

    for name, error in failures.items():
        print_failure(samples.get(name, name), name, request.outs[name], error)


def _raise(request: "Request", failures: "Mapping[str, VirnucproError]") -> None:
    """Raise the error of the only sample, or one for all that failed."""
    from virnucpro_assets.running.predict import several_failed

    if request.several and failures:
        raise several_failed(failures, len(request.wanted) + len(request.failures))
    for error in failures.values():
        raise error
