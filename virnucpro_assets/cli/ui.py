"""`virnucpro ui`: the web UI with the results of the samples, and the daemon."""

import warnings

import click

from virnucpro_assets.platform.startup import lasting_imports, stand_in


@click.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address. Keep the default: there is no login."
)
@click.option(
    "--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port of the web server."
)
@click.option("--read-only", is_flag=True, help="Only show: nothing can be launched, and no daemon runs.")
@click.option("--no-daemon", is_flag=True, help="Only the web server; the daemon is a service of its own.")
@click.option("--verbose", "-v", is_flag=True, help="Print what the web server and the daemon do.")
def ui(host: str, port: int, *, read_only: bool, no_daemon: bool, verbose: bool) -> None:
    """Serve the Dagster web UI and watch the inbox.

    Runs Dagster's web server and its daemon until interrupted. The results of the samples are at /results/ on the same
    host and port, read-only. VIRNUCPRO_URL_PREFIX is the path below which a proxy shows all of it.

    Samples from the inbox take each setting from the nearest settings file in the inbox, else from this command's
    environment (VIRNUCPRO_CHUNK_SIZE=300), else from VIRNUCPRO_HOME/virnucpro.toml.

    \b
    Example:
      virnucpro ui --port 3001
    """
    warnings.simplefilter("ignore")  # of Dagster about its own commands
    with lasting_imports():
        from virnucpro_assets.platform.environment import SLURM
        from virnucpro_assets.platform.instance import prepare_instance
        from virnucpro_assets.platform.resource import platform_from_environment
        from virnucpro_assets.slurm.requests import site_requests
        from virnucpro_assets.web.plain import print_plainly
        from virnucpro_assets.web.server import Served, check_port, serve

    platform = platform_from_environment()
    if platform.executor == SLURM:
        site_requests()  # a mistake in the file is told now, not at the first run
    check_port(host, port)
    # Dagster imports modules from the current folder, and reads `.env` and `dagster.yaml` there. So change the folder.
    stand_in(prepare_instance())
    print_plainly()
    daemon = not (read_only or no_daemon)
    serve(Served(host, port, platform.folder, platform.url_prefix, read_only, daemon, verbose))
