"""`virnucpro storage`: do the locks below VIRNUCPRO_HOME hold between machines?"""

from pathlib import Path

import click


@click.group()
def storage() -> None:
    """Do locks hold between two machines? `hold` on one, `try` on the other meanwhile."""


@storage.command()
@click.option("--seconds", default=60.0, show_default=True, help="How long.")
def hold(seconds: float) -> None:
    """Hold the storage lock below VIRNUCPRO_HOME."""
    from virnucpro_core.files.filesystem import hold as hold_lock

    hold_lock(_locks(), seconds, lambda host: click.echo(f"{host} holds the lock for {seconds:g} seconds"))


@storage.command("try")
def try_() -> None:
    """Exit 0 if the lock that another machine holds keeps this one out, else 3 and a line that says why."""
    from virnucpro_core.files.filesystem import probe

    click.echo(f"the lock of {probe(_locks())} holds here")


def _locks() -> Path:
    from virnucpro_assets.platform.environment import home_folder

    return home_folder() / "locks"
