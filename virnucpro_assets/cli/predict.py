"""`virnucpro predict`: checks what it is asked to do, says it in one line, and does it."""

from pathlib import Path
from typing import Any

import click

from virnucpro_assets.cli.options import TopicCommand, with_options
from virnucpro_assets.cli.predict_options import PREDICT
from virnucpro_assets.platform.startup import lasting_imports


@click.command(cls=TopicCommand)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@with_options(*PREDICT)
def predict(files: tuple[Path, ...], out: Path, *, check: bool, **options: Any) -> None:
    """Call each record of FILES as virus or others.

    FILES are FASTA or FASTQ, plain or compressed, or folders of such files. Each file becomes a sample. Two FASTQ files
    named as mates (R1, R2) become one sample. Small samples share one load of the models. If a sample fails, the others
    go on. Run the same command again to resume. `virnucpro ui` shows the runs.

    \b
    Examples:
      virnucpro predict reads.fa --profile demo --out results
      virnucpro predict s_R1.fq.gz s_R2.fq.gz --chunk-size 300 --out results
    """
    with lasting_imports():
        from virnucpro_assets.cli.progress import show_predictions
        from virnucpro_assets.platform.resource import platform_from_environment
        from virnucpro_assets.running.predict import registered, several_failed
        from virnucpro_assets.running.request import checked

    request = checked(files, out, platform_from_environment(), options)
    total = len(request.wanted) + len(request.failures)
    if check:
        return
    known, failures = registered(request, fresh=options["fresh"])
    if known:
        folders = {one.name: one.out for one in request.wanted}
        failures |= show_predictions(known, request.platform, lambda one: folders[one.name])
    if request.several and failures:
        raise several_failed(failures, total)
    for error in failures.values():
        raise error
