"""`virnucpro storage`: tests whether locks below VIRNUCPRO_HOME work between machines."""

from pathlib import Path

import click


@click.group()
def storage() -> None:
    """Test whether locks work between two machines.

    Run `hold` on one machine, and meanwhile `try` on the other.

    \b
    Examples:
      virnucpro storage hold --seconds 120
      virnucpro storage try
    """


@storage.command()
@click.option("--seconds", default=60.0, show_default=True, help="How long to hold the lock.")
def hold(seconds: float) -> None:
    """Hold a test lock below VIRNUCPRO_HOME.

    \b
    Example:
      virnucpro storage hold --seconds 120
    """
    from virnucpro_core.files.filesystem import hold as hold_lock

    hold_lock(_locks(), seconds, lambda host: click.echo(f"{host} holds the lock for {seconds:g} s"))


@storage.command("try")
def try_() -> None:
    """Test the lock that another machine holds.

    The exit code is 0 if this machine cannot take the lock, as it should be. Otherwise it is 3, and one line says why.

    \b
    Example:
      virnucpro storage try
    """
    from virnucpro_core.files.filesystem import probe

    click.echo(f"the lock of {probe(_locks())} works here")


def _locks() -> Path:
    from virnucpro_assets.platform.environment import home_folder

    return home_folder() / "locks"
