"""`virnucpro predict`: checks what it is asked to do, says it in one line, and does it."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from virnucpro_assets.cli.options import TopicCommand, with_options
from virnucpro_assets.cli.predict_options import PREDICT
from virnucpro_assets.cli.summary import end_of_batch
from virnucpro_assets.cli.words import counted
from virnucpro_assets.platform.startup import lasting_imports
from virnucpro_core.errors import printable

if TYPE_CHECKING:
    from virnucpro_assets.running.request import Request

SHOWN_NAMES = 3


@click.command(cls=TopicCommand)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, allow_dash=True))
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
    standard output.

    \b
    Examples:
      virnucpro predict reads.fa --profile demo -o results
      virnucpro predict s_R1.fq.gz s_R2.fq.gz --chunk-size 300 -o results
      virnucpro predict reads.fa -o results --check
      virnucpro predict --sheet samples.csv -o results
      samtools fastq x.bam | virnucpro predict - --sample x -o results
    """
    with lasting_imports():
        from virnucpro_assets.cli.progress import Said, show_predictions
        from virnucpro_assets.platform.resource import platform_from_environment
        from virnucpro_assets.running.predict import registered, several_failed
        from virnucpro_assets.running.request import checked
        from virnucpro_core.samples.asked import asking
        from virnucpro_core.samples.sheet import SheetError

    said = Said(quiet=quiet, verbose=verbose, as_json=as_json)
    try:
        request = checked(files, out, platform_from_environment(), options)
    except SheetError as wrong:
        for fault in wrong.faults:
            sys.stderr.write(f"virnucpro: {wrong.where}, {fault}\n")
        raise
    if not quiet:
        sys.stderr.write(f"{_plan(request, out)}\n")
        for line in _notes(request):
            sys.stderr.write(f"{line}\n")
    known, failures = registered(request, fresh=options["fresh"], only_check=check)
    if known:
        outs = {known[one.name].name: one.out for one in request.wanted if one.name in known}
        samples = list(known.values())
        with asking(samples, shlex.join(["virnucpro", *sys.argv[1:]])):
            failures |= show_predictions(samples, request.platform, lambda one: outs[one.name], said)
    if request.several and not check:
        total = len(request.wanted) + len(request.failures)
        for line in end_of_batch(request.platform.folder, out, total, failures):
            if not quiet:
                sys.stderr.write(f"{line}\n")
    if request.several and failures:
        raise several_failed(failures, len(request.wanted) + len(request.failures))
    for error in failures.values():
        raise error


def _notes(request: "Request") -> Iterator[str]:
    """What a person should know about the samples, each thing once."""
    notes: dict[str, list[str]] = {}
    for one in request.wanted:
        for note in one.notes:
            notes.setdefault(note, []).append(one.name)
    for note, names in notes.items():
        more = f" and {len(names) - SHOWN_NAMES:,} more" if len(names) > SHOWN_NAMES else ""
        yield f"{', '.join(names[:SHOWN_NAMES])}{more}: {printable(note)}"


def _plan(request: "Request", out: Path) -> str:
    """One line that says what will be done."""
    from virnucpro_core.files.disk import shown_bytes

    platform = request.platform
    lanes = f"{counted(platform.gpus, 'lane')} on the"
    kinds = {
        f"profile {s.profile}, chunks of {s.chunk_size}, "
        f"{f'open frames of {s.open_length} or more amino acids, ' if s.open_length else ''}{lanes} "
        f"{'CPU' if platform.device_of(s.profile) == 'cpu' else 'GPU'} in {s.precision}"
        for s in (one.settings for one in request.wanted)
    }
    files = [file for one in request.wanted for file in one.files if file.is_file()]
    size = shown_bytes(sum(file.stat().st_size for file in files))
    what = f"{counted(len(request.wanted), 'sample')} ({counted(len(files), 'file')}, {size})"
    return f"{what}: {'; '.join(sorted(kinds))}; results in {out}"
