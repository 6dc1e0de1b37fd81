"""`virnucpro samples` and `virnucpro priority`: list, show, clean and remove samples, and order their runs."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from virnucpro_assets.cli.options import JSON
from virnucpro_assets.cli.words import counted, in_time
from virnucpro_core.files.disk import shown_bytes

if TYPE_CHECKING:
    from virnucpro_core.pipeline.overview import Overview

KEEP = click.Choice(["scores", "results"])


class _NamesToo(click.Group):
    """Makes `samples NAME` mean `samples show NAME`: any word that is not a command is a sample's name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands:  # `samples -- -h`: click has taken the `--` away
            args = ["show", "--", *args] if args[0].startswith("-") else ["show", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_NamesToo, invoke_without_command=True, subcommand_metavar="[NAME... | COMMAND]")
@JSON
@click.pass_context
def samples(context: click.Context, *, as_json: bool) -> None:
    """List all samples, or show some in detail.

    The list has the state, finished shards, time left, disk use and last change of each sample, and why it failed.
    For a variant, such as s-300, it has the settings that differ from those of its sample.

    With NAMES, these samples are shown in detail. If a sample has the name of a command, use `samples show NAME`.

    \b
    Examples:
      virnucpro samples
      virnucpro samples sampleA
      virnucpro samples show clean
    """
    if context.invoked_subcommand is not None:
        context.obj = as_json
        return
    from virnucpro_assets.platform.environment import home_folder
    from virnucpro_core.pipeline.overview import overviews

    home = home_folder()
    found = list(overviews(home))
    failures = failures_of([o for o in found if o.state != "called"])
    if as_json:
        _as_json(found, failures)
        return
    if not found:
        _show_inbox(home)
        click.echo(f"no samples in {home}; predict one, or drop a file into the inbox")
        return
    width = max(6, *(len(o.name) for o in found))
    wide = max(8, *(len(o.settings) for o in found))
    head = f"{'records':>11} {'shards':>11} {'left':>9} {'disk':>10}  {'when':16}  why"
    click.echo(f"{'sample':{width}} {'settings':{wide}} {'state':11} {head}")
    for one in found:
        click.echo(_line(one, (width, wide), one.reason or failures.get(one.name, "")))
    total = sum(o.total_bytes for o in found)
    click.echo(
        f"{counted(len(found), 'sample')}, ~{shown_bytes(total)}; "
        "sizes with ~ are estimated from one shard of each product"
    )
    _show_inbox(home)


@samples.command()
@click.argument("names", nargs=-1, required=True)
@JSON
@click.pass_context
def show(context: click.Context, names: tuple[str, ...], *, as_json: bool) -> None:
    """Show samples in detail.

    Shows products, lanes, disk use and the processes that work on the samples NAMES. Measures every file, so the sizes
    are exact.

    \b
    Examples:
      virnucpro samples show sampleA
      virnucpro samples show -- -odd-name
    """
    from virnucpro_assets.platform.environment import home_folder
    from virnucpro_core.errors import UsageError
    from virnucpro_core.pipeline.overview import overview

    if "" in names:
        raise UsageError("'' is not a sample name", remedy="see `virnucpro samples`")
    found = [overview(home_folder(), name, exact=True) for name in names]
    failures = failures_of(found)
    if as_json or context.obj:
        _as_json(found, failures)
        return
    for one in found:
        click.echo("\n".join(_detail(one, one.reason or failures.get(one.name, ""))))


