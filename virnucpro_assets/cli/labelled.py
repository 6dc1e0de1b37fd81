"""What `evaluate`, `calibrate` and `train` share: options for labelled sequences, and the figures that they print."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from virnucpro_assets.cli.options import option, topic

if TYPE_CHECKING:
    from virnucpro_core.evaluation.evaluation import Evaluation

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
MEANINGLESS = "demo profile: these figures carry no biological meaning"


def numbers(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, ...]:
    """`500,1000` -> (500, 1000); () if the option was not given."""
    if value is None:
        return ()
    try:
        found = tuple(int(word) for word in value.split(","))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers above 0, such as 500,1000")
    return found


def calibration_path(value: str | None) -> str | None:
    """The absolute path of the given calibration; `none` and None stay as they are."""
    if value is None or value == "none":
        return value
    if not Path(value).is_file():
        raise click.BadParameter(f"no such file: {value}; give one made by `virnucpro calibrate`, or none")
    return str(Path(value).resolve())


SEQUENCES = topic(
    "Sequences",
    option("--virus", "--viral", "virus", multiple=True, type=FILE, help="Viral sequences. Repeatable."),
    option("--others", "--non-viral", "others", multiple=True, type=FILE, help="Others. Repeatable."),
    option(
        "--labels",
        type=FILE,
        help="Table of the records in FASTA: id, label (virus, others), and maybe group.",
    ),
)

# Which frames are scored, or trained on.
FRAMES = topic(
    "Models",
    option(
        "--frames",
        type=click.Choice(["full", "open"]),
        help="open: score also the chunks without a stop-free frame, by the longest stretch without a stop in each "
        "reading frame. The published tool gives them no score.  [default: full]",
    ),
    option(
        "--min-open",
        type=int,
        help="Amino acids that such a stretch must have; with --frames open.  [default: 30]",
    ),
)
MEASURES = topic(
    "Measures",
    option(
        "--length-bins",
        metavar="N,N,...",
        callback=numbers,
        default="500,1000,3000,10000",
        show_default=True,
        help="Record lengths in bases at which a new bin begins.",
    ),
    option(
        "--bootstrap",
        default=500,
        type=click.IntRange(0, 100_000),
        show_default=True,
        help="Draws of groups for the 95 % intervals; 0: none.",
    ),
    option(
        "--seed", default=42, type=click.IntRange(0), show_default=True, help="Seed of the random numbers."
    ),
)


def show_evaluation(evaluation: "Evaluation") -> None:
    """Print a line for each measure of all records."""
    from virnucpro_core.evaluation.evaluation import FOUND, FOUND_OF_ALL, FULL, OPEN
    from virnucpro_core.evaluation.page import MEASURES, shown

    whole = evaluation.records[0]
    no_call = whole.no_call_virus + whole.no_call_others
    click.echo(
        f"records with a score: {whole.virus:,} virus, {whole.others:,} others; without a call: {no_call:,}"
    )
    for name, words in MEASURES.items():
        click.echo(f"  {words}: {shown(whole.measures[name])}")
    click.echo(f"  virus found, of those with a score: {shown(whole.shares[FOUND])}")
    click.echo(f"  virus found, of all (without a call: not found): {shown(whole.shares[FOUND_OF_ALL])}")
    for part in evaluation.records:
        if part.name in (FULL, OPEN):
            auroc = shown(part.measures["auroc"])
            click.echo(f"  {part.name}: {part.virus:,} virus, {part.others:,} others; AUROC {auroc}")
    if evaluation.without_probability:
        number, why = evaluation.without_probability, evaluation.no_probability
        click.echo(f"  {number:,} records have a score but no probability: {why}")
    if "frames_note" in evaluation.run:
        click.echo(f"note: {evaluation.run['frames_note']}")
    if evaluation.run["note"]:
        click.echo(MEANINGLESS)
