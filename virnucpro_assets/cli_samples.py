"""`virnucpro samples`: what is there, how far it is, why it stopped, what it takes of the disk."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from virnucpro_core.overview import Overview


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for programs.")
def samples(names: tuple[str, ...], *, as_json: bool) -> None:
    """List all samples, or those named: state, shards, time left, disk used, and why one failed."""
    from virnucpro_assets.resources import home_folder
    from virnucpro_core.overview import overview, overviews
    from virnucpro_core.registry import open_sample

    home = home_folder()
    found = [overview(open_sample(home, name)) for name in names] if names else list(overviews(home))
    failures = _failures([o.name for o in found if o.state not in ("called", "refused")])
    if as_json:
        for one in found:
            click.echo(json.dumps(asdict(one) | {"failure": failures.get(one.name, "")}))
        return
    click.echo(f"{'sample':24} {'state':11} {'records':>11} {'shards':>11} {'left':>9} {'disk':>9}  why")
    for one in found:
        click.echo(_line(one, one.reason or failures.get(one.name, "")))
    if not found:
        click.echo(f"no samples in {home}; predict one, or drop a file into the inbox")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("priority", type=int)
@click.argument("names", nargs=-1, required=True)
def priority(priority: int, names: tuple[str, ...]) -> None:
    """Give samples NAMES a place in the queue: runs of a higher PRIORITY begin first (default 0; large samples -1)."""
    from virnucpro_assets.instance import database_errors, open_instance
    from virnucpro_assets.queue import set_priority
    from virnucpro_assets.resources import home_folder
    from virnucpro_core.registry import open_sample

    samples = [open_sample(home_folder(), name) for name in names]
    with database_errors(), open_instance() as instance:
        waiting = set_priority(instance, samples, priority)
    click.echo(f"{len(samples)} samples have priority {priority}, {waiting} of their runs were waiting")


def _line(one: "Overview", why: str) -> str:
    done = sum(there for there, _ in one.shards.values())
    total = sum(total for _, total in one.shards.values())
    left = "" if one.seconds_left is None else f"{one.seconds_left:,.0f} s"
    records = "" if one.records is None else f"{one.records:,}"
    shards = f"{done}/{total}" if total else ""
    disk = f"{one.bytes / 1e6:,.1f} MB"
    return f"{one.name:24} {one.state:11} {records:>11} {shards:>11} {left:>9} {disk:>9}  {why}".rstrip()


def _failures(names: list[str]) -> dict[str, str]:
    """Sample -> the line of its latest run, if that failed; nothing where no instance has been made yet."""
    from virnucpro_assets.resources import dagster_home

    if not names or not (dagster_home() / "dagster.yaml").exists():
        return {}
    from virnucpro_assets.instance import open_instance
    from virnucpro_assets.runs import latest_failure

    with open_instance() as instance:
        return {name: line for name in names if (line := latest_failure(instance, name))}
