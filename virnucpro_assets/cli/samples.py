"""`virnucpro samples`: what is there, how far it is, why it stopped, its disk; cleaning and removing."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from virnucpro_core.pipeline.overview import Overview

JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for programs.")
KEEP = click.Choice(["scores", "results"])


class _NamesToo(click.Group):
    """`samples NAME` is `samples show NAME`: a name that is no command is a sample's."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["show", *args])


@click.group(cls=_NamesToo, invoke_without_command=True, subcommand_metavar="[NAME... | COMMAND]")
@JSON
@click.pass_context
def samples(context: click.Context, *, as_json: bool) -> None:
    """List all samples: state, shards, time left, disk used, when, and why one failed. With NAMES: those in detail.

    A sample that is called like a command is told by `virnucpro samples show NAME`.
    """
    if context.invoked_subcommand is not None:
        context.obj = as_json
        return
    from virnucpro_assets.platform.environment import home_folder
    from virnucpro_core.pipeline.overview import overviews

    home = home_folder()
    found = list(overviews(home))
    failures = _failures([o for o in found if o.state != "called"])
    if as_json:
        _as_json(found, failures)
        return
    if not found:
        _show_inbox(home)
        click.echo(f"no samples in {home}; predict one, or drop a file into the inbox")
        return
    width = max(6, *(len(o.name) for o in found))
    head = f"{'records':>11} {'shards':>11} {'left':>9} {'disk':>10}  {'when':16}  why"
    click.echo(f"{'sample':{width}} {'state':11} {head}")
    for one in found:
        click.echo(_line(one, width, one.reason or failures.get(one.name, "")))
    total = sum(o.total_bytes for o in found)
    click.echo(f"{len(found):,} samples, ~{_size(total)}; ~ sizes of shards are estimated from one of them")
    _show_inbox(home)


@samples.command()
@click.argument("names", nargs=-1, required=True)
@JSON
@click.pass_context
def show(context: click.Context, names: tuple[str, ...], *, as_json: bool) -> None:
    """All about the samples NAMES: products, lanes, who works on them, every file measured."""
    from virnucpro_assets.platform.environment import home_folder
    from virnucpro_core.pipeline.overview import overview

    found = [overview(home_folder(), name, exact=True) for name in names]
    failures = _failures(found)
    if as_json or context.obj:
        _as_json(found, failures)
        return
    for one in found:
        click.echo("\n".join(_detail(one, one.reason or failures.get(one.name, ""))))


@samples.command()
@click.argument("names", nargs=-1)
@click.option(
    "--keep", type=KEEP, help="What stays; `scores`: all but embeddings.  [default: VIRNUCPRO_KEEP]"
)
@click.option(
    "--days", type=float, help="Only results at least this old.  [default: VIRNUCPRO_KEEP_DAYS; NAMES: 0]"
)
@click.option("--dry-run", is_flag=True, help="Say what would go; delete nothing.")
def clean(names: tuple[str, ...], *, keep: str | None, days: float | None, dry_run: bool) -> None:
    """Delete intermediates of the samples NAMES, or of all, whose results are whole; keep their digests.

    Nothing is taken from a sample without complete results, or while a process works on it.
    """
    from virnucpro_assets.platform.environment import home_folder, settings
    from virnucpro_core.errors import UsageError, VirnucproError
    from virnucpro_core.pipeline.retention import check_keep, is_due, releasable, release, require_results
    from virnucpro_core.samples.sample import list_samples, open_sample

    known = settings()
    home, policy = home_folder(), check_keep(keep or known["keep"])
    if policy == "all":
        raise UsageError("VIRNUCPRO_KEEP is all", remedy="say what to keep: --keep scores, or --keep results")
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
        parts = ", ".join(f"{product} {_size(size)}" for product, size in released.bytes.items())
        verb = "would go" if dry_run else "deleted"
        click.echo(f"{name}: {_size(released.total)} {verb} ({parts or 'the data were gone already'})")
        if not dry_run:
            _record(name, policy, released)
    click.echo(f"{_size(total)} {'would go' if dry_run else 'deleted'}")
    if failed:
        raise SystemExit(max(error.exit_code for error in failed))


@samples.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(names: tuple[str, ...], *, yes: bool) -> None:
    """Delete the samples NAMES as a whole, results included, and their partition keys in Dagster."""
    from virnucpro_assets.graph.partitions import SAMPLES
    from virnucpro_assets.platform.environment import home_folder
    from virnucpro_assets.platform.instance import database_errors, open_instance
    from virnucpro_core.errors import UsageError
    from virnucpro_core.samples.sample import check_key, remove_sample

    home = home_folder()
    with database_errors(), open_instance() as instance:
        known = set(instance.get_dynamic_partitions(str(SAMPLES.name)))
        for name in names:
            if not (home / "samples" / check_key(name)).is_dir() and name not in known:
                raise UsageError(
                    f"sample {name!r} is not known", where=home, remedy="see `virnucpro samples`"
                )
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError("nobody is there to ask", remedy="give --yes to delete without asking")
            click.confirm(f"delete {', '.join(names)} with all results below {home / 'samples'}?", abort=True)
        for name in names:
            remove_sample(home, name)
            if name in known:
                instance.delete_dynamic_partition(str(SAMPLES.name), name)
            click.echo(f"{name}: removed")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("priority", type=int)
