"""The commands `models`, `doctor`, `ui` and `metrics`: arguments and help."""

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
    """Fetch, import, list and verify model weights.

    \b
    Examples:
      virnucpro models list
      virnucpro models fetch dnabert-s
    """


@models.command("list")
def list_models() -> None:
    """List the models that can be fetched, and which are installed."""
    from virnucpro_core.files.manifest import MANIFEST
    from virnucpro_core.models.sources import SOURCES

    root = _store()
    for name, source in SOURCES.items():
        here = (root / name / MANIFEST).exists()
        state = "installed" if here else f"{source.size / 1e6:,.0f} MB to fetch"
        click.echo(f"{name:16} {state:20} {source.address}")


@models.command()
@click.argument("names", nargs=-1, required=True)
def fetch(names: tuple[str, ...]) -> None:
    """Download published weights and convert them.

    NAMES are those of `virnucpro models list`. The revisions are pinned, and the files are verified by sha256. The
    weights are stored as safetensors.

    \b
    Example:
      virnucpro models fetch dnabert-s
    """
    from virnucpro_core.models.store import ModelStore

    store = ModelStore(_store())
    for name in names:
        click.echo(f"{name}: {store.fetch(name)}")


@models.command("import")
@click.argument("kind", type=click.Choice(["esm2", "dnabert-s", "classifier"]))
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=PATH, help="Folder to create.")
@click.option(
    "--chunk-size", type=click.IntRange(6), help="For a classifier: bases in the chunks of its training."
)
@click.option("--force", is_flag=True, help="Replace what is at --out.")
def import_(kind: Any, path: Path, out: Path, chunk_size: int | None, *, force: bool) -> None:
    """Convert weights that you already have.

    PATH is a fair-esm .pt file, a Hugging Face folder, or the .pth file of a classifier. No pickle is executed.

    \b
    Example:
      virnucpro models import classifier m.pth --chunk-size 500 --out folder
    """
    from virnucpro_core.models.convert import import_model
    from virnucpro_core.results.delivery import check_replaceable

    check_replaceable(out, force=force)
    click.echo(import_model(kind, path, out, chunk_size=chunk_size))


@models.command()
@click.argument("folders", nargs=-1, type=PATH)
def verify(folders: tuple[Path, ...]) -> None:
    """Verify model files against their manifests.

    Without FOLDERS, all models in the store are verified.

    \b
    Example:
      virnucpro models verify
    """
    from virnucpro_core.files.manifest import MANIFEST
    from virnucpro_core.files.manifest import verify as verify_folder

    found = folders or tuple(p.parent for p in sorted(_store().glob(f"*/{MANIFEST}")))
    for folder in found:
        verify_folder(folder)
        click.echo(f"{folder}: verified")
    if not found:
        click.echo("no models in the store; see `virnucpro models list`")


@click.command()
@click.option("--profile", default="", help="Profile to check.  [default: VIRNUCPRO_PROFILE or esm2-3b]")
@click.option("--chunk-size", default=0, help="Bases in a chunk.  [default: VIRNUCPRO_CHUNK_SIZE or 500]")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="Where to compute.  [default: by profile]")
@click.option("--clear-failed", is_flag=True, help="Allow the use of GPUs that failed within the last hour.")
def doctor(profile: str, chunk_size: int, device: str | None, *, clear_failed: bool) -> None:
    """Check that this machine is ready to compute.

    Checks GPUs, which processes hold them, attention kernels, weights, folders, disk and the Dagster instance. The
    exit code is 2 if something is missing.

    \b
    Example:
      virnucpro doctor --profile demo
    """
    with lasting_imports():
        from virnucpro_assets.cli import doctor
        from virnucpro_assets.cli.doctor import examine
        from virnucpro_assets.platform.resource import platform_from_environment

    platform = platform_from_environment().asked(device=device or "")
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
    "--host", default="127.0.0.1", show_default=True, help="Address. Keep the default: there is no login."
)
@click.option("--port", default=3000, show_default=True, help="Port of the web server.")
@click.option("--read-only", is_flag=True, help="Only show: nothing can be launched, and no daemon runs.")
def ui(host: str, port: int, *, read_only: bool) -> None:
    """Serve the Dagster web UI and watch the inbox.

    The command runs Dagster's web server and its daemon, until interrupted.

    \b
    Example:
      virnucpro ui --port 3001
    """
    from virnucpro_assets.platform.instance import prepare_instance

    # Dagster imports modules from the current folder, and reads `.env` and `dagster.yaml` there. So change the folder.
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
    """Print, write or serve metrics for Prometheus.

    The metrics describe samples, lanes, runs, GPUs and disk. Without an option they are printed.

    \b
    Examples:
      virnucpro metrics
      virnucpro metrics --port 9200
    """
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
        raise UsageError("--out and --port cannot be used together", remedy="give one of them")
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
    """The folder of the model store. Reading it needs neither torch nor Dagster."""
    from virnucpro_assets.platform.environment import models_folder, settings

    settings()  # so that this command, too, reports a variable that is not valid
    return models_folder()
