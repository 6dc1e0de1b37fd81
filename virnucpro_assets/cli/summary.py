"""`virnucpro summary`: one table and one page for several samples."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from virnucpro_assets.cli.options import out as out_option
from virnucpro_assets.cli.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virnucpro_core.errors import VirnucproError


@click.command()
@click.argument("names", metavar="[SAMPLES]...", nargs=-1)
@out_option("Folder for summary.tsv, index.html, the reports and MultiQC's files.")
@click.option(
    "--entry", metavar="NAME", help="The samples of one entry of the inbox: a run folder or a sample sheet."
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace files in --out that VirNucPro did not write, and pages and reports of other samples.",
)
def summary(names: tuple[str, ...], out: Path, *, entry: str | None, force: bool) -> None:
    """Write one table and one page for several samples.

    SAMPLES are names as `virnucpro samples` lists them; without names, all samples. The folder can be copied or sent:
    it holds a copy of each report. `virnucpro predict` writes the same for a folder of samples.

    \b
    Examples:
      virnucpro summary --out overview
      virnucpro summary pat1 pat2 --out two-samples
      virnucpro summary --entry run7 --out run7
    """
    from virnucpro_assets.platform.environment import home_folder
    from virnucpro_core.errors import UsageError
    from virnucpro_core.files.writable import check_writable
    from virnucpro_core.pipeline.across import write_summary
    from virnucpro_core.results.delivery import check_pages_out
    from virnucpro_core.samples.sample import list_samples

    home = home_folder()
    chosen = list(dict.fromkeys(names)) or list_samples(home)
    if entry is not None:
        chosen = _of_entry(home, entry, names)
    if not chosen:
        raise UsageError("there are no samples", where=home, remedy="predict one with `virnucpro predict`")
    check_writable(out)
    check_pages_out(out, chosen, force=force)
    gone: list[Path] = []
    rows = write_summary(home, chosen, out, force=force, on_discard=gone.append)
    without = sum(not row.facts for row in rows)
    for line in _pages(out):
        click.echo(line)
    for file in gone:
        click.echo(_gone(file))
    click.echo(f"{counted(len(rows), 'sample')}: {len(rows) - without:,} called, {without:,} without results")


def _of_entry(home: Path, entry: str, names: tuple[str, ...]) -> list[str]:
    """The samples that an entry of the inbox became, as far as they are still there."""
    from virnucpro_core.errors import UsageError
    from virnucpro_core.samples.inbox_state import batches
    from virnucpro_core.samples.sample import is_registered

    if names:
        raise UsageError("SAMPLES and --entry cannot be used together", remedy="give one of them")
    found = batches(home)
    if entry not in found:
        what = f"no run folder or sample sheet {entry!r} is known"
        known = f"known are {', '.join(found)}" if found else "`virnucpro inbox` lists the entries"
        raise UsageError(what, where=home / "inbox", remedy=known)
    return sorted(name for name in found[entry] if is_registered(home, name))


def end_of_batch(
    home: Path, out: Path, samples: int, failures: "Mapping[str, VirnucproError]", *, force: bool = False
) -> list[str]:
    """The last step of `predict` for several samples: write the pages.

    samples: how many there are, those that failed included. Returns what to say: where the pages are and how many
    samples were called. Raises UsageError if another command has written into `out` what must not be replaced.
    """
    from virnucpro_core.pipeline.across import write_summary_of_folder

    gone: list[Path] = []
    write_summary_of_folder(home, out, failures, force=force, on_discard=gone.append)
    return [*map(_gone, gone), *_pages(out), f"{samples - len(failures):,} called, {len(failures):,} failed"]


def _gone(file: Path) -> str:
    return f"deleted {file}: it was of results that are no more shown here"


def _pages(out: Path) -> list[str]:
    """Where the pages are."""
    from virnucpro_core.results.batch import INDEX, SUMMARY

    return [
        f"summary: {(out / SUMMARY).resolve()}",
        f"reports of all samples: {(out / INDEX).resolve()}",
    ]