@samples.command()
@click.argument("names", nargs=-1)
@click.option(
    "--keep",
    type=KEEP,
    help="What to keep. `scores`: all but embeddings. `results`: only the results.  [default: VIRNUCPRO_KEEP]",
)
@click.option(
    "--days",
    type=float,
    help="Clean only samples with results at least this many days old.  "
    "[default: VIRNUCPRO_KEEP_DAYS; 0 if NAMES are given]",
)
@click.option("--dry-run", is_flag=True, help="Print what would be deleted, and delete nothing.")
def clean(names: tuple[str, ...], *, keep: str | None, days: float | None, dry_run: bool) -> None:
    """Delete intermediate data of finished samples.

    Cleans the samples NAMES, or all samples if no names are given. The results and the digests of the deleted data are
    kept. A sample is not changed if its results are not complete, or while a process works on it.

    \b
    Examples:
      virnucpro samples clean --keep scores --dry-run
      virnucpro samples clean sampleA --keep results
    """
    from virnucpro_assets.platform.environment import home_folder, settings
    from virnucpro_core.errors import UsageError, VirnucproError
    from virnucpro_core.pipeline.retention import check_keep, is_due, releasable, release, require_results
    from virnucpro_core.samples.sample import list_samples, open_sample

    known = settings()
    home, policy = home_folder(), check_keep(keep or known["keep"])
    if policy == "all":
        raise UsageError(
            "VIRNUCPRO_KEEP is all, so there is nothing to delete",
            remedy="give --keep scores (deletes embeddings), or --keep results (also chunks, frames and scores)",
        )
    age = days if days is not None else 0.0 if names else known["keep_days"]
    total, failed = 0, []
    for name in names or list_samples(home):
        try:
            sample = open_sample(home, name)
            if not is_due(sample, policy, age):
                if names:
                    click.echo(f"{name}: nothing to delete{_not_due(sample, age)}")
                continue
            if dry_run:
                require_results(sample)
            released = releasable(sample, policy) if dry_run else release(sample, policy)
        except VirnucproError as error:
            failed.append(error)
            click.echo(f"{name}: {error}", err=True)
            continue
        total += released.total
        parts = ", ".join(f"{product} {shown_bytes(size)}" for product, size in released.bytes.items())
        verb = "would be deleted" if dry_run else "deleted"
        click.echo(
            f"{name}: {shown_bytes(released.total)} {verb} ({parts or 'the data was already deleted'})"
        )
        if not dry_run:
            _record(name, policy, released)
    click.echo(f"{shown_bytes(total)} {'would be deleted' if dry_run else 'deleted'}")
    if failed:
        raise SystemExit(max(error.exit_code for error in failed))


@samples.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--variants", is_flag=True, help="Delete the variants of these samples too.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def remove(names: tuple[str, ...], *, variants: bool, yes: bool) -> None:
    """Delete samples with all their results.

    Deletes the folders of the samples NAMES below VIRNUCPRO_HOME, and their partition keys in Dagster. Variants of a
    sample, such as sampleA-300, stay unless --variants is given.

    \b
    Example:
      virnucpro samples remove sampleA sampleB
    """
    from virnucpro_assets.graph.partitions import SAMPLES
    from virnucpro_assets.platform.environment import home_folder
    from virnucpro_assets.platform.instance import database_errors, open_instance
    from virnucpro_core.errors import UsageError
    from virnucpro_core.samples.naming import variants_of
    from virnucpro_core.samples.removal import remove_sample
    from virnucpro_core.samples.sample import check_key

    home = home_folder()
    if variants:
        names = tuple(dict.fromkeys(key for name in names for key in (name, *variants_of(home, name))))
    with database_errors(), open_instance() as instance:
        known = set(instance.get_dynamic_partitions(str(SAMPLES.name)))
        for name in names:
            if not (home / "samples" / check_key(name)).is_dir() and name not in known:
                raise UsageError(
                    f"sample {name!r} is not known", where=home, remedy="see `virnucpro samples`"
                )
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError(
                    "cannot ask for confirmation: standard input is not a terminal",
                    remedy="give --yes to delete without a question",
                )
            click.confirm(f"delete {', '.join(names)} with all results below {home / 'samples'}?", abort=True)
        for name in names:
            remove_sample(home, name)
            if name in known:
                instance.delete_dynamic_partition(str(SAMPLES.name), name)
            click.echo(f"{name}: removed")
            if left := variants_of(home, name):
                click.echo(f"{name}: its variants stay: {', '.join(left)}")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("priority", type=int)
@click.argument("names", nargs=-1, required=True)
def priority(priority: int, names: tuple[str, ...]) -> None:
    """Set the priority of samples in the queue.

    Runs with a higher PRIORITY (a whole number) start first. The default is 0, and -1 for large samples.

    \b
    Example:
      virnucpro priority 10 sampleA sampleB
    """
    from virnucpro_assets.automation.queue import set_priority
    from virnucpro_assets.platform.environment import home_folder
    from virnucpro_assets.platform.instance import database_errors, open_instance
    from virnucpro_core.samples.sample import open_sample

    samples = [open_sample(home_folder(), name) for name in names]
    with database_errors(), open_instance() as instance:
        waiting = set_priority(instance, samples, priority)
    click.echo(
        f"priority {priority} set for {counted(len(samples), 'sample')} and {counted(waiting, 'queued run')}"
    )


def _show_inbox(home: Path) -> None:
    """Print the files in the inbox that could not become samples, and why."""
    from virnucpro_core.samples.inbox_state import noted_problems, shown

    for row in noted_problems(home):
        tried = "" if row.kind == "refused" else " (will be tried again)"
        click.echo(f"inbox: {shown(row.name)}: {row.said}{tried}")


def _as_json(found: "list[Overview]", failures: dict[str, str]) -> None:
    for one in found:
        derived = {"total_bytes": one.total_bytes, "seconds_left": one.seconds_left}
        click.echo(json.dumps(asdict(one) | derived | {"failure": failures.get(one.name, "")}))


