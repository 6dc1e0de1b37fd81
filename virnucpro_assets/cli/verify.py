"""`virnucpro samples verify`: read every byte of samples and compare it with what was recorded."""

import json

import click

from virnucpro_assets.cli.options import JSON
from virnucpro_assets.cli.samples import samples


@samples.command()
@click.argument("names", nargs=-1, required=True)
@JSON
@click.pass_context
def verify(context: click.Context, names: tuple[str, ...], *, as_json: bool) -> None:
    """Verify every byte of samples.

    Reads the inputs, all products and the results of the samples NAMES, and compares them with the recorded digests,
    ids and values. This takes as long as reading the sample's folder. `virnucpro predict` only verifies what it uses.
    Exit code 3: something is damaged; `virnucpro predict` with the same files makes it again.

    \b
    Example:
      virnucpro samples verify sampleA
    """
    from dataclasses import replace

    from virnucpro_assets.platform.resource import platform_from_environment
    from virnucpro_core.errors import StoreError
    from virnucpro_core.pipeline.verify import verify_sample

    platform = platform_from_environment()
    damaged = []
    for name in names:
        lane = replace(platform.lane(name, 0), world_size=1)
        for product, finding in verify_sample(lane):
            if not finding.passed:
                damaged.append(f"{product} of {name}")
            if as_json or context.obj:
                facts = {"sample": name, "product": product, "check": finding.name, "passed": finding.passed}
                click.echo(json.dumps(facts | {"what": finding.what} | finding.facts))
                continue
            state = "ok" if finding.passed else "DAMAGED"
            bad = finding.facts.get("bad_shards", "[]")
            shards = "" if bad == "[]" else f"; shards {bad}"
            click.echo(f"{name}  {product:20} {state:8} {finding.what}{shards}")
    if damaged:
        raise StoreError(
            f"{len(damaged)} checks failed: {', '.join(damaged[:5])}",
            remedy="run `virnucpro predict` with the same files again: only what is damaged is made again",
        )
