"""Commands about models and this machine: `models`, `train`, `doctor`, `ui`, `metrics`."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from virnucpro_assets.platform.startup import lasting_imports, stand_in

PATH = click.Path(path_type=Path)
FILES = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def models() -> None:
    """The local model store: fetch, import and verify weights."""


@models.command("list")
def list_models() -> None:
    """Models that can be fetched, and which are here."""
    from virnucpro_core.files.manifest import MANIFEST
    from virnucpro_core.models.sources import SOURCES

    root = _store()
    for name, source in SOURCES.items():
        here = (root / name / MANIFEST).exists()
        state = "here" if here else f"{source.size / 1e6:,.0f} MB to fetch"
        click.echo(f"{name:16} {state:20} {source.address}")


@models.command()
@click.argument("names", nargs=-1, required=True)
def fetch(names: tuple[str, ...]) -> None:
    """Download the published weights NAMES at their pinned revisions and convert them to safetensors."""
    from virnucpro_core.models.store import ModelStore

    store = ModelStore(_store())
    for name in names:
        click.echo(f"{name}: {store.fetch(name)}")


@models.command("import")
@click.argument("kind", type=click.Choice(["esm2", "dnabert-s", "classifier"]))
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=PATH, help="Folder to make.")
@click.option(
    "--chunk-size", type=click.IntRange(6), help="Of a classifier: bases of the chunks it was trained on."
)
@click.option("--force", is_flag=True, help="Replace what is at --out.")
def import_(kind: Any, path: Path, out: Path, chunk_size: int | None, *, force: bool) -> None:
    """Convert PATH (fair-esm .pt, Hugging Face folder, classifier .pth); no pickle is executed."""
    from virnucpro_core.models.convert import import_model
    from virnucpro_core.results.delivery import check_replaceable

    check_replaceable(out, force=force)
    click.echo(import_model(kind, path, out, chunk_size=chunk_size))


@models.command()
@click.argument("folders", nargs=-1, type=PATH)
def verify(folders: tuple[Path, ...]) -> None:
    """Check model FOLDERS (default: all in the store) against their manifests."""
    from virnucpro_core.files.manifest import MANIFEST
    from virnucpro_core.files.manifest import verify as verify_folder

    found = folders or tuple(p.parent for p in sorted(_store().glob(f"*/{MANIFEST}")))
    for folder in found:
        verify_folder(folder)
        click.echo(f"{folder}: sound")
    if not found:
        click.echo("no models in the store; see `virnucpro models list`")


@click.command()
@click.option(
    "--viral", required=True, multiple=True, type=FILES, help="FASTA of viral sequences; may repeat."
)
@click.option("--non-viral", required=True, multiple=True, type=FILES, help="FASTA of others; may repeat.")
@click.option("--dnabert", required=True, type=PATH, help="Folder of the DNABERT-S weights.")
@click.option("--esm2", required=True, type=PATH, help="Folder of the ESM-2 weights.")
@click.option("--out", required=True, type=PATH, help="Folder of the new classifier.")
@click.option("--chunk-size", default=500, show_default=True)
@click.option("--device", default="cuda", show_default=True, help="cpu or cuda[:i]")
@click.option("--seed", default=42, show_default=True)
@click.option("--force", is_flag=True, help="Replace what is at --out.")
def train(viral: tuple[Path, ...], non_viral: tuple[Path, ...], *, force: bool, **options: Any) -> None:
    """Train a classifier of the published architecture for another pair of encoders, and say how it did."""
    with lasting_imports():
        from virnucpro_assets.platform.resource import platform_from_environment
        from virnucpro_core.models.training import TrainingSettings, train_from_fasta
        from virnucpro_core.results.delivery import check_replaceable

    dnabert, esm2, out = options.pop("dnabert"), options.pop("esm2"), options.pop("out")
    check_replaceable(out, force=force)
    with platform_from_environment().compute_on(options.pop("device")).held() as device:
        settings = TrainingSettings(device=device, **options)
        held_out = train_from_fasta(viral, non_viral, dnabert, esm2, out, settings)
    click.echo(
        f"{out}: on held-out blocks {held_out.chunk_accuracy:.1%} of {held_out.chunks:,} chunks and "
        f"{held_out.frame_accuracy:.1%} of {held_out.frames:,} frames are called right"
    )


@click.command()
@click.option("--profile", default="", help="Default: VIRNUCPRO_PROFILE, or esm2-3b.")
@click.option("--chunk-size", default=0, help="Default: VIRNUCPRO_CHUNK_SIZE, or 500.")
@click.option("--device", default="", type=click.Choice(["", "cuda", "cpu"]), help="Default: the profile's.")
@click.option("--clear-failed", is_flag=True, help="Use GPUs again that a lane has lost within the hour.")
def doctor(profile: str, chunk_size: int, device: str, *, clear_failed: bool) -> None:
    """Preflight: GPUs and who holds them, kernels, weights, dimensions, disk, folders. Exit 2 if something is amiss."""
    with lasting_imports():
        from virnucpro_assets.cli import doctor
        from virnucpro_assets.cli.doctor import examine
        from virnucpro_assets.platform.resource import platform_from_environment

    platform = platform_from_environment().asked(device=device)
    for uuid in doctor.clear_failed(platform) if clear_failed else []:
        click.echo(f"{uuid} may be used again")
    found = list(examine(platform, profile or platform.profile, chunk_size or platform.chunk_size))
    for line in found:
        mark = {True: "ok", False: "MISSING", None: ""}[line.good]
        click.echo(f"{mark:8}{line.name:24}{line.text}")
    if any(line.good is False for line in found):
        raise SystemExit(2)


@click.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="The server has no login: keep it on loopback."
)
@click.option("--port", default=3000, show_default=True)
@click.option("--read-only", is_flag=True, help="For viewers: nothing can be launched; no daemon.")
def ui(host: str, port: int, *, read_only: bool) -> None:
    """Serve the Dagster web UI, with the daemon that watches the inbox."""
    from virnucpro_assets.platform.instance import prepare_instance

    # Dagster imports from the folder where it is started, and reads `.env` and `dagster.yaml` there.
    stand_in(prepare_instance())
    where = ["-m", "virnucpro_assets.definitions", "-h", host, "-p", str(port)]
    module, arguments = ("dagster_webserver", ["--read-only"]) if read_only else ("dagster", ["dev"])
    os.execv(sys.executable, [sys.executable, "-P", "-W", "ignore", "-m", module, *arguments, *where])


@click.command()
@click.option("--out", type=PATH, help="Write a file, for node_exporter's textfile collector.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Serve http://127.0.0.1:PORT/metrics until interrupted."
)
def metrics(out: Path | None, port: int | None) -> None:
    """Samples, lanes, queue, GPUs and disk as figures in Prometheus' format; printed, written or served."""
    from virnucpro_assets.platform.environment import home_folder
    from virnucpro_core.errors import UsageError
    from virnucpro_core.files.publish import publish_bytes

    try:
        from virnucpro_assets.cli.metrics import exposition, registry
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed", remedy="run `pip install 'virnucpro[metrics]'`"
        ) from error
    if out is not None and port is not None:
        raise UsageError("--out and --port are two ways", remedy="choose one")
    if port is not None:
        from prometheus_client import start_http_server

        _, thread = start_http_server(port, addr="127.0.0.1", registry=registry(home_folder()))
        click.echo(f"http://127.0.0.1:{port}/metrics")
        thread.join()
    elif out is not None:
        publish_bytes(out, exposition(home_folder()))
    else:
        click.echo(exposition(home_folder()).decode(), nl=False)


def _store() -> Path:
    """The model store of this installation; reading it needs neither torch nor Dagster."""
    from virnucpro_assets.platform.environment import models_folder, settings

    settings()  # a variable that makes no sense is said by every command
    return models_folder()