def _line(one: "Overview", widths: tuple[int, int], why: str) -> str:
    left = "" if one.seconds_left is None else in_time(one.seconds_left)
    records = "" if one.records is None else f"{one.records:,}"
    done, total = (sum(pair[i] for pair in one.shards.values()) for i in (0, 1))
    shards = "released" if one.released and one.state == "called" else f"{done}/{total}" if total else ""
    disk = f"{'~' if one.estimated else ''}{shown_bytes(one.total_bytes)}"
    when = _when(one.changed)
    name = f"{one.name:{widths[0]}} {one.settings:{widths[1]}}"
    why = why or _variant(one)
    return f"{name} {one.state:11} {records:>11} {shards:>11} {left:>9} {disk:>10}  {when}  {why}".rstrip()


def _variant(one: "Overview", *, detailed: bool = False) -> str:
    """`variant of s: chunk size 300`, detailed `chunk size 300 instead of 500`; "" for a sample that is none."""
    from virnucpro_core.errors import printable
    from virnucpro_core.samples.settings import setting_in_words

    differs = []
    for name, (there, here) in one.differs.items():
        other = setting_in_words(name, there).removeprefix(f"{name.replace('_', ' ')} ")
        differs.append(setting_in_words(name, here) + (f" instead of {other}" if detailed else ""))
    about = f": {printable(', '.join(differs))}" if differs else ""
    return f"variant of {one.variant_of}{about}" if one.variant_of else ""


def _detail(one: "Overview", why: str) -> Iterator[str]:
    yield f"{one.name}: {one.state}{f', {why}' if why else ''}"
    yield f"  settings {one.settings or '?'}{f', a {_variant(one, detailed=True)}' if one.variant_of else ''}"
    yield f"  registered {_when(one.since)}, last change {_when(one.changed)}"
    if one.records is not None:
        yield f"  {counted(one.records, 'record')}"
    yield f"  {'product':22} {'shards':>9} {'released':>9} {'disk':>10}"
    for product in dict.fromkeys((*one.shards, *one.bytes)):
        there, total = one.shards.get(product, (0, 0))
        shards = f"{there}/{total}" if total else ""
        released = one.released.get(product) or ""
        yield f"  {product:22} {shards:>9} {released:>9} {shown_bytes(one.bytes.get(product, 0)):>10}"
    yield f"  {'total':22} {'':>9} {'':>9} {shown_bytes(one.total_bytes):>10}"
    for lane in one.lanes:
        left = "" if lane.seconds_left is None else f", {in_time(lane.seconds_left)} left"
        rate = f", {lane.sequences_per_second:,.1f} sequences/s" if lane.sequences_per_second else ""
        where = f"rank {lane.rank} of {lane.world_size}"
        yield f"  {lane.product:22} {where}: {lane.done}/{lane.total} shards, {lane.state}{rate}{left}"
    for product, who in one.workers.items():
        yield f"  {product} is in use by {who}"


def _not_due(sample: Any, age: float) -> str:
    from virnucpro_core.results.folder import RUN

    if not (sample.results / RUN).exists():
        return ", it has no results"
    return f", or its results are less than {age:g} days old" if age else ""


def _record(name: str, policy: Any, released: Any) -> None:
    """Record the cleaning in Dagster, so that the web UI shows it. Does nothing if there is no instance yet."""
    from virnucpro_assets.platform.environment import dagster_home

    if not (dagster_home() / "dagster.yaml").exists():
        return
    from virnucpro_assets.graph.retention import retained
    from virnucpro_assets.platform.instance import database_errors, open_instance

    with database_errors(), open_instance() as instance:
        instance.report_runless_asset_event(retained(name, policy, released))


def failures_of(found: "list[Overview]") -> dict[str, str]:
    """Sample -> why its latest run failed. Empty if there is no Dagster instance yet, or none that can be read.

    Dagster takes long to import. It is used only for samples whose folders do not explain their state, and if its
    records show a failure at all.
    """
    from virnucpro_assets.platform.environment import dagster_home

    names = [one.name for one in found if not one.reason and not one.workers]
    if not names or not (dagster_home() / "dagster.yaml").exists():
        return {}
    from virnucpro_assets.platform.databases import has_failures

    if not has_failures(dagster_home()):
        return {}
    from virnucpro_assets.platform.instance import database_errors, open_instance
    from virnucpro_assets.running.runs import latest_failures
    from virnucpro_core.errors import StoreError

    try:
        with database_errors(), open_instance() as instance:
            return latest_failures(instance, names)
    except StoreError as error:  # a full disk, for example: the samples themselves can be listed
        click.echo(f"virnucpro: why runs failed is not shown: {error}", err=True)
        return {}


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else ""