@click.argument("names", nargs=-1, required=True)
def priority(priority: int, names: tuple[str, ...]) -> None:
    """Give samples NAMES a place in the queue: runs of a higher PRIORITY begin first (default 0; large samples -1)."""
    from virnucpro_assets.automation.queue import set_priority
    from virnucpro_assets.platform.environment import home_folder
    from virnucpro_assets.platform.instance import database_errors, open_instance
    from virnucpro_core.samples.sample import open_sample

    samples = [open_sample(home_folder(), name) for name in names]
    with database_errors(), open_instance() as instance:
        waiting = set_priority(instance, samples, priority)
    click.echo(f"{len(samples)} samples have priority {priority}, {waiting} of their runs were waiting")


def _show_inbox(home: Path) -> None:
    """What lies in the inbox and became no sample, and why."""
    from virnucpro_core.samples.inbox_state import noted_problems, shown

    for row in noted_problems(home):
        tried = "" if row.kind == "refused" else " (tried again)"
        click.echo(f"inbox: {shown(row.name)}: {row.said}{tried}")


def _as_json(found: "list[Overview]", failures: dict[str, str]) -> None:
    for one in found:
        derived = {"total_bytes": one.total_bytes, "seconds_left": one.seconds_left}
        click.echo(json.dumps(asdict(one) | derived | {"failure": failures.get(one.name, "")}))


def _line(one: "Overview", width: int, why: str) -> str:
    left = "" if one.seconds_left is None else _duration(one.seconds_left)
    records = "" if one.records is None else f"{one.records:,}"
    done, total = (sum(pair[i] for pair in one.shards.values()) for i in (0, 1))
    shards = "released" if one.released and one.state == "called" else f"{done}/{total}" if total else ""
    disk = f"{'~' if one.estimated else ''}{_size(one.total_bytes)}"
    when = _when(one.changed)
    return f"{one.name:{width}} {one.state:11} {records:>11} {shards:>11} {left:>9} {disk:>10}  {when}  {why}".rstrip()


def _detail(one: "Overview", why: str) -> Iterator[str]:
    yield f"{one.name}: {one.state}{f', {why}' if why else ''}"
    yield f"  profile {one.profile or '?'}, registered {_when(one.since)}, last change {_when(one.changed)}"
    if one.records is not None:
        yield f"  {one.records:,} records"
    yield f"  {'product':22} {'shards':>9} {'released':>9} {'disk':>10}"
    for product in dict.fromkeys((*one.shards, *one.bytes)):
        there, total = one.shards.get(product, (0, 0))
        shards = f"{there}/{total}" if total else ""
        released = one.released.get(product) or ""
        yield f"  {product:22} {shards:>9} {released:>9} {_size(one.bytes.get(product, 0)):>10}"
    yield f"  {'in all':22} {'':>9} {'':>9} {_size(one.total_bytes):>10}"
    for lane in one.lanes:
        left = "" if lane.seconds_left is None else f", {_duration(lane.seconds_left)} left"
        rate = f", {lane.sequences_per_second:,.1f} sequences/s" if lane.sequences_per_second else ""
        where = f"rank {lane.rank} of {lane.world_size}"
        yield f"  {lane.product:22} {where}: {lane.done}/{lane.total} shards, {lane.state}{rate}{left}"
    for product, who in one.workers.items():
        yield f"  {product} is held by {who}"


def _not_due(sample: Any, age: float) -> str:
    from virnucpro_core.results.folder import RUN

    if not (sample.results / RUN).exists():
        return ", it has no results"
    return f", or its results are younger than {age:g} days" if age else ""


def _record(name: str, policy: Any, released: Any) -> None:
    """Show it in the web UI, where an instance has been made."""
    from virnucpro_assets.platform.environment import dagster_home

    if not (dagster_home() / "dagster.yaml").exists():
        return
    from virnucpro_assets.graph.retention import retained
    from virnucpro_assets.platform.instance import database_errors, open_instance

    with database_errors(), open_instance() as instance:
        instance.report_runless_asset_event(retained(name, policy, released))


def _failures(found: "list[Overview]") -> dict[str, str]:
    """Sample -> the line of its latest run, if that failed; nothing where no instance has been made yet.

    Dagster is asked, and so imported, only for samples whose folders do not explain why they stand where they do.
    """
    from virnucpro_assets.platform.environment import dagster_home

    names = [one.name for one in found if not one.reason and not one.workers]
    if not names or not (dagster_home() / "dagster.yaml").exists():
        return {}
    from virnucpro_assets.platform.instance import database_errors, open_instance
    from virnucpro_assets.running.runs import latest_failures

    with database_errors(), open_instance() as instance:
        return latest_failures(instance, names)


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} m" if hours else f"{minutes} m {rest:02} s" if minutes else f"{rest} s"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else ""
