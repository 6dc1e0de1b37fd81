"""`virnucpro plan`: about what samples will need on this machine, before anything is computed."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from virnucpro_assets.cli.options import JSON, TopicCommand, topic, with_options
from virnucpro_assets.cli.predict import sheet_faults_told
from virnucpro_assets.cli.predict_options import COMPUTING, INPUT, MODELS
from virnucpro_assets.cli.words import counted, in_time

if TYPE_CHECKING:
    from virnucpro_assets.running.plans import SamplePlan


@click.command(cls=TopicCommand)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@with_options(INPUT, MODELS, COMPUTING, topic("Output", JSON))
def plan(files: tuple[Path, ...], *, as_json: bool, **options: Any) -> None:
    """Estimate what samples will need: disk, memory and time.

    The beginning of each of FILES is read and translated; nothing is computed or stored. The time comes from large
    samples that were predicted on this machine before with the same profile and precision; without one it is not
    known.

    \b
    Examples:
      virnucpro plan reads.fa --profile demo
      virnucpro plan --sheet samples.csv --gpus 4 --json
    """
    from virnucpro_assets.platform.resource import platform_from_environment
    from virnucpro_assets.running.plans import plans

    with sheet_faults_told():
        found = plans(files, platform_from_environment(), options)
    for one in found:
        click.echo(json.dumps(one.facts()) if as_json else _shown(one))
    if len(found) > 1 and not as_json:
        click.echo(_all(found))


def _shown(one: "SamplePlan") -> str:
    """A sample's estimate, a line for each thing."""
    from virnucpro_core.files.disk import shown_bytes
    from virnucpro_core.samples.products import PRODUCTS

    counts, about = one.plan.counts, "" if one.plan.counts.exact else "about "
    tokens = ", ".join(f"{PRODUCTS[p].label} {number:,.0f}" for p, number in counts.tokens.items())
    rows = {
        "records": f"{about}{counts.records:,.0f} with {counts.bases:,.0f} bases in {counts.chunks:,.0f} chunks",
        "frames": f"{about}{counts.frames:,.0f}, of which {counts.unique_frames:,.0f} differ and are computed",
        "tokens": f"{about}{tokens}",
        "disk": f"about {shown_bytes(one.plan.disk_bytes)}; {shown_bytes(one.free_bytes)} are free in {one.home}",
        "GPU memory": f"at least {shown_bytes(one.gpu_bytes)} on each GPU" if one.gpu_bytes else "",
        "time": f"about {in_time(seconds)} in {counted(one.lanes, 'lane')}"
        if (seconds := one.plan.total_seconds) is not None
        else f"not known: no large sample was predicted here with {one.kind}",
    }
    lines = [f"  {name + ':':12}{text}" for name, text in rows.items() if text]
    return "\n".join([f"{one.name}: {counted(len(one.files), 'file')}, {one.kind}", *lines])


def _all(found: "list[SamplePlan]") -> str:
    from virnucpro_core.files.disk import shown_bytes

    seconds = [one.plan.total_seconds for one in found]
    known = [each for each in seconds if each is not None]
    time = f"about {in_time(sum(known))}" if len(known) == len(seconds) else "time not known"
    disk = shown_bytes(sum(one.plan.disk_bytes for one in found))
    return f"{counted(len(found), 'sample')}: about {disk} of disk, {time}"
